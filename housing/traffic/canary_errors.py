"""Errors of a canary and its champion on the same rows, whichever of them answered: each predicts the other's rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from housing.bundle.bundle import Bundle
from housing.core.canary import Canary
from housing.feedback.log_reader import LogFilter
from housing.schema.column import Vector
from housing.traffic.candidate import Candidate
from housing.traffic.labelled_rows import LabelledRows, read_labelled_rows


@dataclass(frozen=True)
class PairedErrors:
    """Errors on rows with true values, in the order in which these arrived.

    Attributes
    ----------
    units
        The independent group of each row, numbered by arrival: rows of one request, or equal rows, may depend on each other.
    refused
        Rows that one of the versions answered and the other refuses.
    """

    canary: Vector
    champion: Vector
    units: NDArray[np.intp]
    refused: int


def read_paired_errors(folder: Path, canary: Canary, canary_bundle: Bundle, champion_bundle: Bundle) -> PairedErrors:
    """Read the joined rows of the requests since the canary began, and predict each with the version that did not answer it."""
    of_champion, refused = _read(folder, canary, canary.champion, canary_bundle)
    of_canary, also_refused = _read(folder, canary, canary.version, champion_bundle)
    rows = LabelledRows(
        np.concatenate([of_champion.request, of_canary.request]),
        np.concatenate([of_champion.row_hash, of_canary.row_hash]),
        np.concatenate([of_champion.arrived, of_canary.arrived]),
        np.concatenate([of_champion.actual, of_canary.actual]),
        np.concatenate([of_champion.logged, of_canary.candidate]),
        np.concatenate([of_champion.candidate, of_canary.logged]),
    )
    rows = rows.take(np.lexsort((rows.request, rows.arrived)))
    return PairedErrors(rows.candidate - rows.actual, rows.logged - rows.actual, _by_arrival(rows), refused + also_refused)


def _read(folder: Path, canary: Canary, version: str, other: Bundle) -> tuple[LabelledRows, int]:
    return read_labelled_rows(folder, LogFilter(since=canary.since, version=version), Candidate(other))


def _by_arrival(rows: LabelledRows) -> NDArray[np.intp]:
    """Return the unit of each row, numbered by the arrival of its first true value."""
    _, first, units = np.unique(rows.units.of_row, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[units]
