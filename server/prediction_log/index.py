"""Finds predictions in the log by the ids of their requests: an id tells when and which worker, so one file is searched.

Or two, where another was begun soon after: an entry is written some moments later than its id is made.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from server.prediction_log import request_id
from server.prediction_log.reader import Entry
from server.prediction_log.rotating_file import PREDICTIONS, started_at, list_files, iter_lines

ID = slice(len('{"id":"'), len('{"id":"0193f5c2a1b3-01-0000002a'))  # of a line: its entry's id


def files_of(folder: Path, ids: Iterable[str], delay: float) -> dict[Path, set[bytes]]:
    """Give the files that can hold the entries of requests, with the ids to be looked for in each.

    It may have taken `delay` seconds until an entry was written.
    """
    wanted: dict[Path, set[bytes]] = defaultdict(set)
    of_slot: dict[int, list[Path]] = {}
    for name in ids:
        moment, slot = request_id.parse_request_id(name)
        if slot not in of_slot:
            of_slot[slot] = list_files(folder, f"{PREDICTIONS}-{slot}")
        for path in _candidates(of_slot[slot], moment, delay):
            wanted[path].add(name.encode())
    return wanted


def search(path: Path, names: set[bytes]) -> Iterator[Entry]:
    """Give the entries of requests that a file of the log holds."""
    for line in iter_lines(path):
        if line[ID] in names:
            yield orjson.loads(line)


def _candidates(paths: list[Path], moment: float, delay: float) -> list[Path]:
    """Give those of a worker's files, oldest first, that can hold what was predicted at a moment."""
    starts = [started_at(path) for path in paths]
    first = max(bisect_right(starts, moment) - 1, 0)
    return paths[first : bisect_right(starts, moment + delay)]
