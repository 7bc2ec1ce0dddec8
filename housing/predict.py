"""Entry: predict the rows of a file with a model of the store.

python -m housing.predict file=rows.csv out=predictions.csv
"""

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.command import command
from housing.core.errors import HousingError
from housing.core.files import atomic_write
from housing.data.table import read_csv
from housing.schema.column import Matrix, Vector
from housing.tracking import store


def predict(cfg: DictConfig) -> int:
    """Write the rows of `file` with their predictions to `out`, whole or not at all; give their number.

    Raises TableError where a row does not fit the model's schema, BundleError for an interval of a model that has none.
    """
    file = Path(cfg.file)
    if not file.is_file():
        raise HousingError(f"file={file} is not there")
    with store.connect(cfg.mlflow).artifacts.bundle(cfg.source) as folder:
        bundle = Bundle.read(folder)
    schema = bundle.schema
    made = _predict(bundle, schema.encode_frame(read_csv(file, schema, schema.features)), cfg.coverage)
    rows = pd.read_csv(file, dtype="str", keep_default_na=False, skip_blank_lines=False, index_col=False)  # as they are
    with atomic_write(Path(cfg.out)) as partial:
        rows.assign(**{f"{schema.target.name}_{name}": values for name, values in made.items()}).to_csv(partial, index=False)
    return len(rows)


def _predict(bundle: Bundle, matrix: Matrix, coverage: float | None) -> dict[str, Vector]:
    """Give predictions, and the ends of their intervals where a coverage is asked for."""
    if coverage is None:
        return {"predicted": bundle.predict(matrix)}
    return dict(zip(("predicted", "lower", "upper"), bundle.predict_interval(matrix, coverage), strict=True))


@command("predict")
def main(cfg: DictConfig) -> None:
    """Predict, and say how many rows there are and where."""
    print(f"{predict(cfg):,} rows predicted by {cfg.source}, written to {cfg.out}")


if __name__ == "__main__":
    main()
