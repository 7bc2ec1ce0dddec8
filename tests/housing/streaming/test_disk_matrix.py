"""Matrix on disk: it is indexed like an array, and only the selected rows are read."""

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from housing.bundle.ensemble import CHUNK, in_chunks
from housing.core.errors import DiskFullError, HousingError
from housing.schema.column import Matrix
from housing.streaming.disk_matrix import UNSEEN, ColumnFile, DiskMatrix

N_ROWS = 3 * CHUNK


@pytest.fixture(name="array", scope="module")
def fixture_array() -> Matrix:
    """Return numbers of three columns."""
    return np.random.default_rng(0).normal(size=(N_ROWS, 3))


@pytest.fixture(name="matrix", scope="module")
def fixture_matrix(array: Matrix) -> DiskMatrix:
    """Return the same numbers on disk, written in two parts."""
    file = ColumnFile(N_ROWS, 3)
    file.write(0, array[:1000])
    file.write(1000, array[1000:])
    return DiskMatrix(file, N_ROWS)


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(10, 20),
        [5, N_ROWS - 1, 7],  # far apart: single numbers are read
        np.arange(0, N_ROWS, 2),
        np.random.default_rng(1).permutation(N_ROWS),
        np.arange(N_ROWS) % 3 == 0,
        np.empty(0, dtype=np.intp),
    ],
    ids=["all", "slice", "few", "even", "shuffled", "mask", "none"],
)
def test_rows_and_columns_are_those_of_the_array(rows: object, array: Matrix, matrix: DiskMatrix) -> None:
    expected = array[rows]  # type: ignore[call-overload]
    assert np.array_equal(matrix[rows][:], expected)
    assert np.array_equal(matrix[rows, 1], expected[:, 1])
    assert np.array_equal(matrix[rows, [2, 0]], expected[:, [2, 0]])
    assert np.array_equal(matrix[rows][:, (0, 1)], expected[:, :2])
    assert np.array_equal(matrix[rows][:, :2], expected[:, :2])
    assert len(matrix[rows]) == len(expected)


def test_blocks_of_a_long_column_are_read_one_after_the_other(
    array: Matrix, matrix: DiskMatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("housing.streaming.disk_matrix.BLOCK_ROWS", 100)
    rows = np.random.default_rng(2).permutation(N_ROWS)[: N_ROWS // 2]
    assert np.array_equal(matrix[rows, 2], array[rows, 2])


def test_many_rows_stay_on_disk_until_a_slice_of_them_is_read(array: Matrix, matrix: DiskMatrix) -> None:
    rows = np.arange(1, N_ROWS, 2)
    selected = matrix[rows]
    assert isinstance(selected, DiskMatrix)
    assert isinstance(selected[:100], np.ndarray) and isinstance(selected[rows[:100]], np.ndarray)
    assert np.array_equal(in_chunks(lambda part: (part.sum(axis=1),), cast(Matrix, selected))[0], array[rows].sum(axis=1))
    with pytest.raises(HousingError, match="12,000 rows in memory"):
        np.isnan(selected)


def test_levels_get_other_codes_when_they_are_read() -> None:
    file = ColumnFile(4, 1)
    file.write(0, np.array([[0.0], [1.0], [UNSEEN], [np.nan]]))
    matrix = DiskMatrix(file, 4).with_codes({0: np.array([7.0, 5.0, 9.0, np.nan])})  # of two levels, unseen and missing
    assert np.array_equal(matrix[:, 0], [7.0, 5.0, 9.0, np.nan], equal_nan=True)


def test_the_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = ColumnFile(10, 1)
    file.write(0, np.ones((10, 1)))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_noticed_before_the_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(DiskFullError, match=r"needs 0.2 GB .* Set the environment variable TMPDIR"):
        ColumnFile(10**6, 20)
