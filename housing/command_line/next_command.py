"""The next command: a command line to paste, with everything of the present command line that makes it work."""

import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from housing.command_line import help as help_text
from housing.command_line.arguments import searched_folder
from housing.core.config import CONF, read_yaml
from housing.core.environment import command_words, own_config_folder
from housing.core.files import short_path

CONFIG_DIR_PROVIDER = "command-line"  # Hydra's name for the source of --config-dir
# Groups and options that decide which table, rows and store a command works on.
CONTEXT_GROUPS = ("data", "split", "mlflow", "engine")
CONTEXT_BRANCHES = ("data", "paths", "mlflow", "split", "engine", "serve", "read")
CONTEXT_OPTIONS = ("experiment_name", "max_rows", "registered_model", "decisions_experiment", "page", "name")


def next_command(name: str, *overrides: str, table: str | None = None, hydra: DictConfig | None = None) -> str:
    """Return a command line that a shell understands.

    Parameters
    ----------
    name
        The command, such as "promote".
    overrides
        Its overrides and flags. They replace overrides of the present command line.
    table
        The name of the table that it works on, or None for the present one.
    hydra
        The node `hydra` of the present config; by default that of the running job, if Hydra runs one.
    """
    if hydra is None and HydraConfig.initialized():
        hydra = cast(DictConfig, HydraConfig.get())
    flags = [word for word in overrides if word.startswith("-")]  # Hydra takes no flag between overrides
    flags += [] if hydra is None else _flags(hydra)
    context = {} if hydra is None else _context(name, hydra)
    if table is not None:
        context["data"] = f"data={table if hydra is None else _table_choice(table, hydra)}"
    explicit = {override.partition("=")[0] for override in overrides}
    kept = [word for key, word in sorted(context.items(), key=lambda item: item[0] != "data") if key not in explicit]
    return shlex.join([*command_words(name), *flags, *kept, *(word for word in overrides if word not in flags)])


def _flags(hydra: DictConfig) -> Iterator[str]:
    """Yield the flags and Hydra overrides that say where config files are."""
    for source in hydra.runtime.config_sources:
        if source.provider == CONFIG_DIR_PROVIDER:
            yield f"--config-dir={short_path(Path(source.path))}"
    for line in hydra.overrides.hydra:
        if line.lstrip("+").startswith("hydra.searchpath="):
            folder = searched_folder(line)
            yield line if folder is None else f"--config-dir={short_path(folder)}"


def config_folder() -> Path:
    """Return the folder for config files of one's own: that of --config-dir, or that of the project, or that of the clone."""
    sources = HydraConfig.get().runtime.config_sources
    folder = next((Path(source.path) for source in sources if source.provider == CONFIG_DIR_PROVIDER), None)
    return folder or own_config_folder() or Path(CONF)


def _context(name: str, hydra: DictConfig) -> dict[str, str]:
    """Return the parts of the present command line that another command needs too, by key."""
    accepted = help_text.keys(name)
    choices = {group: choice for group, choice in hydra.runtime.choices.items() if group in CONTEXT_GROUPS and group in accepted}
    context = {group: f"{group}={choice}" for group, choice in choices.items() if choice != accepted[group]}
    parser = OverridesParser.create()
    for override in parser.parse_overrides(list(hydra.overrides.task)):
        key = override.key_or_group
        branch = key.partition(".")[0]
        is_value = key in CONTEXT_OPTIONS and key in accepted
        is_value |= "." in key and branch in CONTEXT_BRANCHES and (branch in accepted or branch == "paths")
        if is_value and not override.is_sweep_override():
            context[key] = str(override.input_line)
    return context


def _table_choice(table: str, hydra: DictConfig) -> str:
    """Return the name of the file that declares a table, which can differ from the table's name."""
    present = str(hydra.runtime.choices.get("data", table))
    folders = [Path(source.path) / "data" for source in hydra.runtime.config_sources if source.schema == "file"]
    names = {file.stem: _table_name(file) for folder in reversed(folders) for file in sorted(folder.glob("*.yaml"))}
    matches = [choice for choice, name in names.items() if name == table]
    if present in matches or not matches:
        return present
    return table if table in matches else matches[0]


@cache
def _table_name(file: Path) -> str | None:
    declared = read_yaml(file)
    return str(declared["name"]) if isinstance(declared, dict) and "name" in declared else None
