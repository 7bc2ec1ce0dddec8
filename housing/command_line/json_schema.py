"""JSON schemas of the documents that commands write with output=json, made from the types of their results."""

import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from inspect import cleandoc
from pathlib import Path
from typing import Any

from housing.command_line.output import Failure

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NULL = {"type": "null"}
SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},  # null: not a finite number
    datetime: {"type": "string", "format": "date-time"},
    Path: {"type": "string"},
    type(None): NULL,
    Any: {},
}


def document_schema(command: str, result: type) -> dict[str, Any]:
    """Return the schema of a command's document. `result` is the dataclass that the command returns."""
    definitions: dict[str, Any] = {}
    members = {
        "command": {"const": command},
        "exit_code": {"type": "integer", "description": "The exit code of the command."},
        "result": {"anyOf": [_schema(result, definitions), NULL], "description": "null if an error ended the command."},
        "error": {"anyOf": [_schema(Failure, definitions), NULL], "description": "null if no error ended the command."},
    }
    return {
        "$schema": DIALECT,
        "title": f"python -m housing.{command} output=json",
        "type": "object",
        "properties": members,
        "required": list(members),
        "$defs": definitions,
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type. The schemas of its dataclasses are added to `definitions`."""
    if kind in SCALARS:
        return dict(SCALARS[kind])
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # first, for a type that has members of itself
            definitions[kind.__name__] = _object_schema(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    raise TypeError(f"{kind} has no JSON schema.")


def _object_schema(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, texts = typing.get_type_hints(kind), _attribute_texts(kind)
    members = {}
    for item in fields(kind):
        described = {"description": texts[item.name]} if item.name in texts else {}
        members[item.name] = _schema(hints[item.name], definitions) | described
    return {
        "description": cleandoc(kind.__doc__ or "").partition("\n\n")[0],
        "type": "object",
        "properties": members,
        "required": list(members),
    }


def _attribute_texts(kind: type) -> dict[str, str]:
    """Return the descriptions of attributes in the docstring of a class."""
    _, _, section = cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")
    texts: dict[str, str] = {}
    for names, text in re.findall(r"^(\w+(?:, \w+)*)\n((?: {4}.*\n?)+)", section, re.MULTILINE):
        texts |= dict.fromkeys(names.split(", "), " ".join(text.split()).replace("None", "null"))
    return texts
