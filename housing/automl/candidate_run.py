"""The run of one candidate: out-of-fold predictions, scores and costs, tracked in MLflow and found there by a second search."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from housing.automl.budget import Budget, TimeOver
from housing.automl.settings import Candidate
from housing.bundle.array_files import read_arrays, write_arrays
from housing.core.config import instantiate, to_yaml
from housing.core.errors import TrialPruned
from housing.core.locks import machine_lock
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.estimators.boosting import boosting_of
from housing.runs.run import loggable_params
from housing.runs.run_key import provenance, run_key
from housing.schema.column import Vector
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store
from housing.training.build import build_bundle
from housing.training.fitting import FitSettings
from housing.training.metrics import measure_cost
from housing.training.out_of_fold import Fold, OutOfFold, predict_out_of_fold
from housing.training.ranking_metric import RankingMetric

OnProgress = Callable[[str], None]  # receives the fold, and the boosting round

CANDIDATE = "candidate"  # run type
PREDICTIONS_FILE = "out_of_fold.npz"  # artifact of the run of a candidate
ROUNDS = "rounds."  # metrics with this prefix: boosting rounds by estimator
# Config keys that decide the out-of-fold predictions and the scores of a candidate.
KEY_PARTS = ("data", "split", "model", "features", "target", "metric", "metric_functions", "seed", "max_rows", "parity_tolerance")


@dataclass(frozen=True)
class CandidateResult:
    """A finished candidate.

    Attributes
    ----------
    metrics
        Out-of-fold scores, and costs: `fit_seconds` of all folds, `latency_us` of one row, and `model_bytes`.
    predicted
        Out-of-fold predictions, shape (rows,).
    reused
        Whether an earlier search fitted it.
    """

    candidate: Candidate
    transform: str
    metrics: dict[str, float]
    predicted: Vector
    reused: bool

    def seconds_of_final_fits(self, n_folds: int) -> float:
        """Return the expected time of the two fits of an ensemble's run: on the training rows, and on validation rows as well."""
        return self.metrics["fit_seconds"] / n_folds * (1.0 + n_folds / (n_folds - 1.0))

    def member(self, weight: int) -> dict[str, Any]:
        """Return the config of a member of the ensemble: without early stopping, with the mean of the folds' boosting rounds."""
        model = {**self.candidate.model, "early_stopping": None}
        rounds = self.metrics.get(ROUNDS + self.candidate.model["name"])
        if rounds is not None:
            boosting = boosting_of(instantiate(OmegaConf.create(model["estimator"])))
            assert boosting is not None  # an estimator without rounds has none that were chosen
            model["estimator"] = {**model["estimator"], boosting.rounds_parameter: max(1, int(rounds))}
        features = {} if self.candidate.features is None else {"features": self.candidate.features}
        return {"weight": weight, "model": model, **features}


@dataclass(frozen=True)
class CandidateRuns:
    """The store, the table and the folds of the candidates of a search."""

    store: Store
    search_id: str
    table: Table
    parts: Split
    folds: list[Fold]
    metric: RankingMetric

    @property
    def rows(self) -> Rows:
        """The rows with an out-of-fold prediction, ascending."""
        return np.sort(np.concatenate([fold for _, fold in self.folds]))

    def run_or_reuse(
        self, candidate: Candidate, cfg: DictConfig, min_seconds: float, budget: Budget, on_progress: OnProgress
    ) -> CandidateResult:
        """Fit a candidate on each fold, or return its result of an earlier search.

        Parameters
        ----------
        cfg
            The config of the candidate.
        min_seconds
            A candidate is not started with less time.

        Raises
        ------
        TimeOver
            If the time is over.
        TrialPruned
            If the folds do not fit into the budget.
        HousingError
            If the candidate cannot be fitted or exported.
        """
        resolved: Any = OmegaConf.to_container(cfg)
        key_config = {name: resolved[name] for name in KEY_PARTS}
        key = run_key({**key_config, "candidate_folds": len(self.folds)}, self.table, self.parts)
        experiment, transform = cfg.experiment_name, cfg.target.transform
        with machine_lock(f"{self.store.client.uri} {experiment} {key}"):
            existing = None if cfg.force_rerun else self.store.runs.find_finished(experiment, key)
            if existing is not None:
                return self._read(candidate, transform, existing)
            if budget.remaining() <= min_seconds:
                raise TimeOver("Not started: the time is over.")
            with self.store.runs.start(experiment, f"{candidate.name} {transform}", self._tags(transform, key)) as run:
                run.log_text("config/config.yaml", to_yaml(resolved))
                run.log(params=loggable_params(key_config))
                out_of_fold = self._fit(cfg, budget, on_progress)
                return self._log(candidate, transform, cfg.parity_tolerance, out_of_fold, run)

    def _fit(self, cfg: DictConfig, budget: Budget, on_progress: OnProgress) -> OutOfFold:
        fold_text = f"fold 1 of {len(self.folds)}"

        def on_fold(number: int, seconds: float) -> None:
            nonlocal fold_text
            n_left = len(self.folds) - number
            needed, remaining = seconds / number * n_left, max(0.0, budget.remaining())
            if needed > remaining:
                raise TrialPruned(f"Stopped: {n_left} more folds need {needed:.1f} s, and {remaining:.1f} s are left.")
            fold_text = f"fold {number + 1} of {len(self.folds)}"
            on_progress(fold_text)

        def on_round(_: str, done: int, rounds: int, __: float | None) -> None:
            if budget.remaining() <= 0:
                raise TrialPruned(f"Stopped: the time ended in {fold_text}.")
            on_progress(f"{fold_text}, round {done} of {rounds}")

        on_progress(fold_text)
        return predict_out_of_fold(FitSettings.from_config(cfg), self.table, self.parts, self.folds, on_fold, on_round)

    def _log(
        self, candidate: Candidate, transform: str, parity_tolerance: float, out_of_fold: OutOfFold, run: Run
    ) -> CandidateResult:
        """Score and export a candidate, and log its scores, costs and predictions."""
        fit_rows, fold = self.folds[-1]
        bundle = build_bundle(out_of_fold.last, self.table, fit_rows, fold, parity_tolerance)
        rows = out_of_fold.rows
        metrics = {
            **self.metric.score(out_of_fold.predicted, self.table.target[rows], self.table.weight_of(rows)),
            **measure_cost(bundle, self.table.matrix[fold]),
            **{ROUNDS + name: float(rounds) for name, rounds in out_of_fold.rounds.items()},
            "fit_seconds": out_of_fold.fit_seconds,
        }
        with tempfile.TemporaryDirectory(prefix="housing-") as folder:
            write_arrays(Path(folder) / PREDICTIONS_FILE, {"rows": rows, "predicted": out_of_fold.predicted})
            run.log_file(Path(folder) / PREDICTIONS_FILE)
        run.log(metrics=metrics)
        return CandidateResult(candidate, transform, metrics, out_of_fold.predicted, reused=False)

    def _read(self, candidate: Candidate, transform: str, record: RunRecord) -> CandidateResult:
        with self.store.artifacts.file(record.id, PREDICTIONS_FILE) as path:
            predicted = read_arrays(path)["predicted"]
        return CandidateResult(candidate, transform, record.metrics, predicted, reused=True)

    def _tags(self, transform: str, key: str) -> dict[str, str]:
        return {
            tracking_tags.RUN_TYPE: CANDIDATE,
            tracking_tags.PARENT: self.search_id,
            tracking_tags.DATA: self.table.fingerprint,
            tracking_tags.SPLIT: self.parts.fingerprint(),
            tracking_tags.TRANSFORM: transform,
            **tracking_tags.key_tag(key),
            **dict(provenance().values()),
        }
