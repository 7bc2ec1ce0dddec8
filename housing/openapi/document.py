"""The OpenAPI document: routes and fixed schemas of openapi.yaml, with the schemas of the current model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from apispec import APISpec

from housing.bundle.bundle import Bundle
from housing.bundle.conformal import MAX_LEVELS, levels_of
from housing.explanation.shapley import EXACT, SAMPLED
from housing.schema.column import MAX_LISTED_LEVELS, Column
from housing.schema.table_schema import Schema
from housing.server_files.request_id import REQUEST_ID_PATTERN

Spec = dict[str, Any]

STATIC_FILE = Path(__file__).with_name("openapi.yaml")
JSON_TYPES = {"float": "number", "int": "integer", "bool": "boolean"}
AUTH_ERRORS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
SECURITY_SCHEME = "key"
JSON, PROBLEM = "application/json", "application/problem+json"
INFERENCE_ROUTES = "/v2"  # the prefix of the Open Inference Protocol's routes, whose errors have its own form
MODEL_PATHS = [f"{INFERENCE_ROUTES}/models/{{name}}{version}" for version in ("", "/versions/{version}")]
INFER_PATHS = [f"{path}/infer" for path in MODEL_PATHS]
SPREAD_ROUTES = ("/predict", "/invocations")  # take an interval and quantiles in the query
MODEL_INFO: Spec = {"model": {"type": "string"}, "version": {"type": "string"}}  # part of most responses


@dataclass(frozen=True)
class Service:
    """The facts of the server that the document states beside the model."""

    max_rows: int  # per request
    protected: Collection[str]  # the routes that need a key; the others never do
    root: str = ""  # the path of a model with a name, which has only `routes_of_a_model`
    routes_of_a_model: Collection[str] = ()


def build_document(bundle: Bundle, info: Mapping[str, str], example: Spec, inference_example: Spec, service: Service) -> Spec:
    """Return the document for a model. `info` has its name and version; the examples are a row and a request of tensors."""
    schema, interval = bundle.schema, bundle.interval
    spec = APISpec(
        title=f"Predictions of {schema.target.name} ({schema.name})",
        version=info["version"],
        openapi_version="3.1.0",
        info={"description": schema.description},
    )
    static = yaml.safe_load(STATIC_FILE.read_text(encoding="utf-8"))
    max_coverage = None if interval is None else interval.max_coverage
    for name, component in {
        **_request_schemas(schema, example, service.max_rows),
        **_response_schemas(schema, max_coverage),
        **static["schemas"],
    }.items():
        spec.components.schema(name, component)
    if service.protected:
        spec.components.security_scheme(SECURITY_SCHEME, {"type": "http", "scheme": "bearer"})
    examples = {
        **dict.fromkeys(("/predict", "/explain", "/curves"), example),
        "/invocations": {"dataframe_records": [example]},
        **dict.fromkeys(INFER_PATHS, inference_example),
        "/feedback": {"request_id": "0193f5c2a1b3-01-0000002a", "row": 0, "value": 1},
    }
    if service.root:
        spec.options["servers"] = [{"url": service.root}]
    for path, operations in static["paths"].items():
        if service.root and path not in service.routes_of_a_model:
            continue
        for operation in operations.values():
            statuses = [*operation.pop("errors", []), *(AUTH_ERRORS if path in service.protected else [])]
            operation["responses"] = {**operation["responses"], **_error_responses(path, statuses)}  # operations share responses
            if path in examples:
                operation["requestBody"]["content"][JSON]["example"] = examples[path]
            if path in SPREAD_ROUTES and max_coverage is not None:
                operation["parameters"] = _spread_parameters(max_coverage)
            if path.startswith(INFERENCE_ROUTES):
                operation["parameters"] = _path_parameters(path, info)
            if path in service.protected:
                operation["security"] = [{SECURITY_SCHEME: []}]
        spec.path(path, operations=operations)
    return dict(spec.to_dict())


def _request_schemas(schema: Schema, example: Spec, max_rows: int) -> dict[str, Spec]:
    columns = {column.name: _column_schema(column) for column in schema.features}
    unused: dict[str, Spec] = {column.name: {"description": "ignored"} for column in schema.unused}
    nullable = [column.name for column in schema.features if column.nullable]
    width = {"minItems": len(columns), "maxItems": len(columns)}
    ordered = {"type": "array", "prefixItems": list(columns.values()), **width}
    by_column = {name: {"type": "array", "items": column, "minItems": 1} for name, column in columns.items()}
    split = {"columns": _ref("Columns"), "data": _ref("Lists"), "index": {"description": "ignored"}}
    label: dict[str, Spec] = {
        "request_id": {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN.pattern}$", "description": "of the prediction"},
        "row": {"type": "integer", "minimum": 0, "exclusiveMaximum": max_rows, "default": 0},
        "value": _column_schema(schema.target),
    }
    scoring_forms = {
        "dataframe_split": _object(split, optional=("index",)),
        "dataframe_records": _ref("Rows"),
        "instances": {"oneOf": [_ref("Rows"), _ref("Lists")]},
        "inputs": {"oneOf": [_ref("Row"), _ref("Rows"), _ref("Lists"), _object(by_column, description="lists of equal length")]},
    }
    return {
        "Row": _object({**columns, **unused}, optional=[*nullable, *unused], description=schema.description, examples=[example]),
        "Rows": _array(_ref("Row"), max_rows),
        "Columns": {
            "type": "array",
            "description": "the names of the columns, in any order; listed here in the order of the model",
            "prefixItems": [{"const": name} for name in columns],
            **width,
        },
        "Lists": _array(ordered, max_rows, "one list per row, in the order of the columns"),
        "Instances": _object({"instances": _ref("Rows")}),
        "Table": _object({"columns": _ref("Columns"), "rows": _ref("Lists")}),
        "Invocation": {"oneOf": [_object({name: form}) for name, form in scoring_forms.items()]},
        "Label": _object(label, optional=("row",)),
        "Labels": _object({"feedback": _array(_ref("Label"), max_rows)}),
    }


def _response_schemas(schema: Schema, max_coverage: float | None) -> dict[str, Spec]:
    number: Spec = {"type": "number"}
    predictions: Spec = {"predictions": _ref("Predictions")}
    spread = ("lower", "upper", "interval", "quantiles", "adapted_labels") if max_coverage is not None else ()
    if spread:
        coverage = {**number, "description": "the requested coverage"}
        predictions |= {"lower": _ref("Predictions"), "upper": _ref("Predictions"), "interval": coverage}
        by_level = {
            "type": "object",
            "description": "the quantiles by requested level",
            "additionalProperties": _ref("Predictions"),
        }
        labels = {"type": "integer", "description": "labels to which the spread is adapted, see serve.adaptive_intervals"}
        predictions |= {"quantiles": by_level, "adapted_labels": labels}
    request_id = {"type": "string", "description": "identifies this response in the prediction log and for feedback"}
    contributions = {column.name: number for column in schema.features}
    sum_rule = "in the target's unit; they add up to prediction - base_value"
    explanation: Spec = {
        "method": {"enum": [EXACT, SAMPLED], "description": "all coalitions of columns, or a sample of permutations"},
        "prediction": _ref("Target"),
        "base_value": {**number, "description": "the mean prediction of the background rows"},
        "contributions": _object(contributions, description=sum_rule),
        "rows_evaluated": {"type": "integer", "description": "rows predicted for this explanation"},
        **MODEL_INFO,
    }
    curves = {
        column.name: _object({"values": _array(_column_schema(column)), "predictions": _ref("Predictions")})
        for column in schema.features
        if not column.is_free_text
    }
    return {
        "Target": {**number, "description": _describe(schema.target)},
        "Predictions": {"type": "array", "items": _ref("Target"), "description": "one per row"},
        "PredictionResponse": _object({**predictions, **MODEL_INFO, "request_id": request_id}, optional=spread),
        "ScoringResponse": _object(predictions, optional=spread),
        "Explanation": _object(explanation),
        "Curves": _object({"curves": _object(curves), **MODEL_INFO}),
    }


def _column_schema(column: Column) -> Spec:
    types = [JSON_TYPES.get(column.type, "string"), *(["string"] if column.parse else []), *(["null"] if column.nullable else [])]
    spec: Spec = {"type": types if len(types) > 1 else types[0], "description": _describe(column)}
    if column.unit:
        spec["x-unit"] = column.unit_label
    if column.type == "float":
        spec["format"] = "double"
    if column.is_free_text:
        spec["maxLength"] = column.max_length
    if column.unseen != "refuse":
        spec["examples"] = list(column.categories[:MAX_LISTED_LEVELS])
    elif column.categories:
        spec["enum"] = [*column.categories, *([None] if column.nullable else [])]
    is_number = column.type in ("int", "float")
    return {**spec, **({"minimum": column.lower_bound, "maximum": column.upper_bound} if is_number else {})}


def _describe(column: Column) -> str:
    return ", ".join(filter(None, (column.description, column.unit_label, column.format and f"as {column.format}")))


def _spread_parameters(max_coverage: float) -> list[Spec]:
    lowest, highest = levels_of(max_coverage)
    levels = _array({"type": "number", "minimum": lowest, "maximum": highest}, MAX_LEVELS) | {"uniqueItems": True}
    described: dict[str, tuple[str, Spec]] = {
        "interval": (
            "coverage of the prediction interval; adds lower and upper bounds to the response",
            {"type": "number", "exclusiveMinimum": 0, "maximum": max_coverage},
        ),
        "quantiles": ("levels, as in 0.1,0.5,0.9; adds these quantiles to the response", levels),
    }
    return [
        {"name": name, "in": "query", "explode": False, "description": description, "schema": schema}
        for name, (description, schema) in described.items()
    ]


def _object(properties: Mapping[str, Spec], optional: Sequence[str] = (), **extra: Any) -> Spec:
    """Return the schema of an object with these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False, **extra}


def _array(items: Spec, max_items: int | None = None, description: str = "") -> Spec:
    limits = {} if max_items is None else {"minItems": 1, "maxItems": max_items}
    return {"type": "array", "items": items, **limits, **({"description": description} if description else {})}


def _ref(name: str) -> Spec:
    return {"$ref": f"#/components/schemas/{name}"}


def _path_parameters(path: str, info: Mapping[str, str]) -> list[Spec]:
    values = {"name": info["model"], "version": info["version"]}
    return [
        {"name": name, "in": "path", "required": True, "description": f"{name} of the model", "schema": {"const": value}}
        for name, value in values.items()
        if f"{{{name}}}" in path
    ]


def _error_responses(path: str, statuses: Sequence[int]) -> Spec:
    is_inference = path.startswith(INFERENCE_ROUTES)
    content = {JSON: {"schema": _ref("InferenceError")}} if is_inference else {PROBLEM: {"schema": _ref("Problem")}}
    return {str(int(status)): {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
