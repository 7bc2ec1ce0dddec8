"""Individual conditional expectation: `POST /curves` returns how a prediction changes along each column.

Goldstein et al., "Peeking Inside the Black Box", JCGS 24 (2015) 44-65. The predicted grid is not a client's request, so it
is not in the prediction log.
"""

import numpy as np
from flask import Blueprint, Response, current_app

from housing.schema.column import Column, Matrix, Vector
from server.api.context import json_response, parse_row, require_model
from server.models.current_model import Model

GRID_POINTS = 41  # of a numeric column

curves_blueprint = Blueprint("curves", __name__)


@curves_blueprint.post("/curves")
def ice_curves() -> Response:
    """Return a grid of values and the predictions there for each column, with the other columns of the row fixed."""
    model = require_model()
    row, features, reference = parse_row(model), model.bundle.schema.features, _reference_rows(model)
    grids = [_grid_values(column, row[index], reference[:, index]) for index, column in enumerate(features)]
    rows = np.repeat(row[None], sum(map(len, grids)), axis=0)
    ends = np.cumsum([len(values) for values in grids])
    for index, (values, end) in enumerate(zip(grids, ends, strict=True)):
        rows[end - len(values) : end, index] = values
    predictions = np.split(model.predict(rows, current_app.config["MAX_ROWS"]), ends[:-1])
    curves = {
        column.name: {"values": [column.decode(value) for value in values.tolist()], "predictions": predicted.tolist()}
        for column, values, predicted in zip(features, grids, predictions, strict=True)
    }
    return json_response({"curves": curves, **model.info})


def _reference_rows(model: Model) -> Matrix:
    """Return the bundle's known rows, which span the range where its predictions can be trusted."""
    return np.vstack([model.bundle.background, model.bundle.schema.encode_records(model.bundle.golden["rows"])])


def _grid_values(column: Column, current: float, reference: Vector) -> Vector:
    """Return all categories, or numbers over the range of the reference and the current value. Missing comes last."""
    missing = [np.nan] if column.nullable else []
    if not column.is_number:
        return np.array([*range(max(len(column.categories), 2)), *missing], dtype=np.float64)
    known = np.append(reference, current)
    known = known[~np.isnan(known)]
    if not known.size:
        return np.array(missing)
    numbers = np.linspace(known.min(), known.max(), GRID_POINTS)
    if column.type == "int":
        numbers = np.round(numbers)
    own = [] if np.isnan(current) else [current]
    return np.append(np.unique([*numbers, *own]), missing)
