"""The API as an OpenAPI document, made from the schema of the model in use."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from apispec import APISpec

from housing.schema.column import Column
from housing.schema.table_schema import Schema
from server.api import prediction
from server.api.routes import RIGHTS
from server.api.shapley import EXACT, SAMPLED
from server.core.errors import PROBLEM_MEDIA_TYPE
from server.models.current_model import Model
from server.prediction_log.request_id import REQUEST_ID_PATTERN
from server.validation.request_body import CSV, JSON

Spec = dict[str, Any]


JSON_TYPES = {"float": "number", "int": "integer", "bool": "boolean", "category": "string"}


TEXT, HTML = "text/plain", "text/html"


NOT_READY = HTTPStatus.SERVICE_UNAVAILABLE


BODY_ERRORS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


AUTH_ERRORS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)


SECURITY_SCHEME = "key"


MODEL_INFO: dict[str, Spec] = {"model": {"type": "string"}, "version": {"type": "string"}}  # by each answer


PROTECTED_ROUTES = {*prediction.FAST_ROUTES, *RIGHTS}


def build_document(model: Model, max_rows: int, needs_key: bool) -> Spec:
    """Give the document: what each route takes and gives for this model, at most `max_rows` of a request."""
    schema, interval, example = model.bundle.schema, model.bundle.interval, dict(model.example)
    spec = APISpec(
        title=f"Predictions of {schema.target.name} ({schema.name})",
        version=str(model.info["version"]),
        openapi_version="3.1.0",
        info={"description": schema.description},
    )
    for name, component in _components(schema, example, max_rows).items():
        spec.components.schema(name, component)
    if needs_key:
        spec.components.security_scheme(SECURITY_SCHEME, {"type": "http", "scheme": "bearer"})
    most = None if interval is None else interval.max_coverage
    tagged = {
        "predictions": _prediction_paths(schema, example, most, max_rows),
        "the model": _model_paths(),
        "for machines": _health_paths(),
    }
    for tag, paths in tagged.items():
        for path, operations in paths.items():
            for operation in operations.values():
                operation["tags"] = [tag]
                if needs_key and path in PROTECTED_ROUTES:
                    operation["security"] = [{SECURITY_SCHEME: []}]
                    operation["responses"] |= _error_responses(*AUTH_ERRORS)
            spec.path(path, operations=operations)
    return dict(spec.to_dict())


def _column_schema(column: Column) -> Spec:
    kinds = [JSON_TYPES[column.type], "null"] if column.nullable else JSON_TYPES[column.type]
    said: Spec = {"type": kinds, "description": ", ".join(filter(None, (column.description, column.unit)))}
    if column.unit:
        said["x-unit"] = column.unit
    if column.type == "float":
        said["format"] = "double"
    if column.categories:
        said["enum"] = [*column.categories, *([None] if column.nullable else [])]
    bounds = {"minimum": column.min, "maximum": column.max}
    return {**said, **{name: bound for name, bound in bounds.items() if bound is not None}}


def _components(schema: Schema, example: Spec, max_rows: int) -> dict[str, Spec]:
    columns = {column.name: _column_schema(column) for column in schema.features}
    names, values = list(columns), list(columns.values())
    in_order = {"type": "array", "prefixItems": values, "minItems": len(names), "maxItems": len(names)}
    some = {"minItems": 1, "maxItems": max_rows}
    target = {"type": "number", "description": ", ".join(filter(None, (schema.target.description, schema.target.unit)))}
    return {
        "Row": {**_object_schema(columns), "description": schema.description, "examples": [example]},
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
        "Problem": _problem_schema(),
    }


def _problem_schema() -> Spec:
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
        "errors": {
            "type": "array",
            "items": _object_schema(place),
            "description": "each value that is not allowed; the first 100",
        },
    }
    return {**_object_schema(said, optional=("errors",)), "description": "an error (RFC 9457)"}


def _prediction_paths(schema: Schema, example: Spec, max_coverage: float | None, max_rows: int) -> dict[str, Any]:
    """Give the routes that take rows."""
    interval = [] if max_coverage is None else [_interval_parameter(max_coverage)]
    one, forms = {JSON: _ref("Row")}, {JSON: _predict_body()}
    scoring: dict[str, Spec] = {JSON: _invocations_body(schema), CSV: {"type": "string", "description": "names, then rows"}}
    named = {**MODEL_INFO, "request_id": {"type": "string", "description": "under which the prediction log has this answer"}}
    predict = f"Predict {schema.target.name} of one row, or of many"
    invocations = "The same in MLflow's scoring protocol: for clients of mlflow models serve"
    explain = "What each column of one row adds to the mean prediction: Shapley values"
    curves = "How the prediction of one row changes along each column, the others held as they are"
    return {
        "/predict": _post("predict", predict, forms, example, _ok_response(_predictions_schema(max_coverage, named)), *interval),
        "/invocations": _post(
            "invocations",
            invocations,
            scoring,
            {"dataframe_records": [example]},
            _ok_response(_predictions_schema(max_coverage, {})),
            *interval,
        ),
        "/explain": _post("explain", explain, one, example, _ok_response(_explanation_schema(schema))),
        "/curves": _post("curves", curves, one, example, _ok_response(_curves_schema(schema))),
        "/feedback": _feedback_path(schema, max_rows),
    }


def _feedback_path(schema: Schema, max_rows: int) -> Spec:
    truth = _object_schema(
        {
            "request_id": {"type": "string", "pattern": f"^{REQUEST_ID_PATTERN.pattern}$", "description": "of the answer"},
            "row": {"type": "integer", "minimum": 0, "exclusiveMaximum": max_rows, "default": 0},
            "value": _column_schema(schema.target),
        },
        optional=("row",),
    )
    many = _object_schema({"feedback": {"type": "array", "items": truth, "minItems": 1, "maxItems": max_rows}})
    example = {"request_id": "0193f5c2a1b3-01-0000002a", "row": 0, "value": 1}
    kept = {
        "202": {"description": "on the disk", "content": {JSON: {"schema": _object_schema({"accepted": {"type": "integer"}})}}}
    }
    summary = "What predicted targets turned out to be"
    return _post("feedback", summary, {JSON: {"oneOf": [truth, many]}}, example, kept)


def _predictions_schema(max_coverage: float | None, info: Mapping[str, Spec]) -> Spec:
    ends: dict[str, Spec] = {}
    if max_coverage is not None:
        coverage = {"type": "number", "description": "the coverage that was asked for"}
        ends = {"lower": _ref("Predictions"), "upper": _ref("Predictions"), "interval": coverage}
    return _object_schema({"predictions": _ref("Predictions"), **ends, **info}, optional=tuple(ends))


def _explanation_schema(schema: Schema) -> Spec:
    contributions = _object_schema({column.name: {"type": "number"} for column in schema.features})
    said: dict[str, Spec] = {
        "method": {"enum": [EXACT, SAMPLED], "description": "all coalitions of columns, or a sample of permutations"},
        "prediction": _ref("Target"),
        "base_value": {"type": "number", "description": "the mean prediction of the background rows"},
        "contributions": {**contributions, "description": "in the target's unit; they add up to prediction - base_value"},
        "rows_evaluated": {"type": "integer", "description": "rows that were predicted for it"},
    }
    return _object_schema({**said, **MODEL_INFO})


def _curves_schema(schema: Schema) -> Spec:
    curves = {
        column.name: _object_schema(
            {"values": {"type": "array", "items": _column_schema(column)}, "predictions": _ref("Predictions")}
        )
        for column in schema.features
    }
    return _object_schema({"curves": _object_schema(curves), **MODEL_INFO})


def _interval_parameter(max_coverage: float) -> Spec:
    return {
        "name": "interval",
        "in": "query",
        "description": "give lower and upper ends too, between which this share of the targets is expected",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": max_coverage},
    }


def _predict_body() -> Spec:
    instances, table = {"instances": _ref("Rows")}, {"columns": _ref("Columns"), "rows": _ref("Lists")}
    return {"oneOf": [_ref("Row"), _object_schema(instances), _object_schema(table)]}


def _invocations_body(schema: Schema) -> Spec:
    split = _object_schema(
        {"columns": _ref("Columns"), "data": _ref("Lists"), "index": {"description": "not looked at"}}, optional=("index",)
    )
    by_column = _object_schema(
        {column.name: {"type": "array", "items": _column_schema(column), "minItems": 1} for column in schema.features}
    )
    by_column["description"] = "lists of the same length"
    rows = {"oneOf": [_ref("Rows"), _ref("Lists")]}
    forms = {
        "dataframe_split": split,
        "dataframe_records": _ref("Rows"),
        "instances": rows,
        "inputs": {"oneOf": [_ref("Rows"), _ref("Lists"), by_column]},
    }
    return {"oneOf": [_object_schema({name: form}) for name, form in forms.items()]}


def _model_paths() -> dict[str, Any]:
    """Give the routes that tell what is served, to programs and to people."""
    model = {
        **MODEL_INFO,
        "alias": {"type": "string"},
        "card": {"type": "object", "description": "what the run knew"},
        "schema": {"type": "object", "description": "the columns"},
        "example": _ref("Row"),
    }
    known = _object_schema({"rows": _ref("Rows"), "predictions": _ref("Predictions")})
    examples: dict[str, Spec] = {
        "background": {**known, "description": "training rows that stand for all; explanations are against them"},
        "golden": {**known, "description": "rows that were not trained on, from the least prediction to the largest"},
        "coverage": {"type": ["number", "null"], "description": "of intervals, where the model has them"},
    }
    open_model = {**_object_schema(model), "additionalProperties": True}
    return {
        "/model": _get("model", "What is served: card, columns, a row that can be sent", _ok_response(open_model), NOT_READY),
        "/examples": _get(
            "examples", "Rows that the model knows, with its predictions", _ok_response(_object_schema(examples)), NOT_READY
        ),
        "/openapi.json": _get("openapi", "This document", _ok_response({"type": "object"}), NOT_READY),
        "/docs": _get("docs", "This document, to read and to try", _ok_response({"type": "string"}, HTML)),
        "/": _get("page", "A page to try the model on", _ok_response({"type": "string"}, HTML)),
    }


def _health_paths() -> dict[str, Any]:
    """Give the routes for what watches the server."""
    there: Spec = {"200": {"description": "it is there"}}
    return {
        "/healthz": _get("healthz", "Does this worker live?", _ok_response({"type": "object"})),
        "/readyz": _get("readyz", "Is there a model?", _ok_response({"type": "object"}), NOT_READY),
        "/ping": _get("ping", "Is there a model? As MLflow's server says it", there, NOT_READY),
        "/health": _get("health", "Is there a model? As MLflow's server says it", there, NOT_READY),
        "/version": _get(
            "version", "The version of MLflow that published the model", _ok_response({"type": "string"}, TEXT), NOT_READY
        ),
        "/metrics": _get("metrics", "For Prometheus", _ok_response({"type": "string"}, TEXT)),
    }


def _get(name: str, summary: str, success: Spec, *error_statuses: HTTPStatus) -> Spec:
    return {"get": {"operationId": name, "summary": summary, "responses": {**success, **_error_responses(*error_statuses)}}}


def _post(name: str, summary: str, body_schemas: Mapping[str, Spec], example: Spec, success: Spec, *parameters: Spec) -> Spec:
    content: dict[str, Spec] = {kind: {"schema": form} for kind, form in body_schemas.items()}
    content[JSON]["example"] = example
    operation = {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        "requestBody": {"required": True, "content": content},
        "responses": {**success, **_error_responses(*BODY_ERRORS, NOT_READY)},
    }
    return {"post": operation}


def _object_schema(properties: Mapping[str, Spec], optional: Sequence[str] = ()) -> Spec:
    """Give an object that has these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _ref(name: str) -> Spec:
    return {"$ref": f"#/components/schemas/{name}"}


def _ok_response(schema: Spec, media_type: str = JSON) -> Spec:
    return {"200": {"description": "OK", "content": {media_type: {"schema": schema}}}}


def _error_responses(*statuses: HTTPStatus) -> Spec:
    content = {PROBLEM_MEDIA_TYPE: {"schema": _ref("Problem")}}
    return {str(int(status)): {"description": status.phrase, "content": content} for status in statuses}
