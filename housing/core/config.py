"""Hydra configuration: its folder, its resolver of the home folder, instantiation of nodes, and YAML."""

from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf, base, grammar_parser

from housing.core.environment import CONFIG_FOLDER, project_home
from housing.core.errors import HousingError, TargetError
from housing.core.own_project import make_own_modules_importable

CONF = str(CONFIG_FOLDER)
SWEEP_RUN = "HOUSING_SWEEP_RUN"  # environment variable of a sweep's jobs: the ID of their parent run

# OmegaConf parses an interpolation anew at each access, which took a tenth of a sweep's job. Its value is looked up each time.
vars(base)["parse"] = lru_cache(maxsize=1024)(grammar_parser.parse)
OmegaConf.register_new_resolver("home", lambda: str(project_home()), replace=True)


def instantiate(node: DictConfig, *arguments: Any) -> Any:
    """Instantiate the class, or call the function, that the node's `_target_` names.

    Raises
    ------
    TargetError
        If the target does not exist or does not accept the arguments of the node.
    HousingError, OSError, HTTPException
        As raised by the target itself, without Hydra's wrapper.
    """
    make_own_modules_importable()  # a `_target_` may name one of them
    try:
        return hydra_instantiate(node, *arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, HousingError | OSError | HTTPException):
            raise error.__cause__ from None
        raise TargetError(str(error)) from error


def read_yaml(path: Path) -> Any:
    """Return the content of a config file, or None if it cannot be read. Hydra refuses such a file if a command uses it."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError):  # ValueError: not UTF-8, or a date that does not exist
        return None


class _Dumper(yaml.CSafeDumper):
    """Writes text that starts like a number in quotes: readers of YAML 1.1 and 1.2 differ on `6E01`, `0o7` and `12:30`."""


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text[:1].isalpha() or text[:1] in ("_", "/", "$") else "'"
    style = style if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(content: Any) -> str:
    """Return resolved config values as YAML. Any reader of YAML gets the same values from it."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def to_flow_yaml(content: Any) -> str:
    """Return values as YAML in a single line, for a config that people edit."""
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=1 << 30)
    return str(text).removesuffix("\n").removesuffix("\n...")
