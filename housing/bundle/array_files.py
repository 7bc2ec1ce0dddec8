"""Arrays in npz files, aligned and not compressed, so that all processes that read a file share one copy of its arrays."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # bytes, as numpy aligns the data within an array's file
MIN_MAPPED_BYTES = 1 << 16  # a smaller array costs less to copy than to map
LOCAL_HEADER = struct.Struct("<26xHH")  # of a file in a zip archive: the lengths of its name and of its extra field
EXTRA_FIELD = struct.Struct("<HH")  # its identifier and its length
PADDING = 0xD935  # identifies an extra field of zeros that aligns what follows


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as an npz file that `numpy.load` reads too. Raises ValueError for an array that needs pickle."""
    path.unlink(missing_ok=True)  # never overwritten: a process that has mapped the old file would be killed
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            start = file.tell() + LOCAL_HEADER.size + len(entry.filename.encode()) + EXTRA_FIELD.size
            n_zeros = -start % ALIGNMENT
            entry.extra = EXTRA_FIELD.pack(PADDING, n_zeros) + bytes(n_zeros)
            with archive.open(entry, "w", force_zip64=False) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an npz file. Large ones are mapped into memory, read-only.

    The file must not be changed while the arrays are in use; it may be deleted.

    Raises
    ------
    ValueError
        If the file is no such archive, or for an array that needs pickle, which could run code.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as loaded, path.open("rb") as file:
            for name in loaded.files:
                entry = archive.getinfo(f"{name}.npy")
                mapped = None if entry.file_size < MIN_MAPPED_BYTES else _map(file, entry)
                arrays[name] = loaded[name] if mapped is None else mapped
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path.name} is no archive of arrays: {error}") from error
    return arrays


def _map(file: IO[bytes], entry: zipfile.ZipInfo) -> NDArray[Any] | None:
    """Return an array of an archive as a view of the file, or None if it is compressed, not aligned or no plain array."""
    file.seek(entry.header_offset)
    name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    start = entry.header_offset + LOCAL_HEADER.size + name_length + extra_length
    file.seek(start)
    if entry.compress_type != zipfile.ZIP_STORED or np.lib.format.read_magic(file) != (1, 0):
        return None
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    offset = file.tell()
    if dtype.hasobject or is_fortran or offset % ALIGNMENT or offset - start + _n_bytes(shape, dtype) != entry.file_size:
        return None  # numpy reads it, or refuses it
    return np.memmap(file, dtype, "r", offset, shape).view(np.ndarray)


def _n_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape, dtype=object)) * dtype.itemsize
