"""Help texts of the commands, read from the comments in conf/.

The comment behind a key, or the comment lines above it, describe the key. The comment at the top of a command's file
holds examples.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from housing.command_line import output
from housing.core.config import CONF
from housing.core.environment import PACKAGE, own_config_folder

WIDTH = 80
INDENT = 28  # the column in which descriptions start
FLAGS = ("-h", "--help")
EXAMPLE = "python -m "
BASIC = "basic"  # Hydra's own choice for launcher and sweeper
PLUGINS = {
    "hydra/launcher": "where the jobs of a sweep run (with -m)",
    "hydra/sweeper": "which jobs a sweep has (with -m)",
}


@dataclass(frozen=True)
class Option:
    """A key of a config file. A branch is a mapping whose keys are options too."""

    name: str
    default: str
    description: str
    is_branch: bool = False
    is_target_argument: bool = False  # an argument of the class or function that `_target_` names


OUTPUT = Option(output.OPTION, output.TEXT, output.DESCRIPTION)  # of every command; no part of its config


@dataclass(frozen=True)
class Group:
    """A config group of which a command takes one choice."""

    name: str
    default: str
    description: str

    @property
    def choices(self) -> list[str]:
        """Return the names of the files in the group's folders: the package's and that of the project of one's own."""
        folders = [folder / self.name.partition("@")[0] for folder in (Path(CONF), own_config_folder()) if folder is not None]
        return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


@dataclass(frozen=True)
class ConfigFile:
    """A config file: its header comment, options, groups and parents."""

    header: list[str]
    options: list[Option]
    groups: list[Group]
    parents: list[str]  # config files that this one includes, such as `registry` or `paths@paths`
    is_sweepable: bool


def is_requested(arguments: Sequence[str]) -> bool:
    """Return whether the command line asks for help."""
    return any(argument in FLAGS for argument in arguments)


def command_names() -> list[str]:
    """Return the names of all commands: the modules of the package housing that have a config file."""
    return sorted(path.stem for path in PACKAGE.glob("*.py") if (Path(CONF) / f"{path.stem}.yaml").is_file())


def render(name: str) -> str:
    """Return the help of a command as plain text of at most 80 columns."""
    file = read(config_path(name))
    groups, shared, commands = list(file.groups), list[Option](), list[str]()
    for parent in _ancestors(file):
        if parent in command_names():
            commands.append(parent)
        else:
            shared += _qualified(parent)
        groups += read(config_path(parent)).groups
    shared.append(OUTPUT)
    if file.is_sweepable:
        groups += [Group(plugin, BASIC, description) for plugin, description in PLUGINS.items()]
    own_names = {option.name for option in file.options}
    parts = [
        f"{textwrap.fill(f'{EXAMPLE}housing.{name}: {purpose(name)}', WIDTH, break_on_hyphens=False)}\n",
        f"Usage: {EXAMPLE}housing.{name} {'[-m] ' if file.is_sweepable else ''}[GROUP=CHOICE ...] [OPTION=VALUE ...]\n",
        _section("Examples:", [_example(line) for line in _examples(file)]),
        _section("Options:", [_line(option) for option in file.options if _is_shown(option)]),
        _section("Shared options:", [_line(option) for option in shared if _is_shown(option) and option.name not in own_names]),
        _section("Config groups:", [_group_line(group) for group in groups]),
        _section("Flags:", [_entry(flag, text) for flag, text in _flags(file.is_sweepable)]),
        *(f"Options of the server: {EXAMPLE}housing.{command} --help\n" for command in commands),
    ]
    return "\n".join(filter(None, parts)).rstrip("\n")


def keys(name: str) -> dict[str, str]:
    """Return the options and groups of a command by name, with their defaults."""
    defaults = {OUTPUT.name: OUTPUT.default}
    for config in (name, *_ancestors(read(config_path(name)))):
        items: list[Option | Group] = [*_qualified(config), *read(config_path(config)).groups]
        for item in items:
            defaults.setdefault(item.name, item.default)
    return defaults


def purpose(name: str) -> str:
    """Return what a command does: the first paragraph of its module's docstring."""
    source = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    paragraph = " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())
    return paragraph[:1].upper() + paragraph[1:]


@cache
def read(path: Path) -> ConfigFile:
    """Read a config file's keys with their comments."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    n_header = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    source = _Source(text, lines, n_header)
    nodes = {key.value: value for key, value in entries}
    defaults = nodes["defaults"].value if "defaults" in nodes else []
    hydra = nodes.get("hydra")
    return ConfigFile(
        header=[line[1:].strip() for line in lines[:n_header]],
        options=[*source.options([pair for pair in entries if pair[0].value not in ("defaults", "hydra")])],
        groups=[*source.groups(defaults)],
        parents=[item.value for item in defaults if isinstance(item, yaml.ScalarNode) and item.value != "_self_"],
        is_sweepable=isinstance(hydra, yaml.MappingNode) and any(key.value == "sweep" for key, _ in hydra.value),
    )


@dataclass(frozen=True)
class _Source:
    """The text of a config file, from which the comments and the literal values of its nodes are read."""

    text: str
    lines: list[str]
    n_header: int

    def options(self, entries: Sequence[Any], prefix: str = "", is_target_argument: bool = False) -> Iterator[Option]:
        """Yield the keys of a mapping and of the mappings in it."""
        is_target_argument = is_target_argument or (bool(prefix) and any(key.value == "_target_" for key, _ in entries))
        for key, value in entries:
            name = f"{prefix}{key.value}"
            is_branch = isinstance(value, yaml.MappingNode) and not value.flow_style
            default = "" if is_branch else " ".join(self.text[value.start_mark.index : value.end_mark.index].split())
            yield Option(name, default, self._comment(key, value), is_branch, is_target_argument)
            if is_branch:
                yield from self.options(value.value, f"{name}.", is_target_argument)

    def groups(self, defaults: Sequence[Any]) -> Iterator[Group]:
        """Yield the config groups of a defaults list."""
        for item in defaults:
            if isinstance(item, yaml.MappingNode):
                [(key, value)] = item.value
                if not key.value.startswith(("override ", "/")):
                    yield Group(key.value, value.value, self._comment(key, value))

    def _comment(self, key: Any, value: Any) -> str:
        for mark in (value.end_mark, key.end_mark):
            rest = self.lines[mark.line][mark.column :] if mark.line < len(self.lines) else ""
            comment = re.fullmatch(r":?\s*#\s*(.*)", rest)
            if comment:
                return comment[1]
        lines_above: list[str] = []
        for line in reversed(self.lines[self.n_header : key.start_mark.line]):
            if not re.match(rf"^ {{{key.start_mark.column}}}#", line):
                break
            lines_above.insert(0, line.strip("# "))
        return " ".join(lines_above)


def config_path(config: str) -> Path:
    """Return the config file of a command, or of a parent such as `paths@paths`."""
    return Path(CONF) / f"{config.partition('@')[0]}.yaml"


def _ancestors(file: ConfigFile) -> list[str]:
    """Return the config files that a file includes, directly or not, each once."""
    ancestors: dict[str, None] = {}
    for parent in file.parents:
        ancestors |= dict.fromkeys([parent, *_ancestors(read(config_path(parent)))])
    return list(ancestors)


def _qualified(config: str) -> list[Option]:
    """Return the options of a config file by the names that they have in a command."""
    package = config.partition("@")[2]
    prefix = f"{package}." if package else ""
    return [
        replace(option, name=f"{prefix}{option.name}", is_target_argument=False) for option in read(config_path(config)).options
    ]


def _is_shown(option: Option) -> bool:
    return bool(option.description) or not option.is_branch


def examples(name: str) -> list[str]:
    """Return the example command lines of a command, without their descriptions."""
    return [re.split(r"\s{2,}", line)[0] for line in _examples(read(config_path(name)))]


def _examples(file: ConfigFile) -> list[str]:
    return [line for line in file.header if line.startswith(EXAMPLE)]


def _section(title: str, entries: Sequence[str]) -> str:
    return "\n".join([title, *entries, ""]) if entries else ""


def _example(line: str) -> str:
    command, *description = re.split(r"\s{2,}", line, maxsplit=1)
    return "\n".join([_broken(command), *(_wrapped(text, 6) for text in description)])


def _broken(command: str) -> str:
    """Return a command line that a shell understands, in lines of at most 80 columns."""
    lines = [" "]
    for word in re.findall(r"""(?:'[^']*'|"[^"]*"|\S)+""", command):
        if len(f"{lines[-1]} {word} \\") > WIDTH:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {word}"
    return "\n".join(lines)


def _line(option: Option) -> str:
    return _entry(f"{option.name}.*" if option.is_branch else f"{option.name}={option.default}", option.description)


def _group_line(group: Group) -> str:
    choices = group.choices if group.name not in PLUGINS else [BASIC, *group.choices]
    return _entry(f"{group.name}={group.default}", f"{group.description}: {', '.join(choices)}".removeprefix(": "))


def _flags(is_sweepable: bool) -> Iterator[tuple[str, str]]:
    if is_sweepable:
        yield "-m, --multirun", "Run a sweep: one job for each combination of the values"
    yield "--cfg job", "Print the whole configuration and exit"
    yield "--help", "Print this help and exit"
    yield "--hydra-help", "Print the flags of Hydra and exit"


def _entry(term: str, description: str) -> str:
    """Return a term and its description in two columns; a long term has lines of its own."""
    head = textwrap.wrap(term, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
    text = _wrapped(description, INDENT)
    if len(head) == 1 and len(head[0]) <= INDENT - 2:
        return (head[0].ljust(INDENT) + text.lstrip()).rstrip()
    return "\n".join(filter(str.strip, [*head, text]))


def _wrapped(text: str, indent: int) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False)
