"""Array files: numpy reads them, large arrays are views of the file, and nothing but plain arrays is read."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from housing.bundle.array_files import ALIGNMENT, MIN_MAPPED_BYTES, read_arrays, write_arrays
from housing.features.kd_tree import NODE

LARGE = MIN_MAPPED_BYTES // 8
ARRAYS: dict[str, NDArray[Any]] = {
    "small": np.arange(3),
    "numbers": np.linspace(0, 1, LARGE + 3),
    "table": np.arange(2.0 * LARGE).reshape(-1, 2),
    "columns": np.asfortranarray(np.arange(2.0 * LARGE).reshape(-1, 2)),
    "nodes": np.ones(LARGE, dtype=NODE),
    "empty": np.empty((0, 4)),
    "codes": np.arange(LARGE * 2, dtype=np.uint32),
}


def is_mapped(array: NDArray[Any]) -> bool:
    """Return whether an array is a view of a file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def test_large_arrays_are_aligned_views_of_the_file_that_no_one_can_change(tmp_path: Path) -> None:
    write_arrays(tmp_path / "arrays.npz", ARRAYS)
    arrays = read_arrays(tmp_path / "arrays.npz")
    assert list(arrays) == list(ARRAYS)
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])
        if ARRAYS[name].nbytes >= MIN_MAPPED_BYTES:
            assert is_mapped(array) and not isinstance(array, np.memmap) and not array.flags.writeable, name
            assert array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous, name


def test_numpy_reads_the_file_and_its_bytes_depend_on_the_arrays_alone(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        write_arrays(tmp_path / name, ARRAYS)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as loaded:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_that_numpy_wrote_are_read(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "arrays.npz", **ARRAYS)
    arrays = read_arrays(tmp_path / "arrays.npz")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_views_stay_valid_if_the_file_is_written_again_or_deleted(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    write_arrays(path, ARRAYS)
    arrays = read_arrays(path)
    write_arrays(path, {"other": np.zeros(1)})
    path.unlink()
    np.testing.assert_array_equal(arrays["numbers"], ARRAYS["numbers"])


def test_an_array_that_needs_pickle_is_neither_written_nor_read(tmp_path: Path) -> None:
    objects = np.array([{}] * LARGE * 2, dtype=object)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        write_arrays(tmp_path / "arrays.npz", {"objects": objects})
    np.savez(tmp_path / "arrays.npz", objects=objects)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_arrays(tmp_path / "arrays.npz")


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    write_arrays(tmp_path / "arrays.npz", ARRAYS)
    content = (tmp_path / "arrays.npz").read_bytes()
    (tmp_path / "arrays.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(Exception, match="zip file"):
        read_arrays(tmp_path / "arrays.npz")
