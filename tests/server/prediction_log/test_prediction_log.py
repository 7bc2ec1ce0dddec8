"""The prediction log, written by real processes and read with the command."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from housing.core.environment import PROJECT
from housing.server_files.request_id import make_id_generator, parse_request_id
from tests.support.commands import CommandResult, fresh_command
from tests.support.waiting import wait_for

WRITER = """
import os, signal, sys, time
from pathlib import Path
from server.core import worker_id
from server.prediction_log.writer import DROPPED, FileHandler, PredictionLog
from housing.server_files.request_id import make_id_generator
from housing.server_files.rotating_file import RotatingFile

folder = Path(sys.argv[1])
number = worker_id.acquire_worker_id(folder)
next_id = make_id_generator(number)

def log(max_bytes=10**9, keep=100, days=30, queue=10**6):
    return PredictionLog(FileHandler(RotatingFile(folder, f"predictions-{number}", max_bytes, keep, days)), queue)

def entry(row=0, version="1", **more):
    return {"id": next_id(), "time": time.time(), "route": "/predict", "model": "m", "version": version,
            "run_id": "r", "latency_ms": 1.5, "columns": ["area", "quarter"], "rows": [[50.5, "hills"], [60.5, None]],
            "predictions": [float(row), 2.0], **more}
"""


def writer(folder: Path, code: str) -> "subprocess.Popen[str]":
    """Return a process that writes the log of a folder."""
    arguments = [sys.executable, "-c", WRITER + code, str(folder)]
    return subprocess.Popen(arguments, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output_of(folder: Path, code: str) -> str:
    """Run such a process and return its output."""
    with writer(folder, code) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def read(folder: Path, *arguments: str) -> tuple[list[dict[str, Any]], CommandResult]:
    """Return the entries that `python -m server.log read` prints."""
    result = fresh_command(folder, "server.log", "read", str(folder), *arguments)
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()], result


def test_request_ids_contain_time_and_worker_id() -> None:
    next_id = make_id_generator(17)
    first, second = next_id(), next_id()
    assert re.fullmatch("[0-9a-f]{12}-11-00000000", first) and second.endswith("-00000001")
    moment, slot = parse_request_id(first)
    assert slot == 17 and abs(moment - time.time()) < 5


@pytest.mark.parametrize(
    "wrong", ["", "x", "0193f5c2a1b3-01-0000002a\n", "0193F5C2A1B3-01-0000002A", "../../etc/passwd-01-00000000"]
)
def test_an_invalid_request_id_is_rejected(wrong: str) -> None:
    with pytest.raises(ValueError, match="Not a request ID"):
        parse_request_id(wrong)


def test_the_logs_of_all_workers_are_merged_and_a_replacement_takes_over_the_worker_id(tmp_path: Path) -> None:
    code = "writer = log()\nprint(number)\nfor row in range(200):\n    writer.write(entry(row))\n    time.sleep(0.001)\ninput()\n"
    arguments = [sys.executable, "-c", WRITER + code, str(tmp_path)]
    # pylint: disable=consider-using-with  # they are result below, side by side
    pair = [subprocess.Popen(arguments, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    out = [process.communicate("\n", timeout=60)[0].strip() for process in pair]
    assert sorted(out) == ["0", "1"] and [process.returncode for process in pair] == [0, 0]
    entries, _ = read(tmp_path)
    assert len(entries) == len({entry["id"] for entry in entries}) == 400
    assert [entry["time"] for entry in entries] == sorted(entry["time"] for entry in entries)
    assert {parse_request_id(entry["id"])[1] for entry in entries} == {0, 1}
    assert output_of(tmp_path, "print(number)").strip() == "0"


def test_a_killed_worker_loses_only_its_queue_and_a_partial_line_is_reported(tmp_path: Path) -> None:
    code = "writer = log()\nwhile True:\n    writer.write(entry())\n    time.sleep(0.002)\n"
    with writer(tmp_path, code) as process:
        wait_for(lambda: sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) > 20_000, "it writes")
        process.send_signal(signal.SIGKILL)
    (file,) = tmp_path.glob("predictions-0-*.jsonl")
    n_complete = file.read_bytes().count(b"\n")
    with file.open("ab") as end:
        end.write(b'{"id": "0193f5c2a1b3')
    output_of(tmp_path, "log().write(entry())")
    entries, result = read(tmp_path)
    assert len(entries) == n_complete + 1
    assert result.err == "Skipped 1 malformed line.\n"


def test_files_are_rotated_and_the_oldest_removed(tmp_path: Path) -> None:
    code = "writer = log(max_bytes=2000, keep=3)\nfor row in range(200):\n    writer.write(entry(row))\n    time.sleep(0.005)\n"
    output_of(tmp_path, code)
    *older, newest = sorted(tmp_path.glob("predictions-0-*.jsonl"))
    assert len(older) == 3 and all(path.stat().st_size > 0 for path in (*older, newest))
    entries, _ = read(tmp_path)
    numbers = [int(entry["predictions"][0]) for entry in entries]
    assert numbers == list(range(numbers[0], 200)) and numbers[0] > 0

    os.utime(older[1], (0, time.time() - 40 * 86400))
    os.utime(newest, (0, time.time() - 86400))  # of yesterday
    output_of(tmp_path, "log().write(entry())")
    assert not older[1].exists()
    assert max(tmp_path.glob("predictions-0-*.jsonl")).read_bytes().count(b"\n") == 1


def test_filters_select_entries(tmp_path: Path) -> None:
    code = "writer = log()\nfor row in range(4):\n    writer.write(entry(row, version=str(row // 2), time=1000.0 + row))\n"
    output_of(tmp_path, code)
    everything, _ = read(tmp_path)
    span, _ = read(tmp_path, "--since", "1970-01-01T00:16:41", "--until", "1970-01-01T00:16:43+00:00")
    assert span == everything[1:3]
    assert read(tmp_path, "--version", "1")[0] == everything[2:]
    assert read(tmp_path, "--id", everything[3]["id"])[0] == everything[3:]


def test_parquet_has_one_row_per_prediction(tmp_path: Path) -> None:
    from pyarrow import parquet  # pylint: disable=import-outside-toplevel

    code = "writer = log()\nwriter.write(entry(7))\nwriter.write(entry(8, lower=[0.0, 1.0], upper=[9.0, 3.0]))\n"
    output_of(tmp_path, f"{code}writer.write(entry(9, quantiles={{'0.1': [4.0, 5.0]}}))\n")
    read(tmp_path, "--out", str(tmp_path / "out.parquet"))
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["row"], row["prediction"], row["column.quarter"], row["upper"], row["quantile_0.1"]) for row in table] == [
        (0, 7.0, "hills", None, None),
        (1, 2.0, None, None, None),
        (0, 8.0, "hills", 9.0, None),
        (1, 2.0, None, 3.0, None),
        (0, 9.0, "hills", None, 4.0),
        (1, 2.0, None, None, 5.0),
    ]


def test_a_full_queue_drops_and_counts_without_blocking(tmp_path: Path) -> None:
    code = (
        "writer = log(queue=10)\nfor _ in range(1000):\n    writer.write(entry())\nwriter.close()\nprint(DROPPED._value.get())\n"
    )
    dropped = float(output_of(tmp_path, code))
    assert dropped > 0 and len(read(tmp_path)[0]) == 1000 - dropped


def test_an_entry_that_is_not_json_is_dropped_and_the_next_is_written(tmp_path: Path) -> None:
    code = "writer = log()\nwriter.write({'bad': object()})\nwriter.write(entry())\nwriter.close()\nprint(DROPPED._value.get())\n"
    assert float(output_of(tmp_path, code)) == 1
    assert len(read(tmp_path)[0]) == 1


@pytest.mark.parametrize("is_early", [True, False])
def test_a_logging_configuration_gets_the_lines(tmp_path: Path, is_early: bool) -> None:
    configure = "logger.addHandler(logging.StreamHandler(sys.stdout)); logger.setLevel(logging.INFO)"
    steps = [configure, "written = log()"] if is_early else ["written = log()", configure]
    code = "\n".join(["import logging; logger = logging.getLogger('housing.predictions')", *steps, "written.write(entry(7))"])
    assert json.loads(output_of(tmp_path, f"{code}\nwritten.close()"))["predictions"] == [7.0, 2.0]
    assert len(list(tmp_path.glob("predictions-*.jsonl"))) == (0 if is_early else 1)  # a later handler is one beside the file


def test_a_full_disk_drops_complete_lines_and_logging_resumes(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    code = """
writer = log()
def put(count):
    for row in range(count):
        writer.write(entry(row))
        time.sleep(0.001)
    time.sleep(0.3)  # of a thread that must not be asked
(folder / "ballast").write_bytes(b"x" * 40_000)
put(300)
full = DROPPED._value.get()
(folder / "ballast").unlink()
put(20)
writer.close()
(file,) = folder.glob("predictions-0-*.jsonl")
lines = file.read_bytes()
print(full, DROPPED._value.get(), lines.count(b"\\n"), lines.endswith(b"}\\n"))
"""
    (tmp_path / "disk").mkdir()
    run = shlex.join([sys.executable, "-c", WRITER + code, str(tmp_path / "disk")])
    mounted = f"mount -t tmpfs -o size=64k tmpfs {tmp_path}/disk && {run}"
    arguments = ["unshare", "--mount", "bash", "-c", mounted]
    result = subprocess.run(arguments, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    full, dropped, lines, is_complete = result.stdout.split()
    assert float(full) == float(dropped) > 0 and int(lines) == 320 - float(dropped) and is_complete == "True"
    # once for each time that the disk is full: a smaller batch may still fit after a larger one
    assert 1 <= result.stderr.count("Cannot write the prediction log") < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["away"], "away is not a folder"),
        ([".", "--since", "2026-13-01"], "must be a time in ISO 8601, such as 2026-11-27T08:00 (got '2026-13-01')"),
        ([".", "--out", "away/out.parquet"], "the folder away does not exist"),
        ([".", "--out", "out.csv"], "must end with .parquet (got out.csv)"),
    ],
)
def test_an_invalid_folder_or_output_file_is_reported(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = fresh_command(tmp_path, "server.log", "read", *arguments)
    assert result.code == 2
    assert message in result.err and "Traceback" not in result.err
