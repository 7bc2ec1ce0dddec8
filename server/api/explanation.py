"""Explanations of the prediction of one row: Shapley values and curves along each column.

The rows that they predict are not a client's request, so they are not in the prediction log.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from flask import Blueprint, Response, current_app

from housing.explanation.ice_curves import ice_curves
from housing.explanation.shapley import Explanation, shapley_values
from housing.schema.column import Vector
from server.api.context import json_response, parse_row, require_model
from server.models.current_model import Model

explanation_blueprint = Blueprint("explanations", __name__)


def explain_row(config: Mapping[str, Any], model: Model, row: Vector) -> Explanation:
    """Return the Shapley values of the prediction of an encoded row. Take the limits from the app's config."""
    predict = partial(model.predict, batch_size=config["MAX_ROWS"])
    limits = config["EXPLAIN_MAX_EXACT_COLUMNS"], config["EXPLAIN_SAMPLES"]
    return shapley_values(predict, row, model.bundle.background, model.bundle.schema.texts.owners, *limits)


@explanation_blueprint.post("/explain")
def explain() -> Response:
    """Return each column's contribution, in the target's unit. They add up to prediction - base value."""
    model = require_model()
    explanation = explain_row(current_app.config, model, parse_row(model))
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


@explanation_blueprint.post("/curves")
def curves() -> Response:
    """Return a grid of values and the predictions there for each column but texts, with the other columns of the row fixed."""
    model = require_model()
    row, schema = parse_row(model), model.bundle.schema
    known_rows = np.vstack([model.bundle.background, schema.encode_records(model.bundle.golden["rows"])])
    predict = partial(model.predict, batch_size=current_app.config["MAX_ROWS"])
    return json_response({"curves": ice_curves(predict, row, schema.features, known_rows), **model.info})
