"""`POST /explain`: what each column of a row adds to the mean prediction of the bundle's background rows."""

from flask import Blueprint, Response, current_app, request

from housing.schema import Vector
from server import parse, shapley
from server.model import Model
from server.parse import JSON, Rows
from server.routes import json_answer, model_in_use

explanations = Blueprint("explanations", __name__)


@explanations.post("/explain")
def explain() -> Response:
    """Explain one row: contributions in the target's unit, which add up to prediction - base."""
    model = model_in_use()
    row, config = read_row(model), current_app.config
    found = shapley.explain(model.bundle.predict, row, model.bundle.background, config["EXPLAIN_EXACT"], config["EXPLAIN_ROWS"])
    names = [column.name for column in model.bundle.schema.features]
    return json_answer(
        {
            "method": found.method,
            "prediction": found.prediction,
            "base": found.base,
            "contributions": dict(zip(names, found.values.tolist(), strict=True)),
            "evaluated": found.evaluated,
            "model": model.told["model"],
            "version": model.told["version"],
        }
    )


def read_row(model: Model) -> Vector:
    """Read and check the one row of the body. Raises RequestError, as `/predict` does."""
    parse.media_type(request.headers.get("Content-Type", ""), JSON)
    row: Vector = model.check.require(Rows(None, [parse.strictly(request.get_data())], 0))[0]
    return row
