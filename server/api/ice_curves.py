"""`POST /curves`: how the prediction of a row changes along each column, the others held as they are.

These are rows that nobody has asked a prediction for, so the prediction log does not hold them.
"""

import numpy as np
from flask import Blueprint, Response, current_app

from housing.schema.column import Column, Matrix, Vector
from server.api.context import json_answer, model_in_use, row_in_body
from server.models.current_model import Model

POINTS = 41  # of a number's curve


curves = Blueprint("curves", __name__)


@curves.post("/curves")
def along_each_column() -> Response:
    """Give, for each column, the values looked at and the predictions there."""
    model = model_in_use()
    row, schema, known = row_in_body(model), model.bundle.schema, _known(model)
    looked_at = [_along(column, row[place], known[:, place]) for place, column in enumerate(schema.features)]
    rows = np.repeat(row[None], sum(map(len, looked_at)), axis=0)
    ends = np.cumsum([len(values) for values in looked_at])
    for place, (values, end) in enumerate(zip(looked_at, ends, strict=True)):
        rows[end - len(values) : end, place] = values
    predictions = np.split(model.predict(rows, current_app.config["MAX_ROWS"]), ends[:-1])
    found = {
        column.name: {"values": [column.decode(value) for value in values.tolist()], "predictions": predicted.tolist()}
        for column, values, predicted in zip(schema.features, looked_at, predictions, strict=True)
    }
    return json_answer({"curves": found, **model.told})


def _known(model: Model) -> Matrix:
    """Give the rows between which the model can be expected to know what it says."""
    return np.vstack([model.bundle.background, model.bundle.schema.encode_records(model.bundle.golden["rows"])])


def _along(column: Column, now: float, known: Vector) -> Vector:
    """Give each level, or numbers from the least known one to the largest, the row's own among them; missing comes last."""
    missing = [np.nan] if column.nullable else []
    if not column.is_number:
        return np.array([*range(max(len(column.categories), 2)), *missing], dtype=np.float64)
    seen = np.append(known, now)
    seen = seen[~np.isnan(seen)]
    if not seen.size:
        return np.array(missing)
    numbers = np.linspace(seen.min(), seen.max(), POINTS)
    if column.type == "int":
        numbers = np.round(numbers)
    own = [] if np.isnan(now) else [now]
    return np.append(np.unique([*numbers, *own]), missing)
