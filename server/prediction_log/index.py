"""Search of the prediction log by request ID. An ID names time and worker, so only one or two files are read.

It takes some moments from the ID to its entry in the log; if the file is rotated meanwhile, the next one is read too.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from server.prediction_log.reader import Entry, parse_entry
from server.prediction_log.request_id import parse_request_id
from server.prediction_log.rotating_file import PREDICTIONS, iter_lines, list_files, started_at

ID_SLICE = slice(len('{"id":"'), len('{"id":"0193f5c2a1b3-01-0000002a'))  # the ID within a line


def candidate_files(folder: Path, request_ids: Iterable[str], delay: float) -> dict[Path, set[bytes]]:
    """Return the files that can hold the entries of requests, with the IDs to search for in each.

    `delay` is the longest time in seconds between an ID and its entry.
    """
    candidates: dict[Path, set[bytes]] = defaultdict(set)
    files_by_worker: dict[int, list[Path]] = {}
    for request_id in request_ids:
        moment, worker = parse_request_id(request_id)
        if worker not in files_by_worker:
            files_by_worker[worker] = list_files(folder, f"{PREDICTIONS}-{worker}")
        for path in _files_at(files_by_worker[worker], moment, delay):
            candidates[path].add(request_id.encode())
    return candidates


def scan(path: Path, request_ids: set[bytes]) -> Iterator[tuple[str, Entry | None]]:
    """Yield the entries of requests from a file of the log, by request ID; None for a damaged entry."""
    for line in iter_lines(path):
        if line[ID_SLICE] in request_ids:
            try:
                entry = parse_entry(line)
            except ValueError:
                entry = None
            yield line[ID_SLICE].decode(), entry


def _files_at(paths: list[Path], moment: float, delay: float) -> list[Path]:
    """Select from a worker's files, oldest first, those written between a moment and `delay` seconds later."""
    starts = [started_at(path) for path in paths]
    first = max(bisect_right(starts, moment) - 1, 0)
    return paths[first : bisect_right(starts, moment + delay)]
