"""Feedback: valid labels are stored before they are accepted, and others are rejected with a reason."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.feedback import UNKNOWN_ID, lines, log_dir, send, send_labels
from tests.support.server import Server, assert_problem, gunicorn_alone
from tests.support.waiting import wait_for

VALID_LABEL = {"request_id": UNKNOWN_ID, "row": 0, "value": 500.0}


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"request_id": None}, "request_id", "Missing"),
        ({"request_id": 5}, "request_id", "Not a request ID such as 0193f5c2a1b3-01-0000002a."),
        ({"request_id": UNKNOWN_ID.upper()}, "request_id", "Not a request ID"),
        ({"request_id": f"../{UNKNOWN_ID}"}, "request_id", "Not a request ID"),
        ({"row": -1}, "row", "Must be at least 0 (got -1)."),
        ({"row": 0.5}, "row", "Not a whole number: 0.5."),
        ({"row": True}, "row", "Not a number: True."),
        ({"row": "0"}, "row", "Not a number: '0'."),
        ({"row": None}, "row", "Missing required value."),
        ({"row": 10_000}, "row", "Must be at most 9999 (got 10000)."),
        ({"row": 10**400}, "row", "Not a finite number"),
        ({"value": None}, "value", "Missing required value."),
        ({"value": "500"}, "value", "Not a number: '500'."),
        ({"value": False}, "value", "Not a number: False."),
        ({"value": 1e999}, "value", "Not a finite number: inf."),
        ({"value": 10**400}, "value", "Not a finite number"),
        ({"value": [1]}, "value", "Not a number: [1]."),
        ({"value": -1.5}, "value", "Must be at least 0 (got -1.5)."),  # a rent is never negative
        ({"values": 1}, "values", "Unknown field"),
    ],
)
def test_an_invalid_value_is_rejected_with_row_field_and_reason(
    rentals_server: Server, change: dict[str, Any], field: str, reason: str
) -> None:
    answer = send(rentals_server, {"feedback": [VALID_LABEL, {**VALID_LABEL, **change}]})
    assert_problem(answer, 422, "1 invalid value")
    (error,) = answer.json["errors"]
    assert (error["row"], error["field"]) == (1, field)
    assert reason in error["reason"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "not valid JSON"),
        (b'{"request_id": "', 400, "not valid JSON"),
        (b'{"value": NaN}', 400, "NaN is not a JSON number"),
        (b'{"value": 1, "value": 2}', 400, "duplicate key .value."),
        (b"[" * 19_000, 400, "nested too deeply"),
        (b"[]", 422, "must be a JSON object"),
        (b"{}", 422, "2 invalid values"),
        (b'{"feedback": []}', 422, "a list of at least one object"),
        (b'{"feedback": {}}', 422, "a list of at least one object"),
        (b'{"feedback": [1], "row": 2}', 422, "the body's only key"),
        (b'{"feedback": [1]}', 422, "1 invalid value"),
        (json.dumps({"feedback": [{}] * 200}).encode(), 422, "More than 100 invalid values"),
        (json.dumps({"feedback": [VALID_LABEL] * 10_001}).encode(), 413, "at most 10000 labels"),
        (b" " * 4_000_001, 413, ""),
    ],
)
def test_an_invalid_body_is_rejected(rentals_server: Server, body: bytes, status: int, detail: str) -> None:
    answer = rentals_server.ask("/feedback", body)
    assert_problem(answer, status, detail)
    assert len(answer.json.get("errors", [])) <= 100


def test_rejected_feedback_is_not_stored(rentals_server: Server) -> None:
    before = len(lines(log_dir(rentals_server.log.parent), "feedback"))
    assert_problem(send(rentals_server, {"feedback": [VALID_LABEL, {**VALID_LABEL, "row": -1}]}), 422, "1 invalid value")
    assert_problem(rentals_server.ask("/feedback", b"{}", Content_Type="text/csv"), 415, "application/json .got text/csv")
    assert_problem(rentals_server.ask("/feedback"), 405, "")
    assert len(lines(log_dir(rentals_server.log.parent), "feedback")) == before


@contextmanager
def strace(pids: Sequence[int], directory: Path) -> Iterator[None]:
    """Trace the writes of processes to files and sockets during the block, into a file per thread."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt-get install strace")
    attached = [f"--attach={pid}" for pid in pids]
    calls = "-etrace=write,writev,sendto,sendmsg,fsync"
    command = ["strace", "-ff", "-ttt", "-T", "-y", "-s100", calls, f"-o{directory}/calls", *attached]
    output = directory / "output"
    with output.open("wb") as file, subprocess.Popen(command, stderr=file) as process:
        try:
            wait_for(
                lambda: all(f"Process {pid} attached" in output.read_text(encoding="utf-8") for pid in pids), "strace is attached"
            )
            yield
        finally:
            process.terminate()


def test_feedback_is_synced_to_disk_before_the_response(rentals_server: Server, tmp_path: Path) -> None:
    with strace(rentals_server.workers(), tmp_path):
        send_labels(rentals_server, [VALID_LABEL])
    threads = [path.read_text(encoding="utf-8") for path in tmp_path.glob("calls.*")]
    written_and_synced = r'write\((\d+<.*/feedback-.*>), "\{\\"time.*\n(?:.*\n)*([\d.]+) fsync\(\1\) += 0 <([\d.]+)>'
    (sync,) = filter(None, (re.search(written_and_synced, calls) for calls in threads))
    (response,) = filter(None, (re.search(r"([\d.]+) .*HTTP/1.1 202 ", calls) for calls in threads))  # by another thread
    assert float(sync[2]) + float(sync[3]) <= float(response[1])


def test_a_full_disk_rejects_all_labels_of_a_request(rentals_server: Server, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    (tmp_path / "disk").mkdir()
    python = tmp_path / "python_on_a_small_disk"
    script = f'mount -t tmpfs -o size=64k tmpfs {tmp_path}/disk && exec {sys.executable} "$@"'
    python.write_text(f"#!/usr/bin/env bash\nexec unshare --mount bash -c '{script}' -- \"$@\"\n", encoding="utf-8")
    python.chmod(0o755)
    environment = {
        "HOUSING_RELEASE_DIR": str(rentals_server.log.parent / "serving" / "rentals-staging"),
        "HOUSING_LOG_DIR": str(tmp_path / "disk"),
        "HOUSING_WORKERS": "1",
    }
    with gunicorn_alone(str(python), tmp_path / "log", **environment) as running:
        disk = Path(f"/proc/{running.process.pid}/root{tmp_path}/disk")
        send_labels(running, [VALID_LABEL])
        with pytest.raises(OSError, match="No space left"):
            (disk / "ballast").write_bytes(b"x" * 100_000)
        assert_problem(
            send(running, {"feedback": [VALID_LABEL] * 200}), 503, "cannot be stored at present: No space left on device"
        )
        assert lines(disk, "feedback")[0]["feedback"] == [VALID_LABEL]
        (disk / "ballast").unlink()
        send_labels(running, [VALID_LABEL] * 200)
        assert [len(line["feedback"]) for line in lines(disk, "feedback")] == [1, 200]
