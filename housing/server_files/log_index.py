"""Search of the prediction log by request ID. An ID names time and worker, so only one or two files are read.

It takes some moments from the ID to its entry in the log; if the file is rotated meanwhile, the next one is read too.
"""

import os
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from housing.server_files.request_id import parse_request_id
from housing.server_files.rotating_file import PREDICTIONS, list_files, started_at

CHUNK_BYTES = 65536  # shorter parts of a file are read line by line
ID_SLICE = slice(len('{"id":"'), len('{"id":"0193f5c2a1b3-01-0000002a'))  # the ID within a line


def candidate_files(folder: Path, request_ids: Iterable[str], delay: float) -> dict[Path, set[bytes]]:
    """Return the files that can hold the entries of requests, with the IDs to search for in each.

    `delay` is the longest time in seconds between an ID and its entry.
    """
    candidates: dict[Path, set[bytes]] = defaultdict(set)
    files_by_worker: dict[int, tuple[list[Path], list[float]]] = {}  # oldest first, with their start times
    for request_id in request_ids:
        moment, worker = parse_request_id(request_id)
        if worker not in files_by_worker:
            paths = list_files(folder, f"{PREDICTIONS}-{worker}")
            files_by_worker[worker] = paths, [started_at(path) for path in paths]
        paths, starts = files_by_worker[worker]
        first = max(bisect_right(starts, moment) - 1, 0)
        for path in paths[first : bisect_right(starts, moment + delay)]:
            candidates[path].add(request_id.encode())
    return candidates


def find_unknown_ids(folder: Path, request_ids: Iterable[str], delay: float) -> list[str]:
    """Return the request IDs that are not in the log and can no longer appear there, sorted."""
    now = time.time()  # a younger entry may still be on its way
    settled = {request_id for request_id in request_ids if abs(now - parse_request_id(request_id)[0]) > delay}
    for path, names in candidate_files(folder, settled, delay).items():
        settled -= _ids_in_file(path, names, delay)
    return sorted(settled)


def _ids_in_file(path: Path, request_ids: Iterable[bytes], delay: float) -> set[str]:
    logged: set[bytes] = set()
    try:
        with path.open("rb") as file:
            for group in _group_by_time(request_ids, delay):
                logged |= _search(file, group, delay)
    except FileNotFoundError:  # it was removed for its age
        pass
    return {request_id.decode() for request_id in logged}


def _group_by_time(request_ids: Iterable[bytes], delay: float) -> Iterator[list[bytes]]:
    """Yield sorted IDs in groups. The entries of a group are so close together that one pass finds all of them."""
    group: list[bytes] = []
    for request_id in sorted(request_ids):
        if group and _moment(request_id) - _moment(group[-1]) > delay:
            yield group
            group = []
        group.append(request_id)
    yield group


def _search(file: BinaryIO, request_ids: Sequence[bytes], delay: float) -> set[bytes]:
    """Return those of the sorted IDs that a file has. Its lines are in the order of their times, except for `delay`."""
    missing, end = set(request_ids), _moment(request_ids[-1]) + delay
    _seek(file, _moment(request_ids[0]) - delay)
    for line in file:
        line_id = line[ID_SLICE]
        missing.discard(line_id)
        # the comparison of bytes is fast, but a damaged line may pass it
        if not missing or (line_id > request_ids[-1] and (_line_moment(line) or 0.0) > end):
            break
    return set(request_ids) - missing


def _seek(file: BinaryIO, moment: float) -> None:
    """Seek a line before the first one of a moment, by bisection."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > CHUNK_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()  # the rest of a line
        line_moment = _line_moment(file.readline())
        low, high = (middle, high) if line_moment is not None and line_moment < moment else (low, middle)
    file.seek(low)


def _moment(request_id: bytes) -> float:
    return parse_request_id(request_id.decode())[0]


def _line_moment(line: bytes) -> float | None:
    """Return the time of the request of a line, or None for a damaged line."""
    try:
        return _moment(line[ID_SLICE])
    except ValueError:
        return None
