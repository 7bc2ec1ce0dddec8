"""The description of a model as the protocol has it: names, datatypes and shapes of inputs and outputs."""

from http import HTTPStatus
from typing import Any

from housing.schema.column import Column
from server.api.prediction import PREDICTIONS
from server.api.spread import LOWER, QUANTILES, UPPER
from server.core.errors import RequestError
from server.models.current_model import Model

CONTRIBUTIONS, BASE_VALUE = "contributions", "base_value"
DATATYPES = {"float": "FP64", "int": "INT64", "bool": "BOOL"}  # in which values are exact; others are BYTES
ANY_NUMBER = -1  # of rows


def require_version(model: Model, name: str, version: str | None) -> None:
    """Raise RequestError (404) unless this version of the model is served, or none is requested."""
    served = model.info["version"]
    if version not in (None, served):
        detail = f"There is no model {name!r} with version {version!r:.80}. This server serves version {served}."
        raise RequestError(HTTPStatus.NOT_FOUND, detail)


def output_names(model: Model) -> tuple[str, ...]:
    """Return the names of the outputs that a request may name."""
    spread = () if model.bundle.interval is None else (LOWER, UPPER, QUANTILES)
    return (PREDICTIONS, *spread, CONTRIBUTIONS, BASE_VALUE)


def describe_model(model: Model, name: str) -> dict[str, Any]:
    """Return the metadata of a model."""
    features = model.bundle.schema.features
    widths = {CONTRIBUTIONS: [len(features)], QUANTILES: [ANY_NUMBER]}
    return {
        "name": name,
        "versions": [model.info["version"]],
        "platform": "housing",
        "inputs": [{"name": column.name, "datatype": _datatype(column), "shape": [ANY_NUMBER]} for column in features],
        "outputs": [
            {"name": name, "datatype": "FP64", "shape": [ANY_NUMBER, *widths.get(name, [])]} for name in output_names(model)
        ],
    }


def example_request(model: Model) -> dict[str, Any]:
    """Return a valid request of one row."""
    row, features = model.example, model.bundle.schema.features
    return {"inputs": [{"name": c.name, "datatype": _datatype(c), "shape": [1], "data": [row[c.name]]} for c in features]}


def _datatype(column: Column) -> str:
    return "BYTES" if column.parse else DATATYPES.get(column.type, "BYTES")
