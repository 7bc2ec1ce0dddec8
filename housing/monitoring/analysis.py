"""Analyses of the monitor: what each of them receives, and what it returns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from housing.bundle.bundle import Bundle
from housing.schema.column import Matrix, Vector

State = dict[str, Any]  # of one analysis and version; it is stored as JSON


@dataclass(frozen=True)
class LoggedRow:
    """A row of the prediction log.

    Attributes
    ----------
    time
        When it was predicted, or when its true value arrived (Unix seconds).
    record
        The value of each column.
    prediction
        What the caller got.
    actual
        The true value, or NaN if it is not known.
    """

    time: float
    record: Mapping[str, Any]
    prediction: float
    actual: float = float("nan")


@dataclass(frozen=True)
class Window:
    """Rows that one version predicted, oldest first, with its bundle.

    Attributes
    ----------
    model
        The name of the model if the server has several, else empty.
    """

    model: str
    version: str
    bundle: Bundle
    rows: list[LoggedRow]

    @cached_property
    def matrix(self) -> Matrix:
        """The features, shape (rows, features + components)."""
        return self.bundle.schema.encode_records([row.record for row in self.rows])

    @cached_property
    def predictions(self) -> Vector:
        """The predictions as callers got them, shape (rows,)."""
        return np.array([row.prediction for row in self.rows], dtype=np.float64)

    @cached_property
    def actual(self) -> Vector:
        """The true values, shape (rows,). NaN where it is not known."""
        return np.array([row.actual for row in self.rows], dtype=np.float64)


class Analysis:
    """An analysis of windows, of true values, or of both. It keeps nothing: its state and results are in the database."""

    name: ClassVar[str]

    def analyse(self, window: Window, state: State) -> State | None:  # pylint: disable=unused-argument
        """Return the result of a window of WINDOW_ROWS rows, to be stored as JSON, or None if there is none."""
        return None

    def learn(self, labelled: Window, state: State) -> State:  # pylint: disable=unused-argument
        """Return the new state of a version after new rows with true values: any number of rows, at least 1."""
        return state

    # pylint: disable-next=unused-argument
    def series(self, labels: Mapping[str, str], result: State, state: State) -> Iterator[tuple[str, float]]:
        """Yield key and value of each gauge of a version, by its latest result and its state. Both may be empty."""
        yield from ()
