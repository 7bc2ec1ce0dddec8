"""`POST /explain`: what each column of a row adds to the mean prediction of the bundle's background rows."""

from functools import partial

from flask import Blueprint, Response, current_app

from server.api import shapley
from server.api.context import json_response, parse_row, require_model

explanation_blueprint = Blueprint("explanations", __name__)


@explanation_blueprint.post("/explain")
def explain() -> Response:
    """Explain one row: contributions in the target's unit, which add up to prediction - base."""
    model = require_model()
    row, config = parse_row(model), current_app.config
    predict = partial(model.predict, batch_size=config["MAX_ROWS"])
    found = shapley.shapley_values(
        predict, row, model.bundle.background, config["EXPLAIN_MAX_EXACT_COLUMNS"], config["EXPLAIN_SAMPLES"]
    )
    names = [column.name for column in model.bundle.schema.features]
    return json_response(
        {
            "method": found.method,
            "prediction": found.prediction,
            "base_value": found.base_value,
            "contributions": dict(zip(names, found.values.tolist(), strict=True)),
            "rows_evaluated": found.rows_evaluated,
            "model": model.info["model"],
            "version": model.info["version"],
        }
    )
