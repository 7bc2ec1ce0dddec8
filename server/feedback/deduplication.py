"""Which rows of requests have been counted: a file beside each file of the prediction log, which goes when that does.

A file only grows, and the joiner's state says how far it holds: what lies beyond was written by a step that was cut off.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from server.prediction_log.index import ID
from server.prediction_log.rotating_file import COUNTED, PREDICTIONS, list_files, iter_lines

Row = tuple[str, int]  # the id of a request, and the place of the row in it


class Counted:
    """The counted rows of one file of the prediction log; in memory are only those that somebody wants to know of."""

    def __init__(self, predictions: Path, ends: Mapping[str, int], names: set[bytes], wanted: set[Row]) -> None:
        """Read the file beside that of the predictions, as far as `ends` says by its name; `names` are ids of wanted rows."""
        self.path = _beside(predictions)
        kept = self.path.stat().st_size if self.path.exists() else 0  # less than was said, where somebody cut it off
        self._end = min(ends.get(self.path.name, 0), kept)
        self._rows = wanted.intersection(self._held(names))
        self._new: dict[str, list[int]] = defaultdict(list)

    def _held(self, names: set[bytes]) -> Iterator[Row]:
        place = 0
        for line in iter_lines(self.path):
            place += len(line)
            if place > self._end:
                break
            if line[ID] in names:
                held = orjson.loads(line)
                yield from ((held["id"], row) for row in held["rows"])

    def add(self, name: str, row: int) -> bool:
        """Have a row be counted; say whether it had not been."""
        if (name, row) in self._rows:
            return False
        self._rows.add((name, row))
        self._new[name].append(row)
        return True

    def keep(self) -> int:
        """Write what was added to the disk, and give how far the file holds then."""
        new = b"".join(orjson.dumps({"id": name, "rows": rows}) + b"\n" for name, rows in self._new.items())
        if new:
            with self.path.open("ab") as file:
                file.truncate(self._end)
                file.write(new)
                file.flush()
                os.fsync(file.fileno())
        return self._end + len(new)


def remove_gone(folder: Path, ends: Mapping[str, int]) -> dict[str, int]:
    """Remove the files whose part of the prediction log is gone: nothing can be counted of it any more. Give the other ends."""
    parts = {_beside(path) for path in list_files(folder, PREDICTIONS)}
    for path in list_files(folder, COUNTED):
        if path not in parts:
            path.unlink()
    return {name: end for name, end in ends.items() if folder / name in parts}


def _beside(predictions: Path) -> Path:
    return predictions.with_name(predictions.name.replace(PREDICTIONS, COUNTED, 1))
