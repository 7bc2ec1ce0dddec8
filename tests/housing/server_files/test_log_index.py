"""Request IDs are found in the files of the prediction log."""

import time
from pathlib import Path

from housing.server_files.log_index import find_unknown_ids
from tests.support.feedback import append, entry


def test_request_ids_are_found_in_large_files(tmp_path: Path) -> None:
    """Entries are out of order by less than the delay, and one line is damaged."""
    start = time.time_ns() // 1_000_000 - 3_600_000
    jitter = [0, 900, -700, 300]
    names = [f"{start + 500 * index + jitter[index % 4]:012x}-00-{index:08x}" for index in range(5000)]
    append(tmp_path, "predictions-0", *(entry(name, [1.0]) for name in names[:2500]), "damaged" * 50)
    append(tmp_path, "predictions-0", *(entry(name, [1.0]) for name in names[2500:]))
    (path,) = tmp_path.glob("*.jsonl")
    path.rename(path.with_name("predictions-0-20200101T000000.000000Z.jsonl"))
    absent = [f"{name[:-1]}{'0' if name[-1] != '0' else '1'}" for name in names[::100]]
    absent = sorted(set(absent) - set(names))
    assert find_unknown_ids(tmp_path, [*names[::7], names[-1], *absent], delay=2.0) == absent
