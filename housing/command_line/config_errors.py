"""Messages for errors of Hydra, OmegaConf and YAML: what failed, the value, what is expected, and the next command."""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    KeyValidationError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from housing.command_line import help as help_text
from housing.command_line.arguments import Arguments
from housing.command_line.config_files import AS_TEXT, describe_content, describe_fault, one_line
from housing.command_line.next_command import next_command
from housing.core.environment import command_words
from housing.core.errors import ConfigError
from housing.core.files import short_path

# What Hydra raises before a command has started. ValueError: a defaults list that is wrong, or a file that is not UTF-8.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
FILE_ERRORS = (yaml.YAMLError, UnicodeDecodeError, GrammarParseError, KeyValidationError)  # a config file cannot be read


def describe_composition_error(error: Exception, arguments: Arguments) -> str:
    """Return the message for an error of Hydra, which could not compose the config of a command line."""
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ is not None else error
    if isinstance(cause, FILE_ERRORS) and (fault := _file_fault(cause, arguments)):
        return fault
    if isinstance(error, MissingConfigException):
        return _describe_missing_option(error, arguments)
    if isinstance(error, OverrideParseException):
        return _describe_malformed(error, arguments)
    if isinstance(error, InstantiationException) and isinstance(cause, HydraException) and cause is not error:
        return str(cause)  # of a launcher of ours, which names the option and the value; Hydra's own message names a class
    if isinstance(error, SearchPathException) and arguments.config_dir is not None:
        return f"--config-dir={arguments.config_dir} is no folder. Expected a folder with config files, such as data/NAME.yaml."
    return _describe_message(str(error), arguments)


def _describe_message(message: str, arguments: Arguments) -> str:
    """Return the message for an error whose kind only its text says."""
    if match := re.match(r"Could not override '(.*?)'\.|(\S+) does not exist for .* Check its spelling", message):
        return _describe_unknown_key(match[1] or match[2] or "", arguments)
    if match := re.match(r"Could not append to config\. An item is already at '(.*)'", message):
        return f"{match[1]} exists already. Set it without the plus sign: {_word_of(match[1], arguments).lstrip('+')}"
    if "Ambiguous value" in message or "requires --multirun" in message:
        return _describe_several_values(message, arguments)
    if "Config group override must be a string" in message:
        return _describe_wrong_choice(arguments)
    return f"{' '.join(message.split()).rstrip('.')}. {_help_hint(arguments.command)}"


@contextmanager
def config_errors(cfg: DictConfig) -> Iterator[None]:
    """Turn an error of OmegaConf, about a value of a command's config, into a ConfigError that says what to do."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(_describe_value_error(error, str(HydraConfig.get().job.config_name), cfg)) from error


def _describe_value_error(error: OmegaConfBaseException, command: str, cfg: DictConfig) -> str:
    """Return the message for a value of a running command's config that is missing or refers to nothing."""
    for file in _chosen_files():
        if fault := describe_content(file):
            return fault
    words = cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))
    references = [word for word in words if "${" in word]
    key = error.full_key or next(iter(references), "A value of the config")  # OmegaConf does not always know the key
    if isinstance(error, MissingMandatoryValue):
        return _describe_missing_values(command, sorted(OmegaConf.missing_keys(cfg)) or [key])
    if isinstance(error, InterpolationResolutionError):
        return _describe_reference(error, key)
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        return f"{key} is missing{_place(key)}, and housing.{command} needs it."
    return f"{one_line(error)} {_help_hint(command)}"


def _describe_reference(error: InterpolationResolutionError, key: str) -> str:
    match = re.search(r"Interpolation key '(.*)' not found", str(error))
    if not match:
        return f"{key}{_place(key)} has a reference that cannot be resolved: {one_line(error)} {AS_TEXT}"
    if place := _place(match[1]):
        return f"{match[1]} is missing{place}. {key} is made of it."
    return f"{key}{_place(key)} refers to ${{{match[1]}}}, which the config does not have. {AS_TEXT}"


def describe_unknown_flag(arguments: Arguments) -> str:
    """Return the message for words that start with a dash and are no flags."""
    flag = arguments.unknown_flags[0]
    name, _, value = flag.lstrip("-").partition("=")
    nearest = _nearest(name.replace("-", "_"), help_text.keys(arguments.command))
    option = f"{nearest}={value or 'VALUE'}" if nearest else "NAME=VALUE"
    return f"Unknown flag {flag}. Options have no dashes: {option}. {_help_hint(arguments.command)}"


def _file_fault(error: Exception, arguments: Arguments) -> str | None:
    """Return what is wrong with the config file that an error comes from: the file that it names, or one that cannot be read."""
    mark = getattr(error, "problem_mark", None)
    named = [] if mark is None else [Path(mark.name)]
    others = [file for folder in arguments.config_folders for file in sorted(folder.rglob("*.yaml"))]
    return next(filter(None, map(describe_fault, [*named, *arguments.chosen_files(), *others])), None)


def _describe_missing_option(error: MissingConfigException, arguments: Arguments) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return f"There is no config file {option}.yaml in {_listed(map(short_path, arguments.config_folders))}."
    options = [] if error.options is None else list(error.options)
    nearest = _nearest(option, options)
    hint = f" Did you mean {group}={nearest}?" if nearest else ""
    what = f"{group} has no option {option!r}." if option else f"{group}= needs an option."
    own = " For a table of your own, give the folder of data/NAME.yaml: --config-dir=FOLDER" if group == "data" else ""
    return f"{what}{hint} Options: {_listed(options)}.{own}"


def _describe_malformed(error: OverrideParseException, arguments: Arguments) -> str:
    word = error.override
    name, has_value, value = word.partition("=")
    if not has_value:
        return f"{word!r} is no option. Expected NAME=VALUE{_guess(word, arguments)}. {_help_hint(arguments.command)}"
    quoted = f'{name}="{value}"'
    advice = f" If the value is meant as text, quote it twice: {shlex.quote(quoted)}" if _can_parse(quoted) else ""
    problem = error.message.partition("\n")[0]
    return f"Could not read {word!r}: {problem}. Expected NAME=VALUE, with every bracket and quote closed.{advice}"


def _guess(word: str, arguments: Arguments) -> str:
    """Return what a word without = may have been meant as."""
    keys = help_text.keys(arguments.command)
    position = arguments.overrides.index(word) if word in arguments.overrides else -1
    following = arguments.overrides[position + 1 : position + 2] if position >= 0 else []
    if following and following[0].startswith("="):
        return f" without spaces: {word}{following[0] if following[0] != '=' else '=VALUE'}"
    groups = [name for name in keys if "." not in name and word in arguments.choices(name)]
    if groups:
        return f": {groups[0]}={word}"
    nearest = _nearest(word, keys)
    return f": {nearest}=VALUE" if nearest else ""


def _describe_unknown_key(key: str, arguments: Arguments) -> str:
    word = _word_of(key, arguments)
    if not key:
        return f"{word!r} has no name. Expected NAME=VALUE. {_help_hint(arguments.command)}"
    hint = _key_hint(key, arguments.keys())
    return f"housing.{arguments.command} has no option {key} ({word}).{hint} {_config_hint(arguments)}"


def _describe_wrong_choice(arguments: Arguments) -> str:
    """Return the message for an option of a config group that Hydra reads as a number or as something else than a name."""
    unnamed = [word for word in arguments.overrides if word.startswith("=")]
    if unnamed:
        return _describe_unknown_key("", arguments)
    words = [word for word in arguments.overrides if arguments.choices(word.partition("=")[0]) and not _is_text(word)]
    name, _, value = (words or ["GROUP=OPTION"])[0].partition("=")
    return f"{name}={value} is not read as a name. If an option of {name} has this name, quote it twice: " + shlex.quote(
        f'{name}="{value}"'
    )


def _is_text(word: str) -> bool:
    return isinstance(OverridesParser.create().parse_override(word).value(), str)


def _key_hint(key: str, keys: list[str]) -> str:
    """Return what an unknown key may have been meant as: a key beside it, or else a key of that name anywhere."""
    parent, _, name = key.rpartition(".")
    siblings = [other.rpartition(".")[2] for other in keys if parent and other.rpartition(".")[0] == parent]
    same_name = sorted((other for other in keys if other.rpartition(".")[2] == name), key=len)
    if siblings:
        nearest = _nearest(name, siblings)
        return f" Did you mean {parent}.{nearest}?" if nearest else f" Options of {parent}: {_listed(siblings)}."
    nearest = same_name[0] if same_name else _nearest(key, keys)
    return f" Did you mean {nearest}?" if nearest else ""


def _describe_several_values(message: str, arguments: Arguments) -> str:
    match = re.search(r"'(.*?)'", message)
    word = match[1] if match else ""
    name, _, value = word.partition("=")
    is_sweepable = help_text.read(help_text.config_path(arguments.command)).is_sweepable
    advice = " For a sweep over them, add -m." if is_sweepable else ""
    for kind, quoted in (("a list", f"{name}=[{value}]"), ("one text", f'{name}="{value}"')):
        if _can_parse(quoted):
            advice += f" For {kind}, write {shlex.quote(quoted)}."
    return f"{word} has several values, and housing.{arguments.command} takes one.{advice}"


def _describe_missing_values(command: str, keys: list[str]) -> str:
    descriptions = {option.name: option.description for option in help_text.read(help_text.config_path(command)).options}
    needed = "; ".join(f"{key} ({text.removesuffix('; required')})" if (text := descriptions.get(key)) else key for key in keys)
    examples = help_text.examples(command)
    example = next((line for line in examples if all(f"{key}=" in line for key in keys)), None)
    overrides = [f"{key}=VALUE" for key in keys] if example is None else shlex.split(example)[3:]
    return f"Required: {needed}. Example: {next_command(command, *overrides)}"


def _chosen_files() -> list[Path]:
    """Return the files of the options that the running command uses, apart from the project's own."""
    hydra = HydraConfig.get()
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    files = [folder / group / f"{choice}.yaml" for group, choice in hydra.runtime.choices.items() for folder in folders]
    return [file for file in files if file.is_file()]


def _place(key: str) -> str:
    """Return the file that declares a key, as " in FILE", or "" if no config group does."""
    group = re.split(r"[.\[]", key)[0]
    files = [file for file in _chosen_files() if file.parent.name == group]
    return f" in {short_path(files[0])}" if files else ""


def _nearest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def _can_parse(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _word_of(key: str, arguments: Arguments) -> str:
    """Return the override that sets a key, as it was typed."""
    return next((word for word in arguments.overrides if word.partition("=")[0].lstrip("+~") == key), f"{key}=")


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names)) or "none"


def _help_hint(command: str) -> str:
    return f"All options: {shlex.join(command_words(command))} --help"


def _config_hint(arguments: Arguments) -> str:
    """Return the command that prints the whole config, with the options that the command line chooses."""
    folder = [] if arguments.config_dir is None else [f"--config-dir={arguments.config_dir}"]
    options = [lines[0] for lines in arguments.option_lines()]
    return f"All options: {shlex.join([*command_words(arguments.command), '--cfg', 'job', *folder, *options])}"
