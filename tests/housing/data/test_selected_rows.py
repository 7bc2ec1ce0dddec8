"""Selected rows: what is read from them equals the same part of a copy of the rows, in values and in the order in memory."""

from typing import Any

import numpy as np
import pytest

from housing.data.selected_rows import SelectedRows, select_rows

MATRIX = np.arange(60.0).reshape(12, 5)
ROWS = np.array([1, 3, 4, 8, 11])


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(1, 4),
        np.array([0, 4]),
        (slice(None), 2),
        (slice(1, 3), [0, 4]),
        (slice(None), [3]),
        (slice(None), list[int]()),
    ],
)
def test_selected_rows_are_indexed_like_a_copy_of_them(key: Any) -> None:
    selected, copied = SelectedRows(MATRIX, ROWS)[key], MATRIX[ROWS][key]
    np.testing.assert_array_equal(selected, copied)
    assert selected.shape == copied.shape
    if copied.ndim == 2 and min(copied.shape) > 1:  # the order decides how sums of linear models are rounded
        assert selected.strides == copied.strides


def test_a_selection_has_the_shape_of_the_rows_and_later_sees_the_matrix() -> None:
    matrix = MATRIX.copy()
    selected = select_rows(matrix, ROWS)
    matrix[3, 2] = -1.0
    assert (len(selected), selected.shape) == (5, (5, 5))
    assert selected[:, 2].tolist() == [7.0, -1.0, 22.0, 42.0, 57.0]
