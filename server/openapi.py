"""The API as an OpenAPI document, made from the schema of the model in use."""

from collections.abc import Container, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from apispec import APISpec

from housing.schema import Column, Schema
from server.model import Model

Spec = dict[str, Any]

TYPES = {"float": "number", "int": "integer", "bool": "boolean", "category": "string"}
JSON, PROBLEM, CSV, TEXT, HTML = "application/json", "application/problem+json", "text/csv", "text/plain", "text/html"
NOT_READY = HTTPStatus.SERVICE_UNAVAILABLE
BAD_BODY = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
BAD_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
KEY = "key"
TAGS = {
    "predictions": ("predict", "invocations", "explain", "curves", "feedback"),
    "the model": ("model", "examples", "page", "docs", "openapi"),
    "for machines": ("healthz", "readyz", "ping", "health", "version", "metrics"),
}


def document(model: Model, routes: Container[str], max_rows: int, needs_key: bool) -> Spec:
    """Give the document: what each of the app's routes takes and gives for this model, at most `max_rows` of a request."""
    schema, bundle = model.bundle.schema, model.bundle
    spec = APISpec(
        title=f"Predictions of {schema.target.name} ({schema.name})",
        version=str(model.told["version"]),
        openapi_version="3.1.0",
        info={"description": schema.description},
    )
    for name, component in _components(schema, model.example, max_rows).items():
        spec.components.schema(name, component)
    if needs_key:
        spec.components.security_scheme(KEY, {"type": "http", "scheme": "bearer"})
    most = None if bundle.interval is None else bundle.interval.most
    for path, operations in {**_predicting(schema, model.example, most), **_telling(), **_reading()}.items():
        if path not in routes:
            continue
        for operation in operations.values():
            operation["tags"] = [next(tag for tag, names in TAGS.items() if operation["operationId"] in names)]
            _let_in(operation, needs_key)
        spec.path(path, operations=operations)
    return dict(spec.to_dict())


def of_column(column: Column) -> Spec:
    """Give a column's values as JSON Schema."""
    kinds = [TYPES[column.type], "null"] if column.nullable else TYPES[column.type]
    said: Spec = {"type": kinds, "description": ", ".join(filter(None, (column.description, column.unit)))}
    if column.unit:
        said["x-unit"] = column.unit
    if column.type == "float":
        said["format"] = "double"
    if column.categories:
        said["enum"] = [*column.categories, *([None] if column.nullable else [])]
    bounds = {"minimum": column.min, "maximum": column.max}
    return {**said, **{name: bound for name, bound in bounds.items() if bound is not None}}


def _components(schema: Schema, example: Mapping[str, Any], max_rows: int) -> dict[str, Spec]:
    columns = {column.name: of_column(column) for column in schema.features}
    names, values = list(columns), list(columns.values())
    in_order = {"type": "array", "prefixItems": values, "minItems": len(names), "maxItems": len(names)}
    some = {"minItems": 1, "maxItems": max_rows}
    target = {"type": "number", "description": ", ".join(filter(None, (schema.target.description, schema.target.unit)))}
    return {
        "Row": {**_object(columns), "description": schema.description, "examples": [dict(example)]},
        "Rows": {"type": "array", "items": _ref("Row"), **some},
        "Columns": {
            "type": "array",
            "description": "the names of all columns; any order is taken, this is the one in which a model sees them",
            "prefixItems": [{"const": name} for name in names],
            "minItems": len(names),
            "maxItems": len(names),
        },
        "Lists": {"type": "array", "description": "one list a row, in the order of the columns", "items": in_order, **some},
        "Target": target,
        "Predictions": {"type": "array", "items": _ref("Target"), "description": "one for each row"},
        "Problem": _problem(),
    }


def _problem() -> Spec:
    place: dict[str, Spec] = {
        "row": {"type": ["integer", "null"], "description": "counts from 0"},
        "field": {"type": ["string", "null"], "description": "the column, or none where the row as a whole is wrong"},
        "reason": {"type": "string"},
    }
    said: dict[str, Spec] = {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong, and what is allowed"},
        "errors": {"type": "array", "items": _object(place), "description": "each value that is not allowed; the first 100"},
    }
    return {**_object(said, optional=("errors",)), "description": "an error (RFC 9457)"}


def _predicting(schema: Schema, example: Mapping[str, Any], most: float | None) -> dict[str, Any]:
    """Give the routes that take rows."""
    interval = [] if most is None else [_interval(most)]
    ends = {name: _ref("Predictions") for name in ("lower", "upper")} if most is not None else {}
    ends |= {"interval": {"type": "number", "description": "the coverage that was asked for"}} if ends else {}
    predicted: Spec = {"predictions": _ref("Predictions"), **ends}
    told = {"model": {"type": "string"}, "version": {"type": "string"}}
    named = {**predicted, **told, "request_id": {"type": "string", "description": "for /feedback"}}
    contributions = {column.name: {"type": "number"} for column in schema.features}
    explained: dict[str, Spec] = {
        "method": {"enum": ["exact", "sampled"], "description": "all coalitions of columns, or a sample of permutations"},
        "prediction": _ref("Target"),
        "base": {"type": "number", "description": "the mean prediction of the background rows"},
        "contributions": {**_object(contributions), "description": "in the target's unit; they add up to prediction - base"},
        "evaluated": {"type": "integer", "description": "rows that were predicted for it"},
        **told,
    }
    along = {
        column.name: _object({"values": {"type": "array", "items": of_column(column)}, "predictions": _ref("Predictions")})
        for column in schema.features
    }
    return {
        "/predict": {
            "post": {
                "operationId": "predict",
                "summary": f"Predict {schema.target.name} of one row, or of many",
                "parameters": interval,
                "requestBody": _body({JSON: _predict_forms()}, {"example": dict(example)}),
                "responses": _answers(_ok(_object(named, optional=tuple(ends))), *BAD_BODY, NOT_READY),
            }
        },
        "/invocations": {
            "post": {
                "operationId": "invocations",
                "summary": "The same in MLflow's scoring protocol: for clients of mlflow models serve",
                "parameters": interval,
                "requestBody": _body(
                    {JSON: _scoring_forms(schema), CSV: {"type": "string", "description": "a line of names, then a line a row"}},
                    {"example": {"dataframe_records": [dict(example)]}},
                ),
                "responses": _answers(_ok(_object(predicted, optional=tuple(ends))), *BAD_BODY, NOT_READY),
            }
        },
        "/explain": {
            "post": {
                "operationId": "explain",
                "summary": "What each column of one row adds to the mean prediction: Shapley values",
                "requestBody": _body({JSON: _ref("Row")}, {"example": dict(example)}),
                "responses": _answers(_ok(_object(explained)), *BAD_BODY, NOT_READY),
            }
        },
        "/curves": {
            "post": {
                "operationId": "curves",
                "summary": "How the prediction of one row changes along each column, the others held as they are",
                "requestBody": _body({JSON: _ref("Row")}, {"example": dict(example)}),
                "responses": _answers(_ok(_object({"curves": _object(along), **told})), *BAD_BODY, NOT_READY),
            }
        },
    }


def _interval(most: float) -> Spec:
    return {
        "name": "interval",
        "in": "query",
        "description": "give lower and upper ends too, between which this share of the targets is expected",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": most},
    }


def _predict_forms() -> Spec:
    instances, table = {"instances": _ref("Rows")}, {"columns": _ref("Columns"), "rows": _ref("Lists")}
    return {"oneOf": [_ref("Row"), _object(instances), _object(table)]}


def _scoring_forms(schema: Schema) -> Spec:
    split = _object(
        {"columns": _ref("Columns"), "data": _ref("Lists"), "index": {"description": "not looked at"}}, optional=("index",)
    )
    by_column = _object({column.name: {"type": "array", "items": of_column(column), "minItems": 1} for column in schema.features})
    by_column["description"] = "lists of the same length"
    rows = {"oneOf": [_ref("Rows"), _ref("Lists")]}
    forms = {
        "dataframe_split": split,
        "dataframe_records": _ref("Rows"),
        "instances": rows,
        "inputs": {"oneOf": [_ref("Rows"), _ref("Lists"), by_column]},
    }
    return {"oneOf": [_object({name: form}) for name, form in forms.items()]}


def _telling() -> dict[str, Any]:
    """Give the route that takes what became of a prediction."""
    said: dict[str, Spec] = {
        "request_id": {"type": "string", "description": "of the prediction's answer"},
        "row": {"type": "integer", "minimum": 0, "description": "which of its rows"},
        "value": {"type": "number", "description": "what was true"},
    }
    answers = _answers({str(int(HTTPStatus.ACCEPTED)): {"description": "it is kept"}}, *BAD_BODY, NOT_READY)
    feedback = {
        "operationId": "feedback",
        "summary": "Tell what was true, to see how good predictions are",
        "requestBody": _body({JSON: _object(said)}, {}),
        "responses": answers,
    }
    return {"/feedback": {"post": feedback}}


def _reading() -> dict[str, Any]:
    """Give the routes that take nothing."""
    ready = (NOT_READY,)
    told = {"model": {"type": "string"}, "version": {"type": "string"}, "alias": {"type": "string"}}
    model = {
        **told,
        "card": {"type": "object", "description": "what the run knew"},
        "schema": {"type": "object", "description": "the columns"},
        "example": _ref("Row"),
    }
    known = _object({"rows": _ref("Rows"), "predictions": _ref("Predictions")})
    examples: dict[str, Spec] = {
        "background": {**known, "description": "training rows that stand for all; explanations are against them"},
        "golden": {**known, "description": "rows that were not trained on, from the least prediction to the largest"},
        "coverage": {"type": ["number", "null"], "description": "of intervals, where the model has them"},
    }
    open_model = {**_object(model), "additionalProperties": True}
    return {
        "/model": _get("model", "What is served: card, columns, a row that can be sent", _ok(open_model), ready),
        "/examples": _get("examples", "Rows that the model knows, with its predictions", _ok(_object(examples)), ready),
        "/healthz": _get("healthz", "Does this worker live?", _ok({"type": "object"})),
        "/readyz": _get("readyz", "Is there a model?", _ok({"type": "object"}), ready),
        "/ping": _get("ping", "Is there a model? As MLflow's server says it", _plain("it is there"), ready),
        "/health": _get("health", "Is there a model? As MLflow's server says it", _plain("it is there"), ready),
        "/version": _get(
            "version", "The version of MLflow that the model was trained with", _ok({"type": "string"}, TEXT), ready
        ),
        "/metrics": _get("metrics", "For Prometheus", _ok({"type": "string"}, TEXT)),
        "/openapi.json": _get("openapi", "This document", _ok({"type": "object"}), ready),
        "/docs": _get("docs", "This document, to read and to try", _ok({"type": "string"}, HTML)),
        "/": _get("page", "A page to try the model on", _ok({"type": "string"}, HTML)),
    }


def _get(name: str, summary: str, good: Spec, bad: Sequence[HTTPStatus] = ()) -> Spec:
    return {"get": {"operationId": name, "summary": summary, "responses": _answers(good, *bad)}}


KEYED = ("predict", "invocations", "explain", "curves", "feedback", "model", "examples", "metrics")


def _let_in(operation: Spec, needs_key: bool) -> None:
    """Say of an operation that it needs a key, where the server has keys."""
    if needs_key and operation["operationId"] in KEYED:
        operation["security"] = [{KEY: []}]
        operation["responses"] |= _answers({}, *BAD_KEY)


def _object(properties: Mapping[str, Spec], optional: Sequence[str] = ()) -> Spec:
    """Give an object that has these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _ref(name: str) -> Spec:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(kinds: Mapping[str, Spec], extra: Spec) -> Spec:
    content = {kind: {"schema": form, **(extra if kind == JSON else {})} for kind, form in kinds.items()}
    return {"required": True, "content": content}


def _ok(form: Spec, kind: str = JSON) -> Spec:
    return {"200": {"description": "OK", "content": {kind: {"schema": form}}}}


def _plain(description: str) -> Spec:
    return {"200": {"description": description}}


def _answers(good: Spec, *bad: HTTPStatus) -> Spec:
    content = {PROBLEM: {"schema": _ref("Problem")}}
    return {**good, **{str(int(status)): {"description": status.phrase, "content": content} for status in bad}}
