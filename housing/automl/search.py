"""Search within a time budget: fit candidates, select an ensemble of them, and return the config of the run that fits it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from housing.automl.budget import Budget, TimeOver
from housing.automl.candidate_run import CandidateResult, CandidateRuns
from housing.automl.progress import Progress
from housing.automl.settings import MEGABYTE, Candidate, SearchSettings
from housing.core.config import to_yaml
from housing.core.errors import ConfigError, HousingError, StoreError, TrialPruned
from housing.core.validators import validate
from housing.data import table as tables
from housing.data.split import split
from housing.fitting.encoding_choice import choose_encoding
from housing.fitting.ensemble_selection import select_ensemble
from housing.fitting.estimators import NONE
from housing.fitting.fitting import FitSettings, transforms_to_fit
from housing.runs.run import ALLOWED, Job, run_tags
from housing.schema.column import Vector
from housing.scoring.metrics import as_loss
from housing.scoring.ranking_metric import RankingMetric
from housing.streaming.settings import StreamSettings
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.training.out_of_fold import make_folds

SEARCH = "search"  # run type
FINAL_SHARE = 0.5  # largest share of the time for the fits of the ensemble itself


def search(cfg: DictConfig, job: Job) -> DictConfig:
    """Fit candidates until the time is over, and return the config of a run of the best ensemble.

    Each candidate is a run below the run of the search. A candidate that an earlier search finished is not fitted again. Test
    rows are not used.

    Raises
    ------
    ConfigError
        If a setting is invalid, if no candidate finished, or if none is within the limits of the ensemble.
    """
    validate(cfg, ALLOWED)
    settings, metric = SearchSettings.from_config(cfg), RankingMetric.from_config(cfg)
    store = tracking_store.connect(cfg.mlflow, create=True)
    store.runs.close_dead(cfg.experiment_name)
    if StreamSettings.from_config(cfg.engine) is not None:
        raise ConfigError(
            "engine=stream and dask cannot search for the best ensemble. Use model=xgboost, or engine=memory with max_rows=N."
        )
    table = tables.load(cfg.data, cfg.max_rows)
    parts = split(table, cfg.split)
    rows = np.union1d(parts.train, parts.valid)
    metric.check(table.target[rows])
    table = table.learn(rows)
    folds = make_folds(parts, settings.n_folds, cfg.seed, cfg.split.get("gap", 0.0))
    candidates = [candidate for candidate in settings.candidates if candidate.suits(table, len(rows))]
    if not candidates:
        raise ConfigError(
            f"experiment=auto needs a candidate for {len(rows):,} training and validation rows (got none): max_rows or"
            f" needs_coordinates leaves out {', '.join(candidate.name for candidate in settings.candidates)}."
        )
    tags = {**run_tags(cfg, job), tracking_tags.RUN_TYPE: SEARCH}
    if settings.missing:
        tags[tracking_tags.MISSING_LIBRARIES] = ", ".join(settings.missing)
    with store.runs.start(cfg.experiment_name, f"auto {cfg.minutes:g} minutes", tags) as run:
        runs = CandidateRuns(store, run.id, table, parts, folds, metric, settings.max_relative_rmse)
        with Progress(metric.name, settings.seconds) as progress:
            progress.report_missing(settings.missing)
            state = _Search(settings, runs, progress)
            state.fit_candidates(candidates)
        final = state.final_config()
        run.log(metrics=state.best.scores)
        run.log_text("ensemble.yaml", to_yaml(final["model"]))
    final["tags"] = {**final["tags"], "search": run.id}
    return OmegaConf.create(final)


@dataclass(frozen=True)
class SelectedEnsemble:
    """Candidates with their numbers of votes, and the out-of-fold scores of their weighted mean."""

    votes: list[tuple[CandidateResult, int]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)


class _Search:
    """The state of a search: the config of the candidates, the finished ones, and the best ensemble of them."""

    def __init__(self, settings: SearchSettings, runs: CandidateRuns, progress: Progress) -> None:
        self.settings, self.runs, self.progress = settings, runs, progress
        self.base, self.best, self.budget = settings.base, SelectedEnsemble(), Budget(settings.seconds)
        self.results: list[CandidateResult] = []
        self.problems: list[str] = []
        self.is_over = False

    def fit_candidates(self, candidates: list[Candidate]) -> None:
        """Fit the candidates in their order, then variations of them, as far as the time suffices.

        The first that finishes decides the transform of the target.
        """
        settings = FitSettings.from_config(candidates[0].config(self.base, self.base["target"]["transform"]))
        transforms = transforms_to_fit(settings, self.runs.table, self.runs.rows)
        candidates = self._with_encoding(candidates)
        for candidate in islice(chain(candidates, self._draw(candidates)), self.settings.max_candidates):
            finished = [result for transform in transforms if (result := self._fit(candidate, transform)) is not None]
            result = min(finished, key=lambda result: self._loss(result.predicted), default=None)
            if result is not None:
                transforms = [result.transform]
                self.results.append(result)
                self._select_and_measure()
            self.progress.end(result, self.best.scores.get(self.runs.metric.name), len(self.best.votes))

    def _draw(self, candidates: list[Candidate]) -> Iterator[Candidate]:
        """Yield variations of the candidates with a space, in turn, until the time is over."""
        varied = [candidate for candidate in candidates if candidate.space]
        for number in count(1) if varied else ():
            for candidate in varied:
                if self.is_over:  # an earlier search fitted them in this order, so it has no further ones to reuse
                    return
                yield candidate.draw(number, self.base["seed"])

    def _with_encoding(self, candidates: list[Candidate]) -> list[Candidate]:
        """Choose the encoding of categories with many levels by the first candidate, and set it for all."""
        runs, first = self.runs, candidates[0]
        settings = FitSettings.from_config(first.config(self.base, NONE))
        method = choose_encoding(settings, runs.table, runs.parts, runs.metric).method
        if method is None:
            return candidates
        self.base = {**self.base, "features": _with_method(self.base["features"], method)}
        return [
            candidate if candidate.features is None else replace(candidate, features=_with_method(candidate.features, method))
            for candidate in candidates
        ]

    def _fit(self, candidate: Candidate, transform: str) -> CandidateResult | None:
        """Return the result of a candidate, or None if it failed or did not fit into the time."""
        self.progress.start(candidate.name)
        shortest_fold = min((result.metrics["fit_seconds"] for result in self.results), default=0.0) / self.settings.n_folds
        best = min(self.results, key=lambda result: result.metrics["rmse"], default=None)
        cfg = candidate.config(self.base, transform)
        try:
            return self.runs.run_or_reuse(candidate, cfg, best, shortest_fold, self.budget, self.progress.show)
        except StoreError:
            raise
        except TimeOver as error:
            self.is_over = True
            self.problems.append(f"{candidate.name}: {error}")
            return None
        except (HousingError, TrialPruned) as error:
            self._report_problem(candidate, error)
            return None

    def _report_problem(self, candidate: Candidate, error: Exception) -> None:
        self.problems.append(f"{candidate.name}: {error}")
        self.progress.report(self.problems[-1])

    def _loss(self, predicted: Vector) -> float:
        name = self.runs.metric.name
        return as_loss(name, self._scores(predicted)[name])

    def _scores(self, predicted: Vector) -> dict[str, float]:
        table, rows = self.runs.table, self.runs.rows
        return self.runs.metric.score(predicted, table.target[rows], table.weight_of(rows))

    def _select_and_measure(self) -> None:
        """Update the best ensemble. The cost of a candidate is measured when it is selected for the first time."""
        self._select()
        while unmeasured := [result for result, _ in self.best.votes if not result.is_measured]:
            for result in unmeasured:
                self._measure(result)
            self._select()
        # A forest can have hundreds of megabytes, and is rarely selected later if it is not at once.
        self.results = [replace(result, last=None) for result in self.results]

    def _measure(self, result: CandidateResult) -> None:
        """Replace a result by one with its cost, or remove it if its model cannot be exported."""
        index = next(index for index, other in enumerate(self.results) if other is result)
        try:
            self.results[index] = self.runs.measure_cost(result)
        except StoreError:
            raise
        except HousingError as error:
            self._report_problem(result.candidate, error)
            del self.results[index]

    def _select(self) -> None:
        """Update the best ensemble, and reserve the time of its fits."""
        lowest = min((result.metrics["rmse"] for result in self.results), default=0.0)
        close = [result for result in self.results if result.metrics["rmse"] <= self.settings.max_relative_rmse * lowest]
        self.best, self.budget.reserved = SelectedEnsemble(), 0.0
        if not close:
            return
        predictions = np.stack([result.predicted for result in close])
        costs = np.array([self._costs(result) for result in close])
        settings = self.settings
        limits = np.array([settings.max_row_microseconds, settings.max_bytes, FINAL_SHARE * settings.seconds])
        weights = select_ensemble(predictions, self._loss, costs, limits)
        if weights.any():
            votes = [(result, int(weight)) for result, weight in zip(close, weights, strict=True) if weight]
            self.best = SelectedEnsemble(votes, self._scores(np.average(predictions, axis=0, weights=weights)))
            self.budget.reserved = float(costs[weights > 0, -1].sum())

    def _costs(self, result: CandidateResult) -> tuple[float, float, float]:
        """Return what a candidate adds to the limited quantities. What is not measured counts as nothing until it is."""
        return (
            result.metrics.get("latency_us", 0.0),
            result.metrics.get("model_bytes", 0.0),
            result.seconds_of_final_fits(self.settings.n_folds),
        )

    def final_config(self) -> dict[str, Any]:
        """Return the config of a run of the best ensemble.

        Raises
        ------
        ConfigError
            If no candidate finished, or if none is within the limits of the ensemble.
        """
        if not self.results:
            raise ConfigError(
                f"No candidate finished within minutes={self.settings.seconds / 60:g}. Use more minutes, or max_rows=N."
                f" {self.problems[0]}"
            )
        if not self.best.votes:
            self._require_time_for_final_fits()
            measured = [result.metrics for result in self.results if result.is_measured]
            fastest = min(metrics["latency_us"] for metrics in measured)
            smallest = min(metrics["model_bytes"] for metrics in measured)
            raise ConfigError(
                f"No candidate is within max_row_microseconds={self.settings.max_row_microseconds:g} and max_bundle_megabytes="
                f"{self.settings.max_bytes / MEGABYTE:g}: the fastest of {len(measured)} needs {fastest:.0f} microseconds"
                f" per row, and the smallest has {smallest / MEGABYTE:.2f} MB. Raise the limits."
            )
        members = {result.candidate.name: result.member(weight) for result, weight in self.best.votes}
        transform = self.best.votes[0][0].transform
        model = {"name": "auto", "applicability": None, "members": members}
        return {**self.base, "model": model, "target": {**self.base["target"], "transform": transform}}

    def _require_time_for_final_fits(self) -> None:
        minutes, limit = self.settings.seconds / 60, FINAL_SHARE * self.settings.seconds
        quickest = min(result.seconds_of_final_fits(self.settings.n_folds) for result in self.results)
        if quickest > limit:
            raise ConfigError(
                f"No candidate is within minutes={minutes:g}: the final fits may take {limit:.3g} s, and those of the quickest of"
                f" {len(self.results)} take {quickest:.3g} s. Use more minutes, or max_rows=N."
            )


def _with_method(features: dict[str, Any], method: str) -> dict[str, Any]:
    return {**features, "encoding": {**features["encoding"], "method": method}}
