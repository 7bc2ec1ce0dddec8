"""Batch prediction: the rows of a CSV file with their predictions."""

from pathlib import Path

import pandas as pd

from housing.bundle.bundle import Bundle
from housing.core.errors import HousingError
from housing.core.files import atomic_write
from housing.data.table import read_csv
from housing.schema.column import Matrix, Vector


def predict_file(bundle: Bundle, file: Path, out: Path, coverage: float | None = None) -> int:
    """Write the rows of a CSV file with their predictions atomically, and return their number.

    Adds the column `<target>_predicted`, and with `coverage` also `<target>_lower` and `<target>_upper`. Other columns are copied
    as they are.

    Raises
    ------
    TableError
        If a row does not fit the model's schema.
    BundleError
        If `coverage` is set and the model has no intervals.
    """
    if not file.is_file():
        raise HousingError(f"File {file} does not exist. Set file= to a CSV file with the model's columns.")
    schema = bundle.schema
    predictions = _predict(bundle, schema.encode_frame(read_csv(file, schema, schema.features)), coverage)
    rows = pd.read_csv(file, dtype="str", keep_default_na=False, skip_blank_lines=False, index_col=False)
    new_columns = {f"{schema.target.name}_{name}": values for name, values in predictions.items()}
    with atomic_write(out) as partial:
        rows.assign(**new_columns).to_csv(partial, index=False)
    return len(rows)


def _predict(bundle: Bundle, matrix: Matrix, coverage: float | None) -> dict[str, Vector]:
    if coverage is None:
        return {"predicted": bundle.predict(matrix)}
    return dict(zip(("predicted", "lower", "upper"), bundle.predict_interval(matrix, coverage), strict=True))
