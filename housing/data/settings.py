"""Table settings: what a file of `conf/data` declares."""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.read_options import PLAIN, ReadOptions
from housing.schema.table_schema import Schema

TABLE_KEYS = (
    "name",
    "description",
    "path",
    "read",
    "fingerprint",
    "source",
    "columns",
    "slice_columns",
    "landmarks",
    "derived_products",
    "card",
)
# Keys of `card`, for the model card: each a text or a list of texts.
CARD_KEYS = (
    *("intended_use", "users", "out_of_scope", "groups", "risks", "human_oversight", "limitations"),
    *("owner", "contact", "license"),
)
MAPPING = (dict, "a mapping: lines of NAME: VALUE")
KEY_TYPES = {
    "source": MAPPING,
    "slice_columns": (list, "a list of column names, such as [area]"),
    "landmarks": MAPPING,
    "derived_products": MAPPING,
    "card": MAPPING,
}
INTERPOLATION = "${"  # a stored config must have none, so a table that has one as text could not be promoted


@dataclass(frozen=True)
class TableSource:
    """A public source: the function that downloads or generates the table."""

    name: str  # import path of the function
    download: Callable[[], Any]


@dataclass(frozen=True)
class TableSettings:
    """A table: its schema, its file and its public source.

    Attributes
    ----------
    fingerprint
        SHA-256 of the file that the public source provides, or None if it is not pinned.
    """

    schema: Schema
    path: Path
    fingerprint: str | None = None
    source: TableSource | None = None
    read: ReadOptions = PLAIN

    @classmethod
    def from_config(cls, data: DictConfig) -> Self:
        """Read the settings of one table from its config."""
        node = data.get("source")
        source = None if node is None else TableSource(str(node["_target_"]), partial(instantiate, node))
        faults, schema, options = list[str](), None, None
        try:
            schema = parse_schema(data)
        except ConfigError as error:
            faults.append(str(error))
        try:
            options = parse_read_options(data, schema)
        except ConfigError as error:
            faults.append(str(error))
        if schema is None or options is None:
            raise ConfigError("\n".join(faults))
        return cls(schema, Path(data.path), data.get("fingerprint"), source, options)

    @property
    def name(self) -> str:
        """The table's name."""
        return self.schema.name


def parse_read_options(data: DictConfig, schema: Schema | None) -> ReadOptions:
    """Return how the files of a table are written.

    Parameters
    ----------
    schema
        The columns, or None if they are declared wrongly: then only the options themselves are checked.

    Raises
    ------
    ConfigError
        With each option that is unknown or invalid, or if the options contradict how a column is written.
    """
    declared: Any = OmegaConf.to_container(data, resolve=True)
    if schema is None:
        return ReadOptions.from_dict(declared.get("read"), list(declared.get("columns") or ()), "")
    options = ReadOptions.from_dict(declared.get("read"), [column.name for column in schema.columns], schema.target.name)
    expected = "decimal_comma" if options.decimal == "," else "number"
    faults = [
        f"Table {schema.name}: column {column.name} has parse: {column.parse}, which contradicts read.decimal"
        f" {options.decimal!r}. Set parse to {expected}."
        for column in schema.columns
        if column.parse not in ("", expected)
    ]
    if faults:
        raise ConfigError("\n".join(faults))
    return options


def parse_schema(data: DictConfig) -> Schema:
    """Return the schema that a table's config declares.

    Raises
    ------
    ConfigError
        If a column is declared wrongly, or if a key looks like a misspelt key of `TABLE_KEYS`. Other keys are allowed, since a
        config may refer to them.
    """
    declared: Any = OmegaConf.to_container(data, resolve=True)
    for key in declared.keys() - set(TABLE_KEYS):
        close_matches = difflib.get_close_matches(str(key), TABLE_KEYS, n=1, cutoff=0.8)
        if close_matches:
            raise ConfigError(f"Table {declared.get('name')}: unknown key '{key}'. Did you mean '{close_matches[0]}'?")
    _check_types(declared)
    return Schema.from_dict(declared)


def _check_types(declared: Mapping[str, Any]) -> None:
    for key, (expected, description) in KEY_TYPES.items():
        value = declared.get(key)
        if value is not None and not isinstance(value, expected):
            raise ConfigError(f"Table {declared.get('name')}: {key} must be {description} (got {value!r}).")
    for key in declared.get("card") or {}:
        if key not in CARD_KEYS:
            nearest = difflib.get_close_matches(str(key), CARD_KEYS, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else f" Expected {', '.join(CARD_KEYS)}."
            raise ConfigError(f"Table {declared.get('name')}: card has an unknown key {key!r}.{hint}")
    for text in re.findall(rf'[^"]*{re.escape(INTERPOLATION)}[^"]*', json.dumps(declared, default=str, ensure_ascii=False)):
        raise ConfigError(
            f"Table {declared.get('name')}: text in its config must not contain {INTERPOLATION} (got {text!r}). Write it in"
            " another way, in the file too."
        )
