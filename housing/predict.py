"""Command: predict the rows of a file with a registered model.

python -m housing.predict file=rows.csv out=predictions.csv
"""

from pathlib import Path

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.core.printable import show


def predict(cfg: DictConfig) -> int:
    """Load the model from MLflow, predict the rows, and return their number."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.bundle.bundle import Bundle
    from housing.data.batch_prediction import predict_file
    from housing.tracking import store

    file, out = Path(cfg.file), Path(cfg.out)  # a missing override fails before the store is opened
    with store.connect(cfg.mlflow).artifacts.bundle(cfg.source) as folder:
        bundle = Bundle.read(folder)
    return predict_file(bundle, file, out, cfg.coverage)


@command("predict")
def main(cfg: DictConfig) -> None:
    """Predict the rows, and print their number."""
    show(f"{predict(cfg):,} rows predicted by {cfg.source}, written to {cfg.out}")


if __name__ == "__main__":
    main()
