"""Feedback: true values are kept, matched with the prediction log, and counted to the last digit, whatever is killed."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from housing.core.environment import PROJECT
from server.core import releases
from server.feedback import error_totals
from server.feedback.database import DATABASE_FILE
from server.feedback.error_totals import MAX_VERSIONS, OTHER, ErrorTotals
from server.prediction_log.index import find_unknown_ids
from server.prediction_log.rotating_file import RotatingFile, iter_lines, list_files
from tests.server.test_server import gunicorn_alone
from tests.support.server import Answer, Server, assert_problem, children, scraped, serving
from tests.support.tables import FLAT, config
from tests.support.waiting import wait_for

NOBODY = "0193f5c2a1b3-00-00000000"  # the id of a request that nobody sent
Truth = dict[str, Any]


@pytest.fixture(scope="module")
def server(served_home: Path) -> Iterator[Server]:
    """The promoted model, served; its joiner does not wait long."""
    with serving(served_home, "serve.feedback_timeout_seconds=4", "serve.max_rows=200", "serve.max_body=20000") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def send(server: Server, body: object) -> Answer:
    """Send feedback."""
    return server.ask("/feedback", json.dumps(body).replace("Infinity", "1e999").encode())


def accepted(server: Server, truths: Sequence[Truth]) -> None:
    """Send true values, which are taken."""
    answer = send(server, {"feedback": truths})
    assert (answer.status, answer.type, answer.json["accepted"]) == (202, "application/json", len(truths))


def predicted(server: Server, areas: Sequence[float], coverage: float | None = None) -> Any:
    """Predict flats of some areas, as columns and rows."""
    query = "" if coverage is None else f"?interval={coverage}"
    rows = [[area, *list(FLAT.values())[1:]] for area in areas]
    answer = server.ask(f"/predict{query}", json.dumps({"columns": list(FLAT), "rows": rows}).encode())
    assert answer.status == 200, answer
    return answer.json


def counts(figures: dict[str, float], version: str = "1") -> dict[str, float]:
    """The joiner's figures of a version, the unmatched and the repeated."""
    found = {
        name.removeprefix("housing_feedback_").removesuffix("_total"): figures[f'{name}{{version="{version}"}}']
        for name in error_totals.SERIES
    }
    return found | {name: figures[f"housing_feedback_{name}_total"] for name in ("unmatched", "duplicates")}


def assert_rises(server: Server, before: dict[str, float], rise: dict[str, float]) -> None:
    """Wait until everything is counted; then each figure has risen by just so much."""

    def risen() -> dict[str, float]:
        return {name: value - before[name] for name, value in counts(scraped(server)).items()}

    names = ("matched", "unmatched", "duplicates")
    wait_for(lambda: sum(risen()[name] for name in names) >= sum(rise[name] for name in names), "all is counted")
    assert risen() == pytest.approx(rise, rel=1e-9, abs=1e-9)


def ready(server: Server) -> dict[str, float]:
    """The joiner's figures, once it shows any."""
    wait_for(lambda: 'housing_feedback_matched_total{version="1"}' in scraped(server), "the joiner counts version 1")
    return counts(scraped(server))


def folder_of(home: Path) -> Path:
    """Where log and feedback lie."""
    return home / "serving" / "rentals-staging.log"


def lines(folder: Path, kind: str) -> list[Any]:
    """The whole lines of all files of a kind; a process that was killed may have left half a line at the end of one."""
    return [json.loads(line) for path in list_files(folder, kind) for line in iter_lines(path)]


def test_errors_and_hits_are_counted_to_the_last_digit(server: Server, served_home: Path) -> None:
    before, received = ready(server), scraped(server)["housing_feedback_received_total"]
    batch, alone = predicted(server, [30.0, 60.0, 90.0], 0.8), server.predict({**FLAT, "area": 120.0}).json
    inside, outside = batch["upper"][0] - 1e-3, batch["lower"][2] - 5.0
    truths = [
        {"request_id": batch["request_id"], "row": 2, "value": outside},
        {"request_id": batch["request_id"], "row": 0, "value": inside},
    ]
    accepted(server, truths)
    assert send(server, {"request_id": alone["request_id"], "value": 700}).status == 202  # row 0
    errors = [batch["predictions"][2] - outside, batch["predictions"][0] - inside, alone["predictions"][0] - 700]
    rise = {
        "matched": 3,
        "absolute_error": sum(map(abs, errors)),
        "squared_error": sum(error**2 for error in errors),
        "intervals": 2,
        "intervals_covered": 1,
        "unmatched": 0,
        "duplicates": 0,
    }
    assert_rises(server, before, rise)
    assert scraped(server)["housing_feedback_received_total"] == received + 3
    joined = {(row["id"], row["row"]): row for row in lines(folder_of(served_home), "joined")}
    found = joined[batch["request_id"], 2]
    assert found["columns"] == {**FLAT, "area": 90.0}
    assert (found["prediction"], found["value"], found["version"]) == (batch["predictions"][2], outside, "1")
    assert time.time() - 60 < found["time"] <= time.time()


def test_a_row_is_counted_once_with_the_value_that_came_first(server: Server, served_home: Path) -> None:
    before, answer = ready(server), predicted(server, [70.0, 80.0])
    first, second = ({"request_id": answer["request_id"], "row": row, "value": 300.0 + row} for row in (0, 1))
    accepted(server, [first, first, {**first, "value": 900.0}])
    error = answer["predictions"][0] - 300.0
    rise = {**dict.fromkeys(before, 0), "matched": 1, "absolute_error": abs(error), "squared_error": error**2, "duplicates": 2}
    assert_rises(server, before, rise)
    accepted(server, [{**first, "value": 800.0}, second])
    error = answer["predictions"][1] - 301.0
    rise = {**rise, "matched": 2, "duplicates": 3}
    rise |= {"absolute_error": rise["absolute_error"] + abs(error), "squared_error": rise["squared_error"] + error**2}
    assert_rises(server, before, rise)
    joined = [row["value"] for row in lines(folder_of(served_home), "joined") if row["id"] == answer["request_id"]]
    assert joined == [300.0, 300.0, 900.0, 800.0, 301.0]  # the last one of a row is its correction


def test_what_has_no_prediction_is_counted_as_unmatched(server: Server) -> None:
    before = ready(server)
    mine = predicted(server, [50.0])["request_id"]
    accepted(
        server,
        [
            {"request_id": NOBODY, "value": 1.0},
            {"request_id": mine[:-8] + "0fffffff", "value": 1.0},  # a worker's, and none of its requests
            {"request_id": mine[:13] + "fe" + mine[15:], "value": 1.0},  # of no worker
            {"request_id": mine, "row": 1, "value": 1.0},
        ],
    )
    assert_rises(server, before, {**dict.fromkeys(before, 0), "unmatched": 4})


def test_unknown_request_ids_are_named(server: Server) -> None:
    before, known = ready(server), predicted(server, [50.0])["request_id"]
    wait_for(lambda: time.time() - 4.5 > int(known[:12], 16) / 1000, "the prediction must be in the log by now")
    wrong, fresh, future = known[:-8] + "0fffffff", new_id(0xFFFF), f"f{known[1:]}"
    items = [{"request_id": name, "value": 300.0} for name in (known, NOBODY, wrong, wrong, fresh, future)]
    answer = send(server, {"feedback": items})
    assert (answer.status, answer.json) == (202, {"accepted": 6, "unknown_request_ids": [NOBODY, wrong, future]})
    assert send(server, items[0]).json == {"accepted": 1, "unknown_request_ids": []}
    wait_for(lambda: counts(scraped(server))["unmatched"] == before["unmatched"] + 5, "all but the known one are given up")


def test_request_ids_are_searched_in_large_files(tmp_path: Path) -> None:
    """Entries are out of order by less than the delay, and one line is damaged."""
    start = time.time_ns() // 1_000_000 - 3_600_000
    jitter = [0, 900, -700, 300]
    names = [f"{start + 500 * index + jitter[index % 4]:012x}-00-{index:08x}" for index in range(5000)]
    put(tmp_path, "predictions-0", *(entry(name, [1.0]) for name in names[:2500]), "damaged" * 50)
    put(tmp_path, "predictions-0", *(entry(name, [1.0]) for name in names[2500:]))
    (path,) = tmp_path.glob("*.jsonl")
    path.rename(path.with_name("predictions-0-20200101T000000.000000Z.jsonl"))
    absent = [f"{name[:-1]}{'0' if name[-1] != '0' else '1'}" for name in names[::100]]
    absent = sorted(set(absent) - set(names))
    assert find_unknown_ids(tmp_path, [*names[::7], names[-1], *absent], delay=2.0) == absent


def joiner(server: Server) -> int:
    """The pid of a server's joiner."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [
            pid for pid in children(server.process.pid) if b"server.feedback.joiner" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return len(found) == 1

    wait_for(is_there, "a joiner runs")
    return found[0]


def test_a_joiner_that_is_killed_counts_nothing_twice_and_forgets_nothing(server: Server, served_home: Path) -> None:
    before, errors, sent = ready(server), [], set()
    for place in range(120):
        answer = predicted(server, [20.0 + place, 30.0 + place])
        accepted(server, [{"request_id": answer["request_id"], "row": row, "value": 300.0 + place} for row in (0, 1)])
        errors += [prediction - 300.0 - place for prediction in answer["predictions"]]
        sent |= {(answer["request_id"], row) for row in (0, 1)}
        if place % 30 == 29:
            os.kill(joiner(server), signal.SIGKILL)
    rise = {"matched": 240, "absolute_error": sum(map(abs, errors)), "squared_error": sum(error**2 for error in errors)}
    assert_rises(server, before, {**dict.fromkeys(before, 0), **rise})
    assert "The joiner exited" in server.log.read_text(encoding="utf-8")
    assert sent <= {(row["id"], row["row"]) for row in lines(folder_of(served_home), "joined")}


def test_files_are_begun_anew_and_every_prediction_is_found_in_its_file(served_home: Path, tmp_path: Path) -> None:
    """Each prediction fills a file, and so do two requests with feedback."""
    options = ("serve.log_max_bytes=300", "serve.log_backups=1000", f"serve.log_dir={tmp_path}")
    with serving(served_home, *options) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        before = ready(running)
        answers = []
        for place in range(12):
            answers.append(predicted(running, [40.0 + place]))
            wait_for(lambda: len(list(tmp_path.glob("predictions-*"))) == len(answers), "it is written")
        for answer in answers[::2]:
            accepted(running, [{"request_id": answer["request_id"], "value": 500.5}])
        errors = [answer["predictions"][0] - 500.5 for answer in answers[::2]]
        rise = {
            "matched": 6,
            "absolute_error": sum(map(abs, errors)),
            "squared_error": sum(error**2 for error in errors),
        }
        assert_rises(running, before, {**dict.fromkeys(before, 0), **rise})
    assert len(list(tmp_path.glob("feedback-*"))) > 2


GOOD = {"request_id": NOBODY, "row": 0, "value": 500.0}


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"request_id": None}, "request_id", "Missing"),
        ({"request_id": 5}, "request_id", "Not a request ID such as 0193f5c2a1b3-01-0000002a."),
        ({"request_id": NOBODY.upper()}, "request_id", "Not a request ID"),
        ({"request_id": f"../{NOBODY}"}, "request_id", "Not a request ID"),
        ({"row": -1}, "row", "Must be at least 0 (got -1)."),
        ({"row": 0.5}, "row", "Not a whole number: 0.5."),
        ({"row": True}, "row", "Not a number: True."),
        ({"row": "0"}, "row", "Not a number: '0'."),
        ({"row": None}, "row", "Missing required value."),
        ({"row": 200}, "row", "Must be at most 199 (got 200)."),
        ({"row": 10**400}, "row", "Not a finite number"),
        ({"value": None}, "value", "Missing required value."),
        ({"value": "500"}, "value", "Not a number: '500'."),
        ({"value": False}, "value", "Not a number: False."),
        ({"value": 1e999}, "value", "Not a finite number: inf."),
        ({"value": 10**400}, "value", "Not a finite number"),
        ({"value": [1]}, "value", "Not a number: [1]."),
        ({"value": -1.5}, "value", "Must be at least 0 (got -1.5)."),  # no rent is
        ({"values": 1}, "values", "Unknown field"),
    ],
)
def test_a_bad_value_is_refused_with_row_field_and_reason(
    server: Server, change: dict[str, Any], field: str, reason: str
) -> None:
    answer = send(server, {"feedback": [GOOD, {**GOOD, **change}]})
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
        (json.dumps({"feedback": [GOOD] * 201}).encode(), 413, "at most 200 labels"),
        (b" " * 20_001, 413, ""),
    ],
)
def test_a_body_that_is_no_feedback_is_refused(server: Server, body: bytes, status: int, detail: str) -> None:
    answer = server.ask("/feedback", body)
    assert_problem(answer, status, detail)
    assert len(answer.json.get("errors", [])) <= 100


def test_what_is_refused_is_not_kept_and_other_methods_and_types_are_refused(server: Server, served_home: Path) -> None:
    before = len(lines(folder_of(served_home), "feedback"))
    assert_problem(send(server, {"feedback": [GOOD, {**GOOD, "row": -1}]}), 422, "1 invalid value")
    assert_problem(server.ask("/feedback", b"{}", Content_Type="text/csv"), 415, "application/json .got text/csv")
    assert_problem(server.ask("/feedback"), 405, "")
    assert len(lines(folder_of(served_home), "feedback")) == before


@contextmanager
def traced(pids: Sequence[int], place: Path) -> Iterator[None]:
    """Have strace write what processes say to files and sockets while the block lasts, into a file for each thread."""
    if not shutil.which("strace"):
        pytest.skip("strace is not on this machine: apt-get install strace")
    named = [f"--attach={pid}" for pid in pids]
    command = [
        "strace",
        "-ff",
        "-ttt",
        "-T",
        "-y",
        "-s100",
        "-etrace=write,writev,sendto,sendmsg,fsync",
        f"-o{place}/calls",
        *named,
    ]
    said = place / "said"
    with said.open("wb") as file, subprocess.Popen(command, stderr=file) as process:
        try:
            wait_for(lambda: all(f"Process {pid} attached" in said.read_text(encoding="utf-8") for pid in pids), "it looks")
            yield
        finally:
            process.terminate()


def test_feedback_is_on_the_disk_before_it_is_accepted(server: Server, tmp_path: Path) -> None:
    with traced(server.workers(), tmp_path):
        accepted(server, [GOOD])
    threads = [path.read_text(encoding="utf-8") for path in tmp_path.glob("calls.*")]
    written_and_synced = r'write\((\d+<.*/feedback-.*>), "\{\\"time.*\n(?:.*\n)*([\d.]+) fsync\(\1\) += 0 <([\d.]+)>'
    (synced,) = filter(None, (re.search(written_and_synced, calls) for calls in threads))
    (answered,) = filter(None, (re.search(r"([\d.]+) .*HTTP/1.1 202 ", calls) for calls in threads))  # by another thread
    assert float(synced[2]) + float(synced[3]) <= float(answered[1])


@pytest.mark.usefixtures("server")
def test_on_a_full_disk_feedback_is_refused_whole(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    (tmp_path / "disk").mkdir()
    small = tmp_path / "python_on_a_small_disk"
    mounted = f'mount -t tmpfs -o size=64k tmpfs {tmp_path}/disk && exec {sys.executable} "$@"'
    small.write_text(f"#!/usr/bin/env bash\nexec unshare --mount bash -c '{mounted}' -- \"$@\"\n", encoding="utf-8")
    small.chmod(0o755)
    with gunicorn_alone(str(small), tmp_path / "log", HOUSING_LOG_DIR=str(tmp_path / "disk"), HOUSING_WORKERS="1") as running:
        disk = Path(f"/proc/{running.process.pid}/root{tmp_path}/disk")
        accepted(running, [GOOD])
        with pytest.raises(OSError, match="No space left"):
            (disk / "ballast").write_bytes(b"x" * 100_000)
        assert_problem(send(running, {"feedback": [GOOD] * 200}), 503, "cannot be stored at present: No space left on device")
        assert lines(disk, "feedback")[0]["feedback"] == [GOOD]
        (disk / "ballast").unlink()
        accepted(running, [GOOD] * 200)
        assert [len(line["feedback"]) for line in lines(disk, "feedback")] == [1, 200]


def entry(name: str, predictions: Sequence[float], version: str = "1") -> dict[str, Any]:
    """An entry of the prediction log."""
    rows = [[float(place)] for place in range(len(predictions))]
    return {"id": name, "time": 0.0, "version": version, "columns": ["area"], "rows": rows, "predictions": list(predictions)}


def put(folder: Path, name: str, *entries: object) -> None:
    """Append lines as a worker does."""
    data = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in entries)
    RotatingFile(folder, name, 10**9, 10, 30).append(data.encode())


def new_id(number: int) -> str:
    """The id of a request that came just now, to worker 0."""
    return f"{time.time_ns() // 1_000_000:012x}-00-{number:08x}"


def serve_version(place: Path, version: str) -> None:
    """Publish a version, as the puller does."""
    (place / "bundle").mkdir(exist_ok=True)
    releases.publish(place / "published", version, place / "bundle", {"version": version})


@contextmanager
def joining(place: Path, patience: float = 60) -> Iterator["subprocess.Popen[bytes]"]:
    """A joiner of `<place>/log` alone, for as long as the block lasts."""
    overrides = (
        f"serve.release_dir={place}/published",
        f"serve.log_dir={place}/log",
        f"serve.feedback_timeout_seconds={patience}",
    )
    serve = config("serve", "data=rentals", *overrides).serve
    environ = {f"HOUSING_{str(name).upper()}": str(value) for name, value in serve.items()}
    environ = {**os.environ, **environ, "PROMETHEUS_MULTIPROC_DIR": str(place / "metrics")}
    with (place / "said").open("ab") as said:
        process = subprocess.Popen([sys.executable, "-m", "server.feedback.joiner"], cwd=PROJECT, env=environ, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def shown(place: Path) -> dict[str, float]:
    """What Prometheus is shown of a joiner's counters."""
    if not (place / "metrics" / error_totals.METRICS_FILE).exists():
        return {}
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(place / "metrics"))  # type: ignore[no-untyped-call]
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def test_feedback_that_is_there_before_its_prediction_waits_for_it(tmp_path: Path) -> None:
    name, never = new_id(0), new_id(1)
    put(tmp_path / "log", "predictions-0", entry(NOBODY, [1.0]))
    truths = [{"request_id": name, "row": 1, "value": 5.0}, {"request_id": never, "row": 0, "value": 5.0}]
    serve_version(tmp_path, "1")
    with joining(tmp_path, patience=4):
        wait_for(lambda: bool(shown(tmp_path)), "it looks")
        put(tmp_path / "log", "feedback-0", {"time": time.time(), "feedback": truths})
        wait_for(lambda: query(tmp_path, "SELECT count(*) FROM pending") == [(2,)], "it has looked for both")
        put(tmp_path / "log", "predictions-0", entry(name, [1.0, 2.0]))
        wait_for(lambda: shown(tmp_path).get("housing_feedback_matched_total 1") == 1, "it is matched")
        assert shown(tmp_path)["housing_feedback_absolute_error_total 1"] == 3.0
        wait_for(lambda: shown(tmp_path)["housing_feedback_unmatched_total"] == 1, "the other is given up")


@pytest.mark.long
def test_killed_at_any_moment_the_figures_are_exact(tmp_path: Path) -> None:
    """Each true value but the last ones is sent again, with another value, to the joiner after the one that was killed."""
    names = [new_id(number) for number in range(2000)]
    put(tmp_path / "log", "predictions-0", *(entry(name, [1.0, 2.0]) for name in names))
    serve_version(tmp_path, "1")
    for kill in range(5):
        truths = [{"request_id": name, "row": number % 2, "value": 4.0} for number, name in enumerate(names[kill::5])]
        again = [{"request_id": name, "row": (number % 2), "value": 9.0} for number, name in enumerate(names[kill - 1 :: 5])]
        sent = truths + (again if kill else [])
        put(tmp_path / "log", "feedback-0", *({"time": time.time(), "feedback": [truth]} for truth in sent))
        with joining(tmp_path) as process:
            time.sleep(0.3 + 0.3 * kill)  # the moment is what is tried
            process.kill()
    with joining(tmp_path):
        wait_for(lambda: shown(tmp_path).get("housing_feedback_matched_total 1", 0) >= 2000, "all are counted")
        put(tmp_path / "log", "feedback-0", {"time": time.time(), "feedback": [{"request_id": names[0], "row": 1, "value": 5.0}]})
        wait_for(lambda: shown(tmp_path)["housing_feedback_matched_total 1"] > 2000, "it has taken one step more")
        assert shown(tmp_path)["housing_feedback_matched_total 1"] == 2001
        assert shown(tmp_path)["housing_feedback_squared_error_total 1"] == 1000 * 9 + 1000 * 4 + 9
        assert shown(tmp_path)["housing_feedback_duplicates_total"] == 4 * 400
        joined = lines(tmp_path / "log", "joined")
        assert {row["id"] for row in joined} == set(names)
        assert len(joined) <= 2001 + 4 * 400 + 9 * 400  # each kill repeats one step at most


def truth(name: str, row: int = 0, value: float = 4.0) -> Truth:
    """A line of feedback with one true value."""
    return {"time": time.time(), "feedback": [{"request_id": name, "row": row, "value": value}]}


def query(place: Path, sql: str) -> list[Any]:
    """Rows of the joiner's database."""
    with closing(sqlite3.connect(place / "log" / DATABASE_FILE)) as connection:
        return connection.execute(sql).fetchall()


def test_a_step_that_fails_changes_nothing_and_the_next_one_takes_it_whole(tmp_path: Path) -> None:
    """The step fails after it has counted: the joined rows cannot be written where a directory has the file's place."""
    known, log = new_id(0), tmp_path / "log"
    put(log, "predictions-0", entry(known, [1.0]))
    serve_version(tmp_path, "1")
    blocker = log / "joined-99991231T000000.000000Z.jsonl"
    blocker.mkdir()
    with joining(tmp_path):
        wait_for(lambda: bool(shown(tmp_path)), "it works")
        put(log, "feedback-0", truth(known))
        wait_for(lambda: b"feedback is not counted at present" in (tmp_path / "said").read_bytes(), "the step fails")
        assert query(tmp_path, "SELECT * FROM counted") == query(tmp_path, "SELECT * FROM offsets WHERE bytes_read > 0") == []
        blocker.rmdir()
        wait_for(lambda: shown(tmp_path)["housing_feedback_matched_total 1"] == 1, "it is counted")
        assert shown(tmp_path)["housing_feedback_duplicates_total"] == 0


def test_marks_of_counted_rows_are_removed_with_their_predictions(tmp_path: Path) -> None:
    name, log = new_id(0), tmp_path / "log"
    put(log, "predictions-0", entry(name, [1.0]))
    put(log, "feedback-0", truth(name))
    serve_version(tmp_path, "1")
    with joining(tmp_path, patience=2):
        wait_for(lambda: shown(tmp_path).get("housing_feedback_matched_total 1") == 1, "it is counted")
        assert query(tmp_path, "SELECT request_id, row FROM counted") == [(name, 0)]
        (predictions,) = log.glob("predictions-*")
        predictions.unlink()
        wait_for(lambda: not query(tmp_path, "SELECT * FROM counted"), "the mark is removed")
        put(log, "feedback-0", truth(name))
        wait_for(lambda: shown(tmp_path)["housing_feedback_unmatched_total"] == 1, "it is sent again")
        figures = shown(tmp_path)
        assert (figures["housing_feedback_matched_total 1"], figures["housing_feedback_duplicates_total"]) == (1, 0)


def test_a_row_is_counted_once_across_restarts(tmp_path: Path) -> None:
    name = new_id(0)
    put(tmp_path / "log", "predictions-0", entry(name, [1.0, 2.0]))
    put(tmp_path / "log", "feedback-0", truth(name))
    serve_version(tmp_path, "1")
    with joining(tmp_path):
        wait_for(lambda: shown(tmp_path).get("housing_feedback_matched_total 1") == 1, "it is counted")
    put(tmp_path / "log", "feedback-0", truth(name), truth(name, row=1))
    with joining(tmp_path):
        wait_for(lambda: shown(tmp_path)["housing_feedback_duplicates_total"] == 1, "the first row is known")
        assert shown(tmp_path)["housing_feedback_matched_total 1"] == 2


def test_a_second_joiner_of_a_folder_waits_for_its_turn(tmp_path: Path) -> None:
    with joining(tmp_path) as first:
        wait_for(lambda: bool(shown(tmp_path)), "the first works")
        with joining(tmp_path) as second:
            wait_for(lambda: b"waiting until it ends" in (tmp_path / "said").read_bytes(), "the second waits")
            (tmp_path / "metrics" / error_totals.METRICS_FILE).unlink()
            first.kill()
            first.wait(60)
            wait_for(lambda: bool(shown(tmp_path)), "the second works")
            assert second.poll() is None


def test_each_version_is_counted_for_itself_from_zero_and_old_ones_together(tmp_path: Path) -> None:
    names = {version: new_id(number) for number, version in enumerate(["1", "2", "77"])}
    put(tmp_path / "log", "predictions-0", *(entry(name, [1.0], version) for version, name in names.items()))
    with joining(tmp_path):
        wait_for(lambda: "housing_feedback_matched_total other" in shown(tmp_path), "it counts, though no version is in use")
        serve_version(tmp_path, "1")
        wait_for(lambda: shown(tmp_path).get("housing_feedback_matched_total 1") == 0, "version 1 begins at 0")
        serve_version(tmp_path, "2")
        wait_for(lambda: shown(tmp_path).get("housing_feedback_matched_total 2") == 0, "version 2 begins at 0")
        truths = [{"request_id": name, "row": 0, "value": 4.0} for name in names.values()]
        put(tmp_path / "log", "feedback-0", {"time": time.time(), "feedback": truths})
        wait_for(lambda: all(shown(tmp_path)[f"housing_feedback_matched_total {name}"] == 1 for name in ("1", "2", OTHER)), "all")


def test_the_versions_that_were_in_use_last_are_kept() -> None:
    tallies: dict[str, ErrorTotals] = {}
    for version in range(20):
        tallies = error_totals.track_version(tallies, str(version))
        tallies = error_totals.track_version(tallies, "0")  # rolled back to, again and again
    assert list(tallies) == [OTHER, *map(str, range(20 - MAX_VERSIONS + 1, 20)), "0"]


def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path) -> None:
    """Each kind of damage stands before a line that must be counted; some damaged lines are pieces of valid JSON."""
    log, names = tmp_path / "log", [new_id(number) for number in range(20)]
    good = json.dumps(truth(names[0]), separators=(",", ":"))
    (item,) = truth(names[0])["feedback"]
    kinds: list[object] = [[], 5, "text", None, {}, {"time": 1, "feedback": 3}, {"time": 1, "feedback": [3]}]
    damaged_feedback = [
        good[:30].encode(),
        good.encode()[:-4] + b"\xff\xfe}]}",
        b"\x00" * 4096,
        *(json.dumps(value).encode() for value in kinds),
        b'{"time": "x", "feedback": []}',
        *(
            json.dumps({"time": time.time(), "feedback": [{**item, **change}]}).encode()
            for change in ({"row": -1}, {"row": 2**70}, {"row": 0.5}, {"value": "x"}, {"value": None}, {"request_id": 7})
        ),
        json.dumps({"time": time.time(), "feedback": [{"row": 0, "value": 1.0}]}).encode(),
        good.replace("4.0", "1e999").encode(),
        good.replace("4.0", "1e308").encode(),
        good.replace("4.0", "9" * 5000).encode(),
    ]
    line = json.dumps(entry(names[1], [1.0]), separators=(",", ":"))
    damaged_predictions = [
        line.replace("[1.0]", "[null]").replace(names[1], names[2]),
        line.replace('"rows":[[0.0]]', '"rows":[]').replace(names[1], names[3]),
        line.replace('"version"', '"versiom"').replace(names[1], names[4]),
        line.replace(names[1], names[5])[:60],
        line.replace(names[1], names[6]).replace('"columns":["area"]', '"columns":7'),
    ]
    put(log, "predictions-0", entry(names[0], [1.0]))
    put(log, "feedback-0", truth(names[7]))
    (predictions,), (feedback,) = log.glob("predictions-0*"), log.glob("feedback-0*")
    with predictions.open("ab") as file:
        file.write("\n".join([*damaged_predictions, line, ""]).encode())
    with feedback.open("ab") as file:
        file.write(b"\n".join([*damaged_feedback, b""]))
    put(log, "feedback-0", *(truth(name) for name in names[:7]))
    serve_version(tmp_path, "1")
    with joining(tmp_path, patience=1):
        wait_for(lambda: shown(tmp_path).get("housing_feedback_matched_total 1") == 2, "both valid labels are counted")
        wait_for(lambda: shown(tmp_path)["housing_feedback_unmatched_total"] == 6, "the others are given up")
        assert shown(tmp_path)["housing_feedback_malformed_lines_total"] == len(damaged_feedback) + len(damaged_predictions)
        assert shown(tmp_path)["housing_feedback_absolute_error_total 1"] == 6.0
        assert b"Skipped a malformed line of " in (tmp_path / "said").read_bytes()


def page_of(table: str, connection: sqlite3.Connection) -> int:
    """Return the byte at which the first page of a table begins."""
    ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,))
    return int((root - 1) * connection.execute("PRAGMA page_size").fetchone()[0])


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes of a file in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def damage_database(path: Path, kind: str) -> None:
    """Damage the database of a joiner that does not run."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = page_of("counted", connection)
    if kind == "header":
        overwrite(path, 5, b"X")
    elif kind == "version":
        overwrite(path, 60, bytes(4))
    elif kind == "page":
        overwrite(path, page, b"\xa5" * 300)
    elif kind == "table name":
        overwrite(path, path.read_bytes().index(b"CREATE TABLE pending") + 13, b"q")
    elif kind == "cut":
        os.truncate(path, page)
    elif kind == "noise":
        path.write_bytes(os.urandom(9000))
    else:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "header",
        "version",
        "page",
        "table name",
        "cut",
        "noise",
        "DELETE FROM counts",
        "UPDATE totals SET sum_squared_error = 9e999",
        "UPDATE offsets SET bytes_read = -5",
    ],
)
def test_a_damaged_database_is_set_aside_and_rebuilt_exactly(tmp_path: Path, kind: str) -> None:
    log, names = tmp_path / "log", [new_id(number) for number in range(200)]
    put(log, "predictions-0", *(entry(name, [1.0], str(1 + index % 2)) for index, name in enumerate(names)))
    put(log, "feedback-0", *map(truth, names), truth(names[0]), b"{".decode())
    serve_version(tmp_path, "1")
    serve_version(tmp_path, "2")
    with joining(tmp_path):
        wait_for(lambda: shown(tmp_path).get("housing_feedback_duplicates_total") == 1, "all is counted")
        before = shown(tmp_path)
    damage_database(log / DATABASE_FILE, kind)
    put(log, "feedback-0", truth(names[1]))  # a duplicate, which only the joiner with the new database sees
    with joining(tmp_path):
        wait_for(lambda: shown(tmp_path)["housing_feedback_duplicates_total"] == 2, "it goes on")
        expected = {"housing_feedback_duplicates_total": 2.0, "housing_feedback_damaged_databases_total": 1.0}
        assert shown(tmp_path) == {**before, **expected}
    assert b"The database of feedback is damaged. It is now" in (tmp_path / "said").read_bytes()
    assert len(list(log.glob(f"{DATABASE_FILE}.damaged-*"))) == 1


def test_a_feedback_file_that_was_cut_off_is_read_again(tmp_path: Path) -> None:
    log, names = tmp_path / "log", [new_id(number) for number in range(2)]
    put(log, "predictions-0", *(entry(name, [1.0]) for name in names))
    put(log, "feedback-0", *[truth(names[0])] * 5)
    serve_version(tmp_path, "1")
    with joining(tmp_path):
        wait_for(lambda: shown(tmp_path).get("housing_feedback_duplicates_total") == 4, "all is counted")
        (feedback,) = log.glob("feedback-0*")
        os.truncate(feedback, 0)
        put(log, "feedback-0", truth(names[1]))
        wait_for(lambda: shown(tmp_path)["housing_feedback_matched_total 1"] == 2, "the new label is counted")
