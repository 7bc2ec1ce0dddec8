"""Predict the rows of a file with a registered model.

python -m housing.predict file=rows.csv out=predictions.csv
"""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result
from housing.core.printable import show

if TYPE_CHECKING:
    from housing.data.batch_prediction import Predictions


def predict(cfg: DictConfig) -> "Predictions":
    """Load the model from MLflow, and predict the rows."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.bundle.bundle import Bundle
    from housing.cluster.prediction_workers import predicts_on_workers
    from housing.data.batch_prediction import Predictions, PredictionSettings, predict_file
    from housing.runs.progress_bar import row_progress
    from housing.tracking import store

    settings = PredictionSettings.from_config(cfg)  # a missing override fails before the store is opened
    with store.connect(cfg.mlflow).artifacts.bundle(cfg.source) as folder:
        bundle = Bundle.read(folder)
        with predicts_on_workers(cfg.engine, folder, settings) as predictor, row_progress() as show_rows:
            predicted = predict_file(bundle, settings, show_rows, predictor)
    skipped_file = settings.skipped_file if predicted.n_skipped else None
    return Predictions(cfg.source, predicted.n_predicted, settings.out, predicted.n_skipped, skipped_file)


@command("predict")
def main(cfg: DictConfig) -> Result:
    """Predict the rows, and print their number and that of the skipped rows."""
    predictions = predict(cfg)
    show(str(predictions))
    return Result(predictions)


if __name__ == "__main__":
    main()
