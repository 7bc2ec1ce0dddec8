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
from server.core.errors import PROBLEM
from server.models.current_model import Model
from server.prediction_log.request_id import FORM
from server.validation.request_body import CSV, JSON

Spec = dict[str, Any]


TYPES = {"float": "number", "int": "integer", "bool": "boolean", "category": "string"}


TEXT, HTML = "text/plain", "text/html"


NOT_READY = HTTPStatus.SERVICE_UNAVAILABLE


BAD_BODY = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


BAD_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)


KEY = "key"


TOLD: dict[str, Spec] = {"model": {"type": "string"}, "version": {"type": "string"}}  # by each answer


KEYED = {*prediction.ROUTES, *RIGHTS}


def document(model: Model, max_rows: int, needs_key: bool) -> Spec:
    """Give the document: what each route takes and gives for this model, at most `max_rows` of a request."""
    schema, interval, example = model.bundle.schema, model.bundle.interval, dict(model.example)
    spec = APISpec(
        title=f"Predictions of {schema.target.name} ({schema.name})",
        version=str(model.told["version"]),
        openapi_version="3.1.0",
        info={"description": schema.description},
    )
    for name, component in _components(schema, example, max_rows).items():
        spec.components.schema(name, component)
    if needs_key:
        spec.components.security_scheme(KEY, {"type": "http", "scheme": "bearer"})
    most = None if interval is None else interval.most
    tagged = {"predictions": _predicting(schema, example, most, max_rows), "the model": _telling(), "for machines": _watching()}
    for tag, paths in tagged.items():
        for path, operations in paths.items():
            for operation in operations.values():
                operation["tags"] = [tag]
                if needs_key and path in KEYED:
                    operation["security"] = [{KEY: []}]
                    operation["responses"] |= _refusals(*BAD_KEY)
            spec.path(path, operations=operations)
    return dict(spec.to_dict())


def _of_column(column: Column) -> Spec:
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


def _components(schema: Schema, example: Spec, max_rows: int) -> dict[str, Spec]:
    columns = {column.name: _of_column(column) for column in schema.features}
    names, values = list(columns), list(columns.values())
    in_order = {"type": "array", "prefixItems": values, "minItems": len(names), "maxItems": len(names)}
    some = {"minItems": 1, "maxItems": max_rows}
    target = {"type": "number", "description": ", ".join(filter(None, (schema.target.description, schema.target.unit)))}
    return {
        "Row": {**_object(columns), "description": schema.description, "examples": [example]},
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


def _predicting(schema: Schema, example: Spec, most: float | None, max_rows: int) -> dict[str, Any]:
    """Give the routes that take rows."""
    interval = [] if most is None else [_interval(most)]
    one, forms = {JSON: _ref("Row")}, {JSON: _predict_forms()}
    scoring: dict[str, Spec] = {JSON: _scoring_forms(schema), CSV: {"type": "string", "description": "names, then rows"}}
    named = {**TOLD, "request_id": {"type": "string", "description": "under which the prediction log has this answer"}}
    predict = f"Predict {schema.target.name} of one row, or of many"
    invocations = "The same in MLflow's scoring protocol: for clients of mlflow models serve"
    explain = "What each column of one row adds to the mean prediction: Shapley values"
    curves = "How the prediction of one row changes along each column, the others held as they are"
    return {
        "/predict": _post("predict", predict, forms, example, _ok(_predicted(most, named)), *interval),
        "/invocations": _post(
            "invocations", invocations, scoring, {"dataframe_records": [example]}, _ok(_predicted(most, {})), *interval
        ),
        "/explain": _post("explain", explain, one, example, _ok(_explained(schema))),
        "/curves": _post("curves", curves, one, example, _ok(_along(schema))),
        "/feedback": _feedback(schema, max_rows),
    }


def _feedback(schema: Schema, max_rows: int) -> Spec:
    truth = _object(
        {
            "request_id": {"type": "string", "pattern": f"^{FORM.pattern}$", "description": "of the answer"},
            "row": {"type": "integer", "minimum": 0, "exclusiveMaximum": max_rows, "default": 0},
            "value": _of_column(schema.target),
        },
        optional=("row",),
    )
    many = _object({"feedback": {"type": "array", "items": truth, "minItems": 1, "maxItems": max_rows}})
    example = {"request_id": "0193f5c2a1b3-01-0000002a", "row": 0, "value": 1}
    kept = {"202": {"description": "on the disk", "content": {JSON: {"schema": _object({"accepted": {"type": "integer"}})}}}}
    summary = "What predicted targets turned out to be"
    return _post("feedback", summary, {JSON: {"oneOf": [truth, many]}}, example, kept)


def _predicted(most: float | None, told: Mapping[str, Spec]) -> Spec:
    ends: dict[str, Spec] = {}
    if most is not None:
        coverage = {"type": "number", "description": "the coverage that was asked for"}
        ends = {"lower": _ref("Predictions"), "upper": _ref("Predictions"), "interval": coverage}
    return _object({"predictions": _ref("Predictions"), **ends, **told}, optional=tuple(ends))


def _explained(schema: Schema) -> Spec:
    contributions = _object({column.name: {"type": "number"} for column in schema.features})
    said: dict[str, Spec] = {
        "method": {"enum": [EXACT, SAMPLED], "description": "all coalitions of columns, or a sample of permutations"},
        "prediction": _ref("Target"),
        "base": {"type": "number", "description": "the mean prediction of the background rows"},
        "contributions": {**contributions, "description": "in the target's unit; they add up to prediction - base"},
        "evaluated": {"type": "integer", "description": "rows that were predicted for it"},
    }
    return _object({**said, **TOLD})


def _along(schema: Schema) -> Spec:
    curves = {
        column.name: _object({"values": {"type": "array", "items": _of_column(column)}, "predictions": _ref("Predictions")})
        for column in schema.features
    }
    return _object({"curves": _object(curves), **TOLD})


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
    by_column = _object(
        {column.name: {"type": "array", "items": _of_column(column), "minItems": 1} for column in schema.features}
    )
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
    """Give the routes that tell what is served, to programs and to people."""
    model = {
        **TOLD,
        "alias": {"type": "string"},
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
        "/model": _get("model", "What is served: card, columns, a row that can be sent", _ok(open_model), NOT_READY),
        "/examples": _get("examples", "Rows that the model knows, with its predictions", _ok(_object(examples)), NOT_READY),
        "/openapi.json": _get("openapi", "This document", _ok({"type": "object"}), NOT_READY),
        "/docs": _get("docs", "This document, to read and to try", _ok({"type": "string"}, HTML)),
        "/": _get("page", "A page to try the model on", _ok({"type": "string"}, HTML)),
    }


def _watching() -> dict[str, Any]:
    """Give the routes for what watches the server."""
    there: Spec = {"200": {"description": "it is there"}}
    return {
        "/healthz": _get("healthz", "Does this worker live?", _ok({"type": "object"})),
        "/readyz": _get("readyz", "Is there a model?", _ok({"type": "object"}), NOT_READY),
        "/ping": _get("ping", "Is there a model? As MLflow's server says it", there, NOT_READY),
        "/health": _get("health", "Is there a model? As MLflow's server says it", there, NOT_READY),
        "/version": _get("version", "The version of MLflow that published the model", _ok({"type": "string"}, TEXT), NOT_READY),
        "/metrics": _get("metrics", "For Prometheus", _ok({"type": "string"}, TEXT)),
    }


def _get(name: str, summary: str, good: Spec, *bad: HTTPStatus) -> Spec:
    return {"get": {"operationId": name, "summary": summary, "responses": {**good, **_refusals(*bad)}}}


def _post(name: str, summary: str, kinds: Mapping[str, Spec], example: Spec, good: Spec, *parameters: Spec) -> Spec:
    content: dict[str, Spec] = {kind: {"schema": form} for kind, form in kinds.items()}
    content[JSON]["example"] = example
    operation = {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        "requestBody": {"required": True, "content": content},
        "responses": {**good, **_refusals(*BAD_BODY, NOT_READY)},
    }
    return {"post": operation}


def _object(properties: Mapping[str, Spec], optional: Sequence[str] = ()) -> Spec:
    """Give an object that has these properties and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _ref(name: str) -> Spec:
    return {"$ref": f"#/components/schemas/{name}"}


def _ok(form: Spec, kind: str = JSON) -> Spec:
    return {"200": {"description": "OK", "content": {kind: {"schema": form}}}}


def _refusals(*statuses: HTTPStatus) -> Spec:
    content = {PROBLEM: {"schema": _ref("Problem")}}
    return {str(int(status)): {"description": status.phrase, "content": content} for status in statuses}
