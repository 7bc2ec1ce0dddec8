"""Folds that keep the rows of a unit together: a row of a customer says too much about the customer's other rows."""

from collections.abc import Iterable

from housing.data.split import Rows
from housing.data.units import Units


def shuffled_folds(n_folds: int, rows: Rows, units: Units | None) -> Iterable[tuple[Rows, Rows]]:
    """Return for each fold the indices, among `rows`, of the other rows and of the fold. `units` are those of `rows`."""
    from sklearn.model_selection import GroupKFold, KFold  # pylint: disable=import-outside-toplevel  # takes seconds to import

    if units is None:
        return KFold(n_folds, shuffle=True, random_state=0).split(rows)
    return GroupKFold(n_folds, shuffle=True, random_state=0).split(rows, groups=units.of_row)
