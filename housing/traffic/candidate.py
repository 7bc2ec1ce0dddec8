"""The candidate: validates and predicts logged rows as a server with its bundle would."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.bundle.bundle import Bundle
from housing.core.errors import GOT_VALUE
from housing.schema.column import MISSING, Column, Matrix, Vector
from housing.traffic.logged_rows import Batch
from server.validation.marshmallow_schema import UNKNOWN
from server.validation.request_body import Rows
from server.validation.rows import RowValidator

MAX_REASONS = 1000  # of refused rows; a damaged log could have more
OTHER_REASON = ("other", "Any other reason.")


@dataclass(frozen=True)
class Predicted:
    """The rows of a batch that the candidate accepts.

    Attributes
    ----------
    accepted
        Which rows of the batch these are, shape (rows of the batch,).
    matrix
        Their features, shape (accepted rows, features + components).
    predictions
        The candidate's predictions for them, shape (accepted rows,).
    """

    accepted: NDArray[np.bool_]
    matrix: Matrix
    predictions: Vector


@dataclass
class CandidateCounts:
    """Rows that were predicted and refused, and the processor time that they took.

    Attributes
    ----------
    refused
        Rows that the candidate's schema refuses.
    reasons
        How many of them each reason concerns, by column and reason. A row can have several.
    validation_seconds, prediction_seconds
        Processor time of all rows, and of the predicted ones.
    """

    predicted: int = 0
    refused: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    validation_seconds: float = 0.0
    prediction_seconds: float = 0.0

    def count_reason(self, column: str, reason: str, rows: int) -> None:
        """Count a reason for which rows are refused."""
        key = (column, reason)
        self.reasons[key if key in self.reasons or len(self.reasons) < MAX_REASONS else OTHER_REASON] += rows


class Candidate:
    """A bundle that predicts logged rows, and what it did with them."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.counts = bundle, CandidateCounts()
        self._validator = RowValidator(bundle.schema)
        self._features = {column.name: column for column in bundle.schema.features}
        self._unused = {column.name for column in bundle.schema.unused}

    def predict(self, batch: Batch) -> Predicted:
        """Predict the rows of a batch. Count those that the schema refuses, by reason."""
        start = time.process_time()
        accepted, matrix = self._encode(batch.columns, batch.rows)
        validated = time.process_time()
        predictions = self.bundle.predict(matrix) if len(matrix) else np.empty(0)
        self.counts.validation_seconds += validated - start
        self.counts.prediction_seconds += time.process_time() - validated
        self.counts.predicted += len(matrix)
        self.counts.refused += len(batch.rows) - len(matrix)
        return Predicted(accepted, matrix, predictions)

    def _encode(self, columns: Sequence[str], rows: list[list[Any]]) -> tuple[NDArray[np.bool_], Matrix]:
        """Return which rows are accepted, and their features."""
        faults = list(self._column_faults(columns))
        if faults:  # a server would refuse every request with these columns
            for column, reason in faults:
                self.counts.count_reason(column, reason, len(rows))
            return np.zeros(len(rows), dtype=bool), self._empty()
        rows = self._arrange(columns, rows)
        matrix = self._try_encode(rows)
        if matrix is not None:
            return np.ones(len(rows), dtype=bool), matrix
        accepted = np.array([self._is_valid(row) for row in rows])
        valid = [row for row, is_valid in zip(rows, accepted, strict=True) if is_valid]
        matrix = self._try_encode(valid) if valid else self._empty()
        assert matrix is not None, f"The checks of columns and values disagree about these rows: {valid[:3]}"
        return accepted, matrix

    def _column_faults(self, columns: Sequence[str]) -> list[tuple[str, str]]:
        known = self._features.keys() | self._unused
        faults = [(name, MISSING) for name, column in self._features.items() if name not in columns and not column.nullable]
        return faults + [(name, UNKNOWN) for name in columns if name not in known]

    def _arrange(self, columns: Sequence[str], rows: list[list[Any]]) -> list[list[Any]]:
        """Return rows with the values of the features in their order, and None for an absent one."""
        names = self._validator.column_names
        if list(columns) == names:
            return rows
        indices = [columns.index(name) if name in columns else -1 for name in names]
        return [[None if index < 0 else row[index] for index in indices] for row in rows]

    def _try_encode(self, rows: list[list[Any]]) -> Matrix | None:
        return self._validator.try_encode(Rows(self._validator.column_names, rows, 0))

    def _empty(self) -> Matrix:
        return np.empty((0, len(self._features)))

    def _is_valid(self, row: Sequence[Any]) -> bool:
        """Return whether the schema accepts a row, and count the reasons why not."""
        reasons = [
            (column, reason)
            for column, value in zip(self._features.values(), row, strict=True)
            if (reason := column.validate(value)) is not None
        ]
        for column, reason in reasons:
            self.counts.count_reason(column.name, _without_value(column, reason), 1)
        return not reasons


def _without_value(column: Column, reason: str) -> str:
    """Return a reason without the value that a caller sent: values would make one reason of each row."""
    text = GOT_VALUE.split(reason)[0].rstrip(".")
    return f"{text}." if text else f"Not a value of type {column.type}."
