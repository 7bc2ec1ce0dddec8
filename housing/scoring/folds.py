"""Folds that keep the rows of a unit together: a row of a customer says too much about the customer's other rows."""

from collections.abc import Iterable

import numpy as np

from housing.data.split import Rows
from housing.data.units import Units

MIN_FOLDS = 2  # scikit-learn's


def shuffled_folds(n_folds: int, rows: Rows, units: Units | None) -> Iterable[tuple[Rows, Rows]]:
    """Return for each fold the indices, among `rows`, of the other rows and of the fold. `units` are those of `rows`."""
    from sklearn.model_selection import GroupKFold, KFold  # pylint: disable=import-outside-toplevel  # takes seconds to import

    if units is None:
        return KFold(n_folds, shuffle=True, random_state=0).split(rows)
    return GroupKFold(n_folds, shuffle=True, random_state=0).split(rows, groups=units.of_row)


def selection_folds(n_folds: int, rows: Rows, validation: Rows, units: Units | None) -> list[tuple[Rows, Rows]]:
    """Return the rows of the fit and those of the fold for all folds but the first, which is the validation rows.

    There are none for rows that are ordered in time: a fit would know the future. `units` are those of the table.
    """
    units_of_rows = None if units is None else units.take(rows)
    if units_of_rows is not None and units_of_rows.times is not None:
        return []
    n_others = min(n_folds - 1, len(rows) if units_of_rows is None else units_of_rows.count())
    if n_others < MIN_FOLDS:
        return []
    folds = shuffled_folds(n_others, rows, units_of_rows)
    return [(np.sort(np.concatenate([rows[others], validation])), rows[fold]) for others, fold in folds]
