"""`POST /explain`: what each column of a row adds to the mean prediction of the bundle's background rows."""

from functools import partial

from flask import Blueprint, Response, current_app

from server.api import shapley
from server.api.context import json_answer, model_in_use, row_in_body

explanations = Blueprint("explanations", __name__)


@explanations.post("/explain")
def explain() -> Response:
    """Explain one row: contributions in the target's unit, which add up to prediction - base."""
    model = model_in_use()
    row, config = row_in_body(model), current_app.config
    predict = partial(model.predict, most=config["MAX_ROWS"])
    found = shapley.explain(predict, row, model.bundle.background, config["EXPLAIN_EXACT"], config["EXPLAIN_ROWS"])
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
