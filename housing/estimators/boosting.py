"""Boosting libraries: fits with early stopping, reported progress and a given number of rounds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.estimators.weighted_rows import WeightedRows
from housing.features.encoding import in_precision

# pylint: disable=import-outside-toplevel  # libraries take seconds to import, and may not be installed

REPORT_EVERY = 25  # rounds

Report = Callable[[int, float | None], None]  # boosting rounds done, validation score if any


@dataclass(frozen=True)
class BoostingFit:
    """One fit.

    Attributes
    ----------
    validation
        The rows of early stopping, or None to fit all rounds.
    patience
        Rounds without a better validation score before the fit stops.
    n_threads
        0 is every core.
    """

    training: WeightedRows
    validation: WeightedRows | None
    patience: int
    n_threads: int


@dataclass(frozen=True)
class Boosting:
    """A library, or a class of one.

    Attributes
    ----------
    rounds_parameter
        The name of the estimator's number of rounds.
    default_rounds
        Its value if the config gives none.
    fit
        Fits an estimator.
    best_rounds
        Returns the rounds with the best validation score, or all rounds without early stopping.
    """

    rounds_parameter: str
    default_rounds: int
    fit: Callable[[Any, BoostingFit, Report], None]
    best_rounds: Callable[[Any], int]


def boosting_of(estimator: Any) -> Boosting | None:
    """Return how an estimator fits boosting rounds, or None if it has no rounds that early stopping could choose."""
    library = type(estimator).__module__.split(".")[0]
    return BOOSTING.get(type(estimator).__name__ if library in ("sklearn", "housing") else library)


def as_fitted(estimator: Any, columns: NDArray[Any]) -> Any:
    """Return columns in the precision that an estimator and its ONNX graph compare: boosted trees use float32."""
    if boosting_of(estimator) is None:
        return columns
    return in_precision(columns, np.float32)


def precision_of(estimators: Iterable[Any]) -> type[np.floating[Any]]:
    """Return the precision of columns that estimators share: float32 if all of them are boosted trees, else float64."""
    return np.float64 if any(boosting_of(estimator) is None for estimator in estimators) else np.float32


def fit_boosting(
    estimator: Any, data: BoostingFit, rounds: int | None, on_round: Callable[[int, int, float | None], None]
) -> None:
    """Fit an estimator of a boosting library, with `rounds` rounds if they are given.

    `on_round` receives the rounds done, all rounds and the latest validation score, every `REPORT_EVERY` rounds.
    """
    boosting = boosting_of(estimator)
    assert boosting is not None
    boosting.fit(estimator, data, report_rounds(estimator, rounds, on_round))


def report_rounds(estimator: Any, rounds: int | None, on_round: Callable[[int, int, float | None], None]) -> Report:
    """Set the number of rounds of an estimator, if it is given, and return what reports its rounds to `on_round`."""
    boosting = boosting_of(estimator)
    assert boosting is not None
    if rounds is not None:
        estimator.set_params(**{boosting.rounds_parameter: rounds})
    n_rounds = estimator.get_params().get(boosting.rounds_parameter) or boosting.default_rounds

    def report(done: int, score: float | None) -> None:
        if done % REPORT_EVERY == 0:
            on_round(done, n_rounds, score)

    return report


def _fit_xgboost(estimator: Any, data: BoostingFit, report: Report) -> None:
    from housing.estimators import masked_copies
    from housing.estimators.round_reporter import RoundReporter
    from housing.estimators.xgboost_chunks import can_fit

    validation, reporter = data.validation, RoundReporter(report)
    if validation is not None:
        estimator.set_params(early_stopping_rounds=data.patience)
    if data.training.masked is not None and can_fit(estimator):
        masked_copies.fit(estimator, data.training, validation, data.patience, reporter)
        return
    estimator.set_params(callbacks=[reporter])
    rows = data.training.with_copies()
    evaluation: dict[str, Any] = {}
    if validation is not None:
        evaluation["eval_set"] = [(validation.columns, validation.target)]
        evaluation["sample_weight_eval_set"] = None if validation.weight is None else [validation.weight]
    estimator.fit(rows.columns, rows.target, sample_weight=rows.weight, verbose=False, **evaluation)
    estimator.set_params(callbacks=None)  # a stored estimator holds no reference to the reporter


def _fit_lightgbm(estimator: Any, data: BoostingFit, report: Report) -> None:
    import lightgbm  # pylint: disable=import-error  # an optional library

    def after_round(state: Any) -> None:
        report(state.iteration + 1, state.evaluation_result_list[0][2] if state.evaluation_result_list else None)

    rows, validation = data.training.with_copies(), data.validation
    evaluation: dict[str, Any] = {"callbacks": [after_round]}
    if validation is not None:
        evaluation |= {"eval_X": validation.columns, "eval_y": validation.target}
        evaluation["eval_sample_weight"] = None if validation.weight is None else [validation.weight]
        evaluation["callbacks"].append(lightgbm.early_stopping(data.patience, verbose=False))
    estimator.set_params(n_jobs=data.n_threads)  # 0: every core
    estimator.fit(rows.columns, rows.target, sample_weight=rows.weight, **evaluation)


def _fit_catboost(estimator: Any, data: BoostingFit, report: Report) -> None:
    import catboost  # pylint: disable=import-error  # an optional library

    class Reporter:
        """CatBoost's form of a callback. It keeps an exception, of which CatBoost would only show the text."""

        error: BaseException | None = None

        def after_iteration(self, state: Any) -> bool:
            """Report the round. Return whether the fit goes on."""
            scores = next(iter(state.metrics.get("validation", {}).values()), [None])
            try:
                report(state.iteration, scores[-1])
            except BaseException as error:  # pylint: disable=broad-exception-caught  # it is raised after the fit
                self.error = error
            return self.error is None

    rows, validation, reporter = data.training.with_copies(), data.validation, Reporter()
    estimator.set_params(allow_writing_files=False, thread_count=data.n_threads or -1)
    estimator.fit(
        rows.columns,
        rows.target,
        sample_weight=rows.weight,
        eval_set=None if validation is None else catboost.Pool(validation.columns, validation.target, weight=validation.weight),
        early_stopping_rounds=None if validation is None else data.patience,
        callbacks=[reporter],
        verbose=False,
    )
    if reporter.error is not None:
        raise reporter.error


def _catboost_rounds(estimator: Any) -> int:
    best = estimator.best_iteration_
    return int(estimator.tree_count_ if best is None else best + 1)


def _fit_histogram(estimator: Any, data: BoostingFit, _: Report) -> None:
    rows, validation = data.training.with_copies(), data.validation
    if validation is None:
        estimator.set_params(early_stopping=False)
        estimator.fit(rows.columns, rows.target, sample_weight=rows.weight)
        return
    estimator.set_params(early_stopping=True, n_iter_no_change=data.patience)
    estimator.fit(
        rows.columns,
        rows.target,
        sample_weight=rows.weight,
        X_val=validation.columns,
        y_val=validation.target,
        sample_weight_val=validation.weight,
    )
    best = max(1, int(np.argmax(estimator.validation_score_)))  # the first score is that of no round
    del estimator._predictors[best:]  # scikit-learn keeps later rounds  # pylint: disable=protected-access


def _fit_neural(estimator: Any, data: BoostingFit, report: Report) -> None:
    estimator.fit_cycles(data.training.with_copies(), data.validation, data.patience, report)


# By library, or by class of scikit-learn and of this project.
BOOSTING = {
    "xgboost": Boosting(
        "n_estimators", 100, _fit_xgboost, lambda fitted: int(getattr(fitted, "best_iteration", fitted.n_estimators - 1)) + 1
    ),
    "lightgbm": Boosting("n_estimators", 100, _fit_lightgbm, lambda fitted: int(fitted.best_iteration_ or fitted.n_estimators_)),
    "catboost": Boosting("iterations", 1000, _fit_catboost, _catboost_rounds),
    "HistGradientBoostingRegressor": Boosting("max_iter", 100, _fit_histogram, lambda fitted: int(fitted.n_iter_)),
    "NeuralRegressor": Boosting("epochs", 255, _fit_neural, lambda fitted: int(fitted.best_epochs_)),
}
