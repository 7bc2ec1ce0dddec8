"""The run of one candidate: out-of-fold predictions, scores and costs, tracked in MLflow and found there by a second search."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
from housing.fitting.estimators import Model
from housing.fitting.feature_cache import FeatureCache
from housing.fitting.fitting import FitSettings, fit
from housing.runs.run import loggable_params
from housing.runs.run_key import provenance, run_key
from housing.schema.column import Vector
from housing.scoring.metrics import measure_cost, score
from housing.scoring.ranking_metric import RankingMetric
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store
from housing.training.build import build_bundle
from housing.training.out_of_fold import FittedFold, Fold, OutOfFold, predict_out_of_fold

OnProgress = Callable[[str], None]  # receives the number of folds done, and the boosting round

CANDIDATE = "candidate"  # run type
PREDICTIONS_FILE = "out_of_fold.npz"  # artifact of the run of a candidate
CACHE_BYTES = 1_000_000_000  # of fitted features that candidates share
ROUNDS = "rounds."  # metrics with this prefix: boosting rounds by estimator
# Config keys that decide the out-of-fold predictions and the scores of a candidate.
KEY_PARTS = ("data", "split", "model", "features", "target", "metric", "metric_functions", "seed", "max_rows", "parity_tolerance")


@dataclass(frozen=True)
class CandidateResult:
    """A finished candidate.

    Attributes
    ----------
    config
        The config of the candidate.
    run
        Its run in MLflow.
    metrics
        Out-of-fold scores, and costs: `fit_seconds` of all folds; `latency_us` of one row and `model_bytes`, once measured.
    predicted
        Out-of-fold predictions, shape (rows,).
    last
        The model of the last fold, or None if it has to be fitted again.
    reused
        Whether an earlier search fitted it.
    """

    candidate: Candidate
    config: DictConfig
    run: Run
    metrics: dict[str, float]
    predicted: Vector
    last: Model | None
    reused: bool

    @property
    def transform(self) -> str:
        """The transform of the target."""
        return str(self.config.target.transform)

    @property
    def is_measured(self) -> bool:
        """Whether the cost of a prediction is known."""
        return "model_bytes" in self.metrics

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
    """The store, the table and the folds of the candidates of a search.

    Attributes
    ----------
    max_relative_rmse
        A candidate is stopped if its RMSE on the first folds is above this multiple of that of the best candidate.
    """

    store: Store
    search_id: str
    table: Table
    parts: Split
    folds: list[Fold]
    metric: RankingMetric
    max_relative_rmse: float
    cache: FeatureCache = field(default_factory=lambda: FeatureCache(CACHE_BYTES))

    @property
    def rows(self) -> Rows:
        """The rows with an out-of-fold prediction, ascending."""
        return np.sort(np.concatenate([fold for _, fold in self.folds]))

    def run_or_reuse(
        self,
        candidate: Candidate,
        cfg: DictConfig,
        best: CandidateResult | None,
        min_seconds: float,
        budget: Budget,
        on_progress: OnProgress,
    ) -> CandidateResult:
        """Fit a candidate on each fold, or return its result of an earlier search.

        Parameters
        ----------
        cfg
            The config of the candidate.
        best
            The best candidate so far.
        min_seconds
            A candidate is not started with less time.

        Raises
        ------
        TimeOver
            If the time is over.
        TrialPruned
            If the folds do not fit into the budget, or if the candidate is much worse than the best one.
        HousingError
            If the candidate cannot be fitted.
        """
        resolved: Any = OmegaConf.to_container(cfg)
        key_config = {name: resolved[name] for name in KEY_PARTS}
        key = run_key({**key_config, "candidate_folds": len(self.folds)}, self.table, self.parts)
        experiment = cfg.experiment_name
        with machine_lock(f"{self.store.client.uri} {experiment} {key}"):
            existing = None if cfg.force_rerun else self.store.runs.find_finished(experiment, key)
            if existing is not None:
                return self._read(candidate, cfg, existing)
            if budget.remaining() <= min_seconds:
                raise TimeOver("Not started: the time is over.")
            name, tags = f"{candidate.name} {cfg.target.transform}", self._tags(cfg.target.transform, key)
            with self.store.runs.start(experiment, name, tags) as run, run.measuring_resources():
                run.log_text("config/config.yaml", to_yaml(resolved))
                run.log(params=loggable_params(key_config))
                out_of_fold = self._fit(cfg, best, budget, on_progress)
                return self._log(candidate, cfg, out_of_fold, run)

    def measure_cost(self, result: CandidateResult) -> CandidateResult:
        """Export the model of the last fold, measure the cost of its predictions, and log it to the candidate's run.

        Raises
        ------
        HousingError
            If the model cannot be exported.
        """
        fit_rows, fold = self.folds[-1]
        model = result.last
        if model is None:
            settings = FitSettings.from_config(result.config)
            model = fit(settings, self.table, fit_rows, fold, units=self.parts.units, cache=self.cache)
        bundle = build_bundle(model, self.table, fit_rows, fold, result.config.parity_tolerance)
        cost = measure_cost(bundle, self.table.matrix[fold])
        result.run.log(metrics=cost)
        return replace(result, metrics={**result.metrics, **cost}, last=None)

    def _fit(self, cfg: DictConfig, best: CandidateResult | None, budget: Budget, on_progress: OnProgress) -> OutOfFold:
        n_done, n_folds = 0, len(self.folds)

        def on_folds(fitted: list[FittedFold], seconds_left: float) -> None:
            nonlocal n_done
            n_done, remaining = len(fitted), max(0.0, budget.remaining())
            if seconds_left > remaining:
                raise TrialPruned(
                    f"Stopped: {n_folds - n_done} more folds need {seconds_left:.1f} s, and {remaining:.1f} s are left."
                )
            if best is not None:
                self._require_close(fitted, best)
            on_progress(f"{n_done} of {n_folds} folds")

        def on_round(_: str, done: int, rounds: int, __: float | None) -> None:
            if budget.remaining() <= 0:
                raise TrialPruned(f"Stopped: the time ended after {n_done} of {n_folds} folds.")
            on_progress(f"{n_done} of {n_folds} folds, round {done} of {rounds}")

        on_progress(f"0 of {n_folds} folds")
        settings = FitSettings.from_config(cfg)
        return predict_out_of_fold(settings, self.table, self.parts, self.folds, on_folds, on_round, self.cache)

    def _require_close(self, fitted: list[FittedFold], best: CandidateResult) -> None:
        """Raise TrialPruned if a candidate is much worse than the best one on the folds that are fitted."""
        rows = np.concatenate([self.folds[fitted_fold.index][1] for fitted_fold in fitted])
        rmse = self._rmse(np.concatenate([fitted_fold.predicted for fitted_fold in fitted]), rows)
        ratio = rmse / max(self._rmse(best.predicted[np.searchsorted(self.rows, rows)], rows), np.finfo(float).tiny)
        if ratio > self.max_relative_rmse:
            done = f"{len(fitted)} of {len(self.folds)} folds"
            raise TrialPruned(f"Stopped: its RMSE after {done} is {ratio:.2f} times that of {best.candidate.name}.")

    def _rmse(self, predicted: Vector, rows: Rows) -> float:
        return score(predicted, self.table.target[rows], self.table.weight_of(rows))["rmse"]

    def _log(self, candidate: Candidate, cfg: DictConfig, out_of_fold: OutOfFold, run: Run) -> CandidateResult:
        """Score a candidate, and log its scores and its predictions."""
        rows = out_of_fold.rows
        metrics = {
            **self.metric.score(out_of_fold.predicted, self.table.target[rows], self.table.weight_of(rows)),
            **{ROUNDS + name: float(rounds) for name, rounds in out_of_fold.rounds.items()},
            "fit_seconds": out_of_fold.fit_seconds,
        }
        with tempfile.TemporaryDirectory(prefix="housing-") as folder:
            write_arrays(Path(folder) / PREDICTIONS_FILE, {"rows": rows, "predicted": out_of_fold.predicted})
            run.log_file(Path(folder) / PREDICTIONS_FILE)
        run.log(metrics=metrics)
        return CandidateResult(candidate, cfg, run, metrics, out_of_fold.predicted, out_of_fold.last, reused=False)

    def _read(self, candidate: Candidate, cfg: DictConfig, record: RunRecord) -> CandidateResult:
        with self.store.artifacts.file(record.id, PREDICTIONS_FILE) as path:
            predicted = read_arrays(path)["predicted"]
        return CandidateResult(candidate, cfg, record.run, record.metrics, predicted, None, reused=True)

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
