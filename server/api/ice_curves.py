"""`POST /curves`: how the prediction of a row changes along each column, the others held as they are.

These are rows that nobody has asked a prediction for, so the prediction log does not hold them.
"""

import numpy as np
from flask import Blueprint, Response, current_app

from housing.schema.column import Column, Matrix, Vector
from server.api.context import json_response, parse_row, require_model
from server.models.current_model import Model

GRID_POINTS = 41  # of a number's curve


curves_blueprint = Blueprint("curves", __name__)


@curves_blueprint.post("/curves")
def ice_curves() -> Response:
    """Give, for each column, the values looked at and the predictions there."""
    model = require_model()
    row, schema, known = parse_row(model), model.bundle.schema, _reference_rows(model)
    looked_at = [_grid_values(column, row[place], known[:, place]) for place, column in enumerate(schema.features)]
    rows = np.repeat(row[None], sum(map(len, looked_at)), axis=0)
    ends = np.cumsum([len(values) for values in looked_at])
    for place, (values, end) in enumerate(zip(looked_at, ends, strict=True)):
        rows[end - len(values) : end, place] = values
    predictions = np.split(model.predict(rows, current_app.config["MAX_ROWS"]), ends[:-1])
    found = {
        column.name: {"values": [column.decode(value) for value in values.tolist()], "predictions": predicted.tolist()}
        for column, values, predicted in zip(schema.features, looked_at, predictions, strict=True)
    }
    return json_response({"curves": found, **model.info})


def _reference_rows(model: Model) -> Matrix:
    """Give the rows between which the model can be expected to know what it says."""
    return np.vstack([model.bundle.background, model.bundle.schema.encode_records(model.bundle.golden["rows"])])


def _grid_values(column: Column, current: float, reference: Vector) -> Vector:
    """Give each level, or numbers from the least known one to the largest, the row's own among them; missing comes last."""
    missing = [np.nan] if column.nullable else []
    if not column.is_number:
        return np.array([*range(max(len(column.categories), 2)), *missing], dtype=np.float64)
    seen = np.append(reference, current)
    seen = seen[~np.isnan(seen)]
    if not seen.size:
        return np.array(missing)
    numbers = np.linspace(seen.min(), seen.max(), GRID_POINTS)
    if column.type == "int":
        numbers = np.round(numbers)
    own = [] if np.isnan(current) else [current]
    return np.append(np.unique([*numbers, *own]), missing)
