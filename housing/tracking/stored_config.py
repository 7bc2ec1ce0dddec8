"""Stored configs: the config of a run, read back from its artifacts.

Whoever can write artifacts can change a stored config, and a target is a function that a command calls. So a stored config may
name only the targets that the config files of this machine name in the same place, and those that its owner trusts.
"""

from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from housing.core.config import CONF, read_yaml
from housing.core.errors import UntrustedConfigError
from housing.core.moved_modules import present_name

TARGET = "_target_"
GROUPS = ("data", "evaluation", "interval", "metric_functions", "model", "split")  # config groups whose files name targets
INTERPOLATION = "${"  # a stored config is resolved, and a resolver could read the environment
MAX_DEPTH = 30  # of nested mappings and lists


def parse_stored_config(text: str, run_id: str, trusted_targets: Collection[str]) -> DictConfig:
    """Return a stored config once it is checked. Nothing is imported or resolved.

    Raises
    ------
    UntrustedConfigError
        If the config names another target than this machine's config files and `trusted_targets`, has an interpolation,
        or is not plain YAML.
    """
    try:
        _check_structure(text, run_id)
        content: Any = yaml.load(text, yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise UntrustedConfigError(f"The stored config of run {run_id} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UntrustedConfigError(f"The stored config of run {run_id} must be a mapping with names as keys.")
    for group, node in content.items():
        allowed = {present_name(target) for target in (*_targets_of_group(group), *trusted_targets)}
        for path, key, value in _leaves(node, group):
            _check_leaf(path, key, value, allowed, run_id)
    return OmegaConf.create(content)


def _check_structure(text: str, run_id: str) -> None:
    """Refuse aliases and deep nesting: a few such lines can expand to more than fits into memory."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
            raise UntrustedConfigError(
                f"The stored config of run {run_id} must have no YAML aliases and at most {MAX_DEPTH} nested levels."
            )


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted path, the last key and the value of every value below a node, and of every `_target_`."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield f"{path}.{key}", key, value
        yield from _leaves(value, f"{path}.{key}")


def _check_leaf(path: str, key: Any, value: Any, allowed: Collection[str], run_id: str) -> None:
    if INTERPOLATION in str(key) or (isinstance(value, str) and INTERPOLATION in value):
        raise UntrustedConfigError(
            f"The stored config of run {run_id} has an interpolation: {path}={value!r}. Expected the resolved value,"
            " as housing.train stores it."
        )
    if key == TARGET and not (isinstance(value, str) and present_name(value) in allowed):
        raise UntrustedConfigError(
            f"The stored config of run {run_id} would call {value!r} ({path}), which no file of"
            f" conf/{path.partition('.')[0]} names. If you know this run and trust that function, add it:"
            f" 'mlflow.trusted_targets=[{value}]'"
        )


def _targets_of_group(group: str) -> frozenset[str]:
    """Return the targets that the files of a config group name: those in conf/, and those in the user's own config folders."""
    return _targets_of_files(group, _config_folders()) if group in GROUPS else frozenset()


def _config_folders() -> tuple[str, ...]:
    """Return conf/ and, inside a command, the folders of --config-dir and hydra.searchpath."""
    if not HydraConfig.initialized():
        return (CONF,)
    sources = HydraConfig.get().runtime.config_sources
    return (CONF, *(source.path for source in sources if source.schema == "file" and source.path != CONF))


@cache
def _targets_of_files(group: str, folders: tuple[str, ...]) -> frozenset[str]:
    files = (file for folder in folders for file in sorted((Path(folder) / group).glob("*.yaml")))
    return frozenset(str(value) for file in files for _, key, value in _leaves(read_yaml(file), group) if key == TARGET)
