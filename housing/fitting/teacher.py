"""Teachers: models of any kind and speed, to whose predictions a model that can be served is fitted (distillation).

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015); Bucilua, Caruana and Niculescu-Mizil, "Model
Compression", KDD 2006.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.ensemble import clip_to_bounds
from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.core.validators import SHARE, integer, optional
from housing.data.split import Rows
from housing.data.table import Table, weight_column
from housing.data.units import Units
from housing.fitting.estimators import require_weighted_fit, sample_weight
from housing.schema.column import Vector
from housing.scoring.folds import shuffled_folds

KEY = "model.teacher"


@dataclass(frozen=True)
class Teacher:
    """A model that predicts a DataFrame with the columns of a request.

    Attributes
    ----------
    create
        Returns the teacher: fitted, or, with `folds`, one to fit.
    folds
        Number of folds. The target of a row comes from a fit on the other folds. None: the teacher is fitted already.
    true_share
        Share of the true target in the target that a row teaches; the prediction has the rest.
    """

    create: Callable[[], Any]
    folds: int | None = None
    true_share: float = 0.0
    _given: dict[Table, Vector] = field(default_factory=dict, init=False, repr=False, compare=False)
    _out_of_fold: dict[tuple[Table, bytes], Vector] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_config(cls, model: DictConfig) -> Self | None:
        """Read the settings from the config of a model, or return None if it has no teacher."""
        node = model.get("teacher")
        if node is None:
            return None
        if not isinstance(node, DictConfig) or "_target_" not in node:
            got = "none" if isinstance(node, DictConfig) else repr(node)
            raise ConfigError(
                f"{KEY} must name a class or function by _target_ (got {got}). For a file of joblib:"
                f" {KEY}._target_=joblib.load +{KEY}.filename=FILE"
            )
        optional(integer(2)).validate("model.teacher_folds", model.teacher_folds)
        SHARE.validate("model.true_share", model.true_share)
        return cls(partial(instantiate, node), model.teacher_folds, model.true_share)

    @cached_property
    def name(self) -> str:
        """The class of the teacher, with the classes of its steps if it is a pipeline."""
        return _name_of(self._create())

    def teach(self, table: Table, rows: Rows, units: Units | None) -> Table:
        """Return the table with the targets that some rows teach.

        A fit of the teacher on a row itself would repeat the error of its target. So with `folds`, its prediction comes from a
        fit on the rows of the other folds, which keep `units` together.

        Raises
        ------
        ConfigError
            If the teacher cannot be fitted, or does not predict a number for each row.
        """
        predicted = self._predict_given(table, rows) if self.folds is None else self._predict_out_of_fold(table, rows, units)
        target = table.target.copy()
        target[rows] = self.true_share * table.target[rows] + (1 - self.true_share) * predicted
        return replace(table, target=target)

    def predict(self, table: Table, fit_rows: Rows, rows: Rows) -> Vector:
        """Return predictions of some rows, by a fit on `fit_rows` unless the teacher is fitted already."""
        return self._predict_given(table, rows) if self.folds is None else self._fit_and_predict(table, fit_rows, rows)

    def _predict_given(self, table: Table, rows: Rows) -> Vector:
        """Return predictions of a fitted teacher. It is slow, so each row is predicted once in a run."""
        known = self._given.setdefault(table, np.full(len(table), np.nan))
        new = rows[np.isnan(known[rows])]
        if new.size:
            known[new] = _predict(self._create(), table, new, "If it is not fitted yet, set model.teacher_folds=5.")
        return known[rows]

    def _predict_out_of_fold(self, table: Table, rows: Rows, units: Units | None) -> Vector:
        """Return out-of-fold predictions. Fits on the same rows, for each encoding of categories, share them."""
        assert self.folds is not None
        key = (table, rows.tobytes())
        if key in self._out_of_fold:
            return self._out_of_fold[key]
        of_rows = None if units is None else units.take(rows)
        n_parts = len(rows) if of_rows is None else of_rows.count()
        if n_parts < self.folds:
            name = "rows" if of_rows is None else of_rows.name
            raise ConfigError(f"model.teacher_folds={self.folds} needs at least as many {name} in each fit (got {n_parts}).")
        predicted = np.empty(len(rows))
        for others, fold in shuffled_folds(self.folds, rows, of_rows):
            predicted[fold] = self._fit_and_predict(table, rows[others], rows[fold])
        self._out_of_fold[key] = predicted
        return predicted

    def _fit_and_predict(self, table: Table, fit_rows: Rows, rows: Rows) -> Vector:
        teacher = self._create()
        if not callable(getattr(teacher, "fit", None)):
            raise ConfigError(
                f"model.teacher_folds={self.folds} needs a teacher with fit(DataFrame, targets) (got {_name_of(teacher)})."
                " If it is fitted already, set model.teacher_folds=null."
            )
        require_weighted_fit(KEY, teacher, weight_column(table.schema))
        weight = sample_weight(teacher, table.weight_of(fit_rows))
        _with_reason(teacher, "fit", lambda: teacher.fit(_frame(table, fit_rows), table.target[fit_rows], **weight))
        return _predict(teacher, table, rows)

    def _create(self) -> Any:
        teacher = self.create()
        if not callable(getattr(teacher, "predict", None)):
            raise ConfigError(f"{KEY} must be a model with predict(DataFrame) (got {_name_of(teacher)}).")
        return teacher


def _frame(table: Table, rows: Rows) -> pd.DataFrame:
    """Return the features of some rows as a request has them: numbers, words of levels, texts and dates, None if missing."""
    names = [column.name for column in table.schema.features]
    return pd.DataFrame(table.schema.decode(table.matrix[rows], table.texts_of(rows)), columns=names)


def _predict(teacher: Any, table: Table, rows: Rows, hint: str = "") -> Vector:
    """Return a prediction for each of some rows, within the bounds of the target. Raises ConfigError for any other result."""
    result = _with_reason(teacher, "predict", lambda: teacher.predict(_frame(table, rows)), hint)
    name = _name_of(teacher)
    try:
        predicted: NDArray[np.float64] = np.asarray(result, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{KEY}: predict of {name} must return a number for each row (got {type(result).__name__}).") from error
    if predicted.shape not in ((len(rows),), (len(rows), 1)):
        raise ConfigError(
            f"{KEY}: predict of {name} must return a number for each of {len(rows):,} rows (got the shape {predicted.shape})."
        )
    predicted = predicted.reshape(-1)
    faulty = np.flatnonzero(~np.isfinite(predicted))
    if faulty.size:
        raise ConfigError(
            f"{KEY}: predict of {name} must return finite numbers (got {predicted[faulty[0]]} for {faulty.size:,} of"
            f" {len(rows):,} rows, the first in row {rows[faulty[0]]} of the table, counted from 0)."
        )
    return clip_to_bounds(table.schema, predicted)


def _with_reason(teacher: Any, method: str, call: Callable[[], Any], hint: str = "") -> Any:
    """Call a method of a teacher, which is foreign code. Raises ConfigError with its reason if it fails."""
    try:
        return call()
    except Exception as error:  # pylint: disable=broad-exception-caught  # a teacher may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")
        raise ConfigError(f"{KEY}: {method} of {_name_of(teacher)} failed: {reason}. {hint}".rstrip()) from error


def _name_of(teacher: Any) -> str:
    steps = getattr(teacher, "steps", None)
    name = type(teacher).__name__
    return f"{name} of {', '.join(type(step).__name__ for _, step in steps)}" if isinstance(steps, list) else name
