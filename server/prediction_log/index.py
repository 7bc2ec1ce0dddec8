"""Search of the prediction log by request ID. An ID names time and worker, so only one or two files are read.

It takes some moments from the ID to its entry in the log; if the file is rotated meanwhile, the next one is read too.
"""

import os
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from server.prediction_log.reader import Entry, parse_entry
from server.prediction_log.request_id import parse_request_id
from server.prediction_log.rotating_file import PREDICTIONS, iter_lines, list_files, started_at

CHUNK_BYTES = 65536  # shorter parts of a file are read line by line
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


def find_unknown_ids(folder: Path, request_ids: Iterable[str], delay: float) -> list[str]:
    """Return the request IDs that are not in the log and can no longer appear there, sorted."""
    now = time.time()  # a younger entry may still be on its way
    settled = {request_id for request_id in request_ids if abs(now - parse_request_id(request_id)[0]) > delay}
    for path, names in candidate_files(folder, settled, delay).items():
        settled -= _ids_in_file(path, names, delay)
    return sorted(settled)


def _ids_in_file(path: Path, request_ids: Iterable[bytes], delay: float) -> set[str]:
    try:
        with path.open("rb") as file:
            return {request_id.decode() for request_id in request_ids if _contains(file, request_id, delay)}
    except FileNotFoundError:  # it was removed for its age
        return set()


def _contains(file: BinaryIO, request_id: bytes, delay: float) -> bool:
    """Search a file by bisection: its lines are in the order of their times, except for `delay`."""
    moment = parse_request_id(request_id.decode())[0]
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > CHUNK_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()  # the rest of a line
        line_moment = _line_moment(file.readline())
        low, high = (middle, high) if line_moment is not None and line_moment < moment - delay else (low, middle)
    file.seek(low)
    for line in file:
        if line[ID_SLICE] == request_id:
            return True
        if (_line_moment(line) or 0.0) > moment + delay:
            return False
    return False


def _line_moment(line: bytes) -> float | None:
    """Return the time of the request of a line, or None for a damaged line."""
    try:
        return parse_request_id(line[ID_SLICE].decode())[0]
    except ValueError:
        return None


def _files_at(paths: list[Path], moment: float, delay: float) -> list[Path]:
    """Select from a worker's files, oldest first, those written between a moment and `delay` seconds later."""
    starts = [started_at(path) for path in paths]
    first = max(bisect_right(starts, moment) - 1, 0)
    return paths[first : bisect_right(starts, moment + delay)]
