"""Entry: predict the rows of a file with a model of the store.

python -m housing.predict file=rows.csv out=predictions.csv
"""

from pathlib import Path

from omegaconf import DictConfig

from housing import tracking
from housing.bundle import Bundle
from housing.config import command
from housing.data import read_csv
from housing.errors import HousingError
from housing.files import written_whole


def predict(cfg: DictConfig) -> int:
    """Write the rows of `file` with their predictions to `out`, whole or not at all; give their number.

    Raises TableError where a row does not fit the model's schema.
    """
    file = Path(cfg.file)
    if not file.is_file():
        raise HousingError(f"file={file} is not there")
    with tracking.connect(cfg.mlflow).bundle(cfg.model) as folder:
        bundle = Bundle.read(folder)
    frame = read_csv(file, bundle.schema)
    predictions = bundle.predict(bundle.schema.encode_frame(frame))
    with written_whole(Path(cfg.out)) as partial:
        frame.assign(**{f"{bundle.schema.target.name}_predicted": predictions}).to_csv(partial, index=False)
    return len(frame)


@command("predict")
def main(cfg: DictConfig) -> None:
    """Predict, and say how many rows there are and where."""
    print(f"{predict(cfg):,} rows predicted by {cfg.model}, written to {cfg.out}")


if __name__ == "__main__":
    main()
