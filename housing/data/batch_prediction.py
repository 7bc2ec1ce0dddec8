"""Batch prediction: the rows of a CSV file with their predictions."""

from pathlib import Path

import pandas as pd

from housing.bundle.bundle import Bundle
from housing.core.errors import HousingError
from housing.core.files import atomic_write
from housing.data.reading import open_table, read_text
from housing.data.table import parse_columns
from housing.schema.column import Matrix, Vector


def predict_file(bundle: Bundle, file: Path, out: Path, coverage: float | None = None) -> int:
    """Write the rows of a CSV file with their predictions atomically, and return their number.

    Adds the column `<target>_predicted`, and with `coverage` also `<target>_lower` and `<target>_upper`. Other columns are copied
    as they are.

    Raises
    ------
    TableError
        If a row does not fit the model's schema, or has more or fewer cells than the header.
    BundleError
        If `coverage` is set and the model has no intervals.
    """
    if not file.is_file():
        raise HousingError(f"File {file} does not exist. Set file= to a CSV file with the model's columns.")
    schema = bundle.schema
    text = read_text(file)
    frame = pd.DataFrame(parse_columns(text, schema, schema.features, file))
    predictions = _predict(bundle, schema.encode_frame(frame), coverage)
    rows = pd.DataFrame(text.rows, columns=text.header, dtype="str")
    new_columns = {f"{schema.target.name}_{name}": values for name, values in predictions.items()}
    with atomic_write(out) as partial, open_table(partial, "wb", out.suffix) as stream:
        rows.assign(**new_columns).to_csv(stream, index=False)
    return len(rows)


def _predict(bundle: Bundle, matrix: Matrix, coverage: float | None) -> dict[str, Vector]:
    if coverage is None:
        return {"predicted": bundle.predict(matrix)}
    return dict(zip(("predicted", "lower", "upper"), bundle.predict_interval(matrix, coverage), strict=True))
