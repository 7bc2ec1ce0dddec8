"""Search of the prediction log by request id: an id names the time and the worker, so one file, rarely two, is scanned.

Two files are candidates if another was started soon after the request: an entry is written some moments after its id is made.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from server.prediction_log import request_id
from server.prediction_log.reader import Entry
from server.prediction_log.rotating_file import PREDICTIONS, iter_lines, list_files, started_at

ID_SLICE = slice(len('{"id":"'), len('{"id":"0193f5c2a1b3-01-0000002a'))  # the position of the id in a line


def candidate_files(directory: Path, request_ids: Iterable[str], max_delay: float) -> dict[Path, set[bytes]]:
    """Return the files that may hold the entries of requests, with the ids to look for in each.

    An entry may have been written up to `max_delay` seconds after its id was made.
    """
    candidates: dict[Path, set[bytes]] = defaultdict(set)
    files_of_worker: dict[int, list[Path]] = {}
    for name in request_ids:
        moment, worker = request_id.parse_request_id(name)
        if worker not in files_of_worker:
            files_of_worker[worker] = list_files(directory, f"{PREDICTIONS}-{worker}")
        for path in _files_around(files_of_worker[worker], moment, max_delay):
            candidates[path].add(name.encode())
    return candidates


def scan(path: Path, request_ids: set[bytes]) -> Iterator[Entry]:
    """Yield the entries of these requests in a file of the log."""
    for line in iter_lines(path):
        if line[ID_SLICE] in request_ids:
            yield orjson.loads(line)


def _files_around(paths: list[Path], moment: float, max_delay: float) -> list[Path]:
    """Return those of a worker's files, oldest first, that may hold an entry of this moment."""
    starts = [started_at(path) for path in paths]
    first = max(bisect_right(starts, moment) - 1, 0)
    return paths[first : bisect_right(starts, moment + max_delay)]
