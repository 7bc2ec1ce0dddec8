"""Universal Binary JSON as XGBoost writes it: objects, arrays, texts, numbers and arrays of numbers of one type.

Format: https://ubjson.org, draft 12. Numbers are big-endian.
"""

from typing import Any

import numpy as np

NUMBERS = {"i": "i1", "U": "u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}  # marker -> type
CONSTANTS = {"T": True, "F": False, "Z": None}


def read_ubjson(data: bytes) -> Any:
    """Return the value that `data` holds. Arrays of numbers of one type are numpy arrays.

    Raises
    ------
    ValueError
        If a marker of a value is unknown, or if the data end too early.
    """
    try:
        return _Reader(data).read_value()
    except IndexError as error:
        raise ValueError(f"UBJSON of {len(data)} bytes ends within a value") from error


class _Reader:
    """A position in the data, which each read moves on."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def read_value(self) -> Any:
        """Read a marker and its value."""
        return self._read_value_of(self._read_marker())

    def _read_value_of(self, marker: str) -> Any:
        if marker in NUMBERS:
            return self._read_numbers(marker, 1)[0].item()
        if marker in CONSTANTS:
            return CONSTANTS[marker]
        if marker == "S":
            return self._read_text(self.read_value())
        if marker == "[":
            return self._read_array()
        if marker == "{":
            return self._read_object()
        raise ValueError(f"UBJSON has no marker {marker!r} (at byte {self._position - 1})")

    def _read_marker(self) -> str:
        self._position += 1
        return chr(self._data[self._position - 1])

    def _skip(self, marker: str) -> bool:
        """Move past a marker if it comes next, and return whether it does."""
        is_next = chr(self._data[self._position]) == marker
        self._position += is_next
        return is_next

    def _read_numbers(self, marker: str, count: int) -> Any:
        dtype = np.dtype(NUMBERS[marker])
        if self._position + count * dtype.itemsize > len(self._data):
            raise IndexError
        values = np.frombuffer(self._data, dtype, count, self._position)
        self._position += values.nbytes
        return values

    def _read_text(self, length: int) -> str:
        self._position += length
        return self._data[self._position - length : self._position].decode()

    def _read_array(self) -> Any:
        marker = self._read_marker() if self._skip("$") else None
        if self._skip("#"):
            count = self.read_value()
            if marker is not None:
                return self._read_numbers(marker, count)
            return [self.read_value() for _ in range(count)]
        values = []
        while not self._skip("]"):
            values.append(self.read_value())
        return values

    def _read_object(self) -> dict[str, Any]:
        values = {}
        while not self._skip("}"):
            key = self._read_text(self.read_value())
            values[key] = self.read_value()
        return values
