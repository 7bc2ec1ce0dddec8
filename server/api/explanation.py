"""Explanations: `POST /explain` returns the Shapley values of one row."""

from functools import partial

from flask import Blueprint, Response, current_app

from server.api import shapley
from server.api.context import json_response, parse_row, require_model

explanation_blueprint = Blueprint("explanations", __name__)


@explanation_blueprint.post("/explain")
def explain() -> Response:
    """Return each column's contribution, in the target's unit. They add up to prediction - base value."""
    model = require_model()
    row, config = parse_row(model), current_app.config
    predict = partial(model.predict, batch_size=config["MAX_ROWS"])
    limits = config["EXPLAIN_MAX_EXACT_COLUMNS"], config["EXPLAIN_SAMPLES"]
    explanation = shapley.shapley_values(predict, row, model.bundle.background, *limits)
    names = [column.name for column in model.bundle.schema.features]
    return json_response(
        {
            "method": explanation.method,
            "prediction": explanation.prediction,
            "base_value": explanation.base_value,
            "contributions": dict(zip(names, explanation.values.tolist(), strict=True)),
            "rows_evaluated": explanation.rows_evaluated,
            **model.info,
        }
    )
