"""The data of a report: a run, its table, its held-out predictions and its evaluation."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.errors import HousingError, StoreError
from housing.data.split import Split, split
from housing.data.table import Table
from housing.estimators.specs import estimator_specs
from housing.evaluation.evaluate import EvaluationSettings, evaluate
from housing.evaluation.results import Evaluation
from housing.evaluation.slices import SliceMask, SliceSettings, compute_rmse, make_slices, select
from housing.runs.past_run import PastRun
from housing.runs.run import HOLDOUT
from housing.schema.column import Matrix, Vector
from housing.scoring.holdout import HoldoutPredictions
from housing.streaming.loading import load
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store


@dataclass(frozen=True)
class RunData:
    """One run. Its errors are those of the validation rows, predicted by a model fitted on the training rows only."""

    label: str
    past_run: PastRun
    table: Table
    parts: Split
    bundle: Bundle
    holdout: HoldoutPredictions
    decision: RunRecord | None  # the latest about this run
    evaluation: Evaluation | None

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self.past_run.run.id

    @property
    def cfg(self) -> DictConfig:
        """The config of the run."""
        return self.past_run.cfg

    @property
    def predictions(self) -> Vector:
        """Predictions for the validation rows."""
        return self.holdout.predicted

    @property
    def actual(self) -> Vector:
        """Targets of the validation rows."""
        return self.table.target[self.holdout.rows]

    @property
    def weight(self) -> Vector | None:
        """Weights of the validation rows, or None if all rows count alike."""
        return self.table.weight_of(self.holdout.rows)

    @property
    def rmse(self) -> float:
        """RMSE on the validation rows."""
        return self.rmse_of(np.arange(len(self.actual)))

    def rmse_of(self, rows: NDArray[np.intp]) -> float:
        """Return the weighted RMSE of some validation rows, by index."""
        return compute_rmse(self.error[rows], select(self.weight, rows))

    @property
    def error(self) -> Vector:
        """Prediction minus target."""
        return self.predictions - self.actual

    def mean(self, values: NDArray[Any], rows: Any) -> float:
        """Return the weighted mean of values of some validation rows, by index or mask."""
        return float(np.average(values[rows], weights=select(self.weight, rows)))

    @property
    def coordinates(self) -> Matrix | None:
        """Latitude and longitude of the validation rows in degrees, or None if the table has none."""
        coordinates = self.table.schema.coordinates()
        return None if coordinates is None else self.table.matrix[self.holdout.rows][:, coordinates]

    @cached_property
    def slices(self) -> list[SliceMask]:
        """Slices of the validation rows."""
        return make_slices(self.table, self.holdout.rows, SliceSettings.from_config(self.cfg.data))

    @property
    def target_label(self) -> str:
        """Name and unit of the target, for axes."""
        target = self.table.schema.target
        return f"{target.name} ({target.unit_label})" if target.unit else target.name

    @property
    def contribution_label(self) -> str:
        """The name of the sum of contributions: the target, or its logarithm, which has no unit."""
        return self.target_label if self.bundle.ensemble.transform is None else f"logarithm of {self.table.schema.target.name}"

    @property
    def rows_description(self) -> str:
        """The rows whose errors are shown, for captions."""
        validation, training = len(self.holdout.rows), len(self.parts.train)
        return f"{validation:,} validation rows, predicted by a model fitted on the {training:,} training rows"

    @property
    def test_rmse(self) -> float | None:
        """RMSE on test rows by the full evaluation or the gate, or None if neither has scored this run."""
        if self.evaluation is not None:
            return self.evaluation.scores["rmse"]
        return None if self.decision is None else self.decision.metrics.get("challenger_rmse")

    @property
    def uses_early_stopping(self) -> bool:
        """Whether the number of trees was chosen on the validation rows."""
        return any(spec.early_stopping_rounds for spec in estimator_specs(self.cfg))


def read(cfg: DictConfig, store: Store, run_id: str, label: str = "") -> RunData:
    """Read a run for a report. Raises HousingError if a part is missing; the message names the command that makes it."""
    past_run = PastRun.read(store, run_id)
    if tags.MODEL_ID not in past_run.run.tags:
        raise HousingError(
            f"Run {run_id} has no bundle (log_model=best keeps only the bundle of a sweep's best run)."
            f" To refit it: {next_command('promote', f'run_id={run_id}', table=past_run.cfg.data.name)}"
        )
    past_run.cfg.data.path = str(past_run.locate_table(Path(cfg.data.path), Path(cfg.paths.data)))
    cfg = _with_data(cfg, past_run.cfg)
    table = load(past_run.cfg)
    parts = split(table, past_run.cfg.split)
    with store.artifacts.bundle(f"models:/{past_run.run.tags[tags.MODEL_ID]}") as folder:
        bundle = Bundle.read(folder)
    decision, evaluation = latest_decision(cfg, store, past_run)
    if cfg.evaluate == "full" and evaluation is None:
        evaluation = evaluate(EvaluationSettings.from_config(cfg), past_run.cfg, table, parts, bundle)
    name = label or f"{past_run.cfg.model.name} on features {past_run.cfg.features.name}"
    table = table.encoded_as(bundle.schema)
    return RunData(name, past_run, table, parts, bundle, _read_holdout(store, run_id), decision, evaluation)


def _read_holdout(store: Store, run_id: str) -> HoldoutPredictions:
    try:
        with store.artifacts.directory(run_id, HOLDOUT) as folder:
            return HoldoutPredictions.read(folder)
    except StoreError as error:
        raise StoreError(
            f"{error} An older version of this project made the run. Train it again with force_rerun=true."
        ) from error


def latest_decision(cfg: DictConfig, store: Store, past_run: PastRun) -> tuple[RunRecord | None, Evaluation | None]:
    """Return the latest decision about a run, and the full evaluation of the latest decision that has one."""
    about = {tags.CHALLENGER: past_run.run.id}
    latest = store.runs.find_first(cfg.decisions_experiment, about, "attributes.start_time DESC")
    evaluated = store.runs.find_first(cfg.decisions_experiment, about | {tags.EVALUATED: "full"}, "attributes.start_time DESC")
    evaluation = (
        None
        if evaluated is None
        else Evaluation.from_dict(json.loads(store.artifacts.read_text(evaluated.id, tags.EVALUATION_FILE)))
    )
    return latest, evaluation


def _with_data(cfg: DictConfig, run_cfg: DictConfig) -> DictConfig:
    """Return the report's config with the table of the run."""
    cfg = cfg.copy()
    cfg.data = run_cfg.data
    return cfg
