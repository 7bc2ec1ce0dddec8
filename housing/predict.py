"""Predict the rows of a file with a registered model.

python -m housing.predict file=rows.csv out=predictions.csv
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.core.printable import show


def predict(cfg: DictConfig) -> str:
    """Load the model from MLflow, predict the rows, and return their number and that of the skipped rows as text."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.bundle.bundle import Bundle
    from housing.data.batch_prediction import PredictionSettings, predict_file
    from housing.runs.progress_bar import row_progress
    from housing.tracking import store

    settings = PredictionSettings.from_config(cfg)  # a missing override fails before the store is opened
    with store.connect(cfg.mlflow).artifacts.bundle(cfg.source) as folder:
        bundle = Bundle.read(folder)
    with row_progress() as show_rows:
        predicted = predict_file(bundle, settings, show_rows)
    skipped = f"\n{predicted.n_skipped:,} rows skipped, listed in {settings.skipped_file}" if predicted.n_skipped else ""
    return f"{predicted.n_predicted:,} rows predicted by {cfg.source}, written to {cfg.out}{skipped}"


@command("predict")
def main(cfg: DictConfig) -> None:
    """Predict the rows, and print their number."""
    show(predict(cfg))


if __name__ == "__main__":
    main()
