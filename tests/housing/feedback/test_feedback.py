"""Feedback: labels are matched with the prediction log and counted exactly, also after kills."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from housing.core.environment import PROJECT
from housing.feedback import error_totals
from housing.feedback.database import DATABASE_FILE
from housing.feedback.error_totals import MAX_VERSIONS, OTHER, ErrorTotals
from housing.serving import publishing
from tests.support.feedback import UNKNOWN_ID, Label, append, entry, lines, log_dir, predict_areas, send, send_labels
from tests.support.server import Server, children_running, scraped, serving
from tests.support.tables import FLAT, config
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def server(served_home: Path) -> Iterator[Server]:
    """The promoted model on a server whose joiner has a short timeout."""
    with serving(served_home, "serve.feedback_timeout_seconds=4", "serve.max_rows=200", "serve.max_body=20000") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def counts(metrics: dict[str, float], version: str = "1") -> dict[str, float]:
    """Return the joiner's metrics of a version, and the unmatched and duplicate labels."""
    version_counts = {
        name.removeprefix("housing_feedback_").removesuffix("_total"): metrics[f'{name}{{version="{version}"}}']
        for name in error_totals.SERIES
    }
    return version_counts | {name: metrics[f"housing_feedback_{name}_total"] for name in ("unmatched", "duplicates")}


def assert_increases(server: Server, before: dict[str, float], expected: dict[str, float]) -> None:
    """Wait until all labels are counted, then compare the increases of the metrics."""

    def increases() -> dict[str, float]:
        return {name: value - before[name] for name, value in counts(scraped(server)).items()}

    names = ("matched", "unmatched", "duplicates")
    wait_for(lambda: sum(increases()[name] for name in names) >= sum(expected[name] for name in names), "all labels are counted")
    assert increases() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def wait_for_counts(server: Server) -> dict[str, float]:
    """Wait until the joiner has metrics of version 1 and return them."""
    wait_for(lambda: 'housing_feedback_matched_total{version="1"}' in scraped(server), "the joiner counts version 1")
    return counts(scraped(server))


def test_errors_and_covered_intervals_are_counted_exactly(server: Server, served_home: Path) -> None:
    before, received = wait_for_counts(server), scraped(server)["housing_feedback_received_total"]
    batch, single = predict_areas(server, [30.0, 60.0, 90.0], 0.8), server.predict({**FLAT, "area": 120.0}).json
    inside, outside = batch["upper"][0] - 1e-3, batch["lower"][2] - 5.0
    labels = [
        {"request_id": batch["request_id"], "row": 2, "value": outside},
        {"request_id": batch["request_id"], "row": 0, "value": inside},
    ]
    send_labels(server, labels)
    assert send(server, {"request_id": single["request_id"], "value": 700}).status == 202  # row 0
    errors = [batch["predictions"][2] - outside, batch["predictions"][0] - inside, single["predictions"][0] - 700]
    increase = {
        "matched": 3,
        "absolute_error": sum(map(abs, errors)),
        "squared_error": sum(error**2 for error in errors),
        "intervals": 2,
        "intervals_covered": 1,
        "unmatched": 0,
        "duplicates": 0,
    }
    assert_increases(server, before, increase)
    assert scraped(server)["housing_feedback_received_total"] == received + 3
    joined = {(row["id"], row["row"]): row for row in lines(log_dir(served_home), "joined")}
    row = joined[batch["request_id"], 2]
    assert row["columns"] == {**FLAT, "area": 90.0}
    assert (row["prediction"], row["value"], row["version"]) == (batch["predictions"][2], outside, "1")
    assert time.time() - 60 < row["time"] <= time.time()


def test_a_row_is_counted_once_with_its_first_label(server: Server, served_home: Path) -> None:
    before, answer = wait_for_counts(server), predict_areas(server, [70.0, 80.0])
    first, second = ({"request_id": answer["request_id"], "row": row, "value": 300.0 + row} for row in (0, 1))
    send_labels(server, [first, first, {**first, "value": 900.0}])
    error = answer["predictions"][0] - 300.0
    increase = {
        **dict.fromkeys(before, 0),
        "matched": 1,
        "absolute_error": abs(error),
        "squared_error": error**2,
        "duplicates": 2,
    }
    assert_increases(server, before, increase)
    send_labels(server, [{**first, "value": 800.0}, second])
    error = answer["predictions"][1] - 301.0
    increase = {**increase, "matched": 2, "duplicates": 3}
    increase |= {"absolute_error": increase["absolute_error"] + abs(error), "squared_error": increase["squared_error"] + error**2}
    assert_increases(server, before, increase)
    joined = [row["value"] for row in lines(log_dir(served_home), "joined") if row["id"] == answer["request_id"]]
    assert joined == [300.0, 300.0, 900.0, 800.0, 301.0]  # the last one of a row is its correction


def test_labels_without_a_prediction_are_counted_as_unmatched(server: Server) -> None:
    before = wait_for_counts(server)
    request_id = predict_areas(server, [50.0])["request_id"]
    send_labels(
        server,
        [
            {"request_id": UNKNOWN_ID, "value": 1.0},
            {"request_id": request_id[:-8] + "0fffffff", "value": 1.0},  # an unknown request of a known worker
            {"request_id": request_id[:13] + "fe" + request_id[15:], "value": 1.0},  # an unknown worker
            {"request_id": request_id, "row": 1, "value": 1.0},
        ],
    )
    assert_increases(server, before, {**dict.fromkeys(before, 0), "unmatched": 4})


def test_unknown_request_ids_are_listed_in_the_response(server: Server) -> None:
    before, valid = wait_for_counts(server), predict_areas(server, [50.0])["request_id"]
    wait_for(lambda: time.time() - 4.5 > int(valid[:12], 16) / 1000, "the prediction must be in the log by now")
    wrong, recent, future = valid[:-8] + "0fffffff", new_id(0xFFFF), f"f{valid[1:]}"
    items = [{"request_id": name, "value": 300.0} for name in (valid, UNKNOWN_ID, wrong, wrong, recent, future)]
    answer = send(server, {"feedback": items})
    assert (answer.status, answer.json) == (202, {"accepted": 6, "unknown_request_ids": [UNKNOWN_ID, wrong, future]})
    assert send(server, items[0]).json == {"accepted": 1, "unknown_request_ids": []}
    wait_for(
        lambda: counts(scraped(server))["unmatched"] == before["unmatched"] + 5, "all labels except the valid one are unmatched"
    )


def joiner_pid(server: Server) -> int:
    """Return the pid of a server's joiner."""
    pids: list[int] = []

    def is_running() -> bool:
        pids[:] = children_running(server.process.pid, "housing.feedback.joiner")
        return len(pids) == 1

    wait_for(is_running, "a joiner runs")
    return pids[0]


def test_killed_joiners_count_every_label_once(server: Server, served_home: Path) -> None:
    before, errors, labeled = wait_for_counts(server), [], set()
    for number in range(120):
        answer = predict_areas(server, [20.0 + number, 30.0 + number])
        send_labels(server, [{"request_id": answer["request_id"], "row": row, "value": 300.0 + number} for row in (0, 1)])
        errors += [prediction - 300.0 - number for prediction in answer["predictions"]]
        labeled |= {(answer["request_id"], row) for row in (0, 1)}
        if number % 30 == 29:
            os.kill(joiner_pid(server), signal.SIGKILL)
    increase = {"matched": 240, "absolute_error": sum(map(abs, errors)), "squared_error": sum(error**2 for error in errors)}
    assert_increases(server, before, {**dict.fromkeys(before, 0), **increase})
    assert "The joiner exited" in server.log.read_text(encoding="utf-8")
    assert labeled <= {(row["id"], row["row"]) for row in lines(log_dir(served_home), "joined")}


def test_labels_are_matched_across_rotated_files(served_home: Path, tmp_path: Path) -> None:
    """Each prediction fills a file, and two requests with feedback fill another."""
    options = ("serve.log_max_bytes=300", "serve.log_backups=1000", f"serve.log_dir={tmp_path}")
    with serving(served_home, *options) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        before = wait_for_counts(running)
        responses = []
        for number in range(12):
            responses.append(predict_areas(running, [40.0 + number]))
            wait_for(lambda: len(list(tmp_path.glob("predictions-*"))) == len(responses), "the prediction is logged")
        for response in responses[::2]:
            send_labels(running, [{"request_id": response["request_id"], "value": 500.5}])
        errors = [response["predictions"][0] - 500.5 for response in responses[::2]]
        increase = {
            "matched": 6,
            "absolute_error": sum(map(abs, errors)),
            "squared_error": sum(error**2 for error in errors),
        }
        assert_increases(running, before, {**dict.fromkeys(before, 0), **increase})
    assert len(list(tmp_path.glob("feedback-*"))) > 2


def new_id(number: int) -> str:
    """Return the id of a request that worker 0 has just received."""
    return f"{time.time_ns() // 1_000_000:012x}-00-{number:08x}"


def publish(directory: Path, version: str) -> None:
    """Publish a version like the puller."""
    (directory / "bundle").mkdir(exist_ok=True)
    publishing.publish(directory / "published", version, directory / "bundle", {"version": version})


@contextmanager
def joiner(directory: Path, timeout: float = 60) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a joiner of the directory `log` without a server."""
    overrides = (
        f"serve.release_dir={directory}/published",
        f"serve.log_dir={directory}/log",
        f"serve.feedback_timeout_seconds={timeout}",
    )
    serve = config("serve", "data=rentals", *overrides).serve
    environ = {f"HOUSING_{str(name).upper()}": str(value) for name, value in serve.items()}
    environ = {**os.environ, **environ, "PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics")}
    with (directory / "joiner.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "housing.feedback.joiner"], cwd=PROJECT, env=environ, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def read_metrics(directory: Path) -> dict[str, float]:
    """Return the metrics of a joiner as Prometheus scrapes them."""
    if not (directory / "metrics" / error_totals.METRICS_FILE).exists():
        return {}
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory / "metrics"))  # type: ignore[no-untyped-call]
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def test_a_label_waits_for_its_prediction(tmp_path: Path) -> None:
    name, unlogged = new_id(0), new_id(1)
    append(tmp_path / "log", "predictions-0", entry(UNKNOWN_ID, [1.0]))
    labels = [{"request_id": name, "row": 1, "value": 5.0}, {"request_id": unlogged, "row": 0, "value": 5.0}]
    publish(tmp_path, "1")
    with joiner(tmp_path, timeout=4):
        wait_for(lambda: bool(read_metrics(tmp_path)), "the joiner has started")
        append(tmp_path / "log", "feedback-0", {"time": time.time(), "feedback": labels})
        wait_for(lambda: query(tmp_path, "SELECT count(*) FROM pending") == [(2,)], "both labels are pending")
        append(tmp_path / "log", "predictions-0", entry(name, [1.0, 2.0]))
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_matched_total 1") == 1, "the label is matched")
        assert read_metrics(tmp_path)["housing_feedback_absolute_error_total 1"] == 3.0
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_unmatched_total"] == 1, "the other label is unmatched")


@pytest.mark.long
def test_counts_are_exact_after_kills_at_any_moment(tmp_path: Path) -> None:
    """After each kill, the next joiner also gets the previous labels again with another value."""
    names = [new_id(number) for number in range(2000)]
    append(tmp_path / "log", "predictions-0", *(entry(name, [1.0, 2.0]) for name in names))
    publish(tmp_path, "1")
    for kill in range(5):
        labels = [{"request_id": name, "row": number % 2, "value": 4.0} for number, name in enumerate(names[kill::5])]
        repeated = [{"request_id": name, "row": (number % 2), "value": 9.0} for number, name in enumerate(names[kill - 1 :: 5])]
        entries = labels + (repeated if kill else [])
        append(tmp_path / "log", "feedback-0", *({"time": time.time(), "feedback": [item]} for item in entries))
        with joiner(tmp_path) as process:
            time.sleep(0.3 + 0.3 * kill)  # the moment of the kill varies
            process.kill()
    with joiner(tmp_path):
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_matched_total 1", 0) >= 2000, "all labels are counted")
        append(
            tmp_path / "log", "feedback-0", {"time": time.time(), "feedback": [{"request_id": names[0], "row": 1, "value": 5.0}]}
        )
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_matched_total 1"] > 2000, "another step has finished")
        assert read_metrics(tmp_path)["housing_feedback_matched_total 1"] == 2001
        assert read_metrics(tmp_path)["housing_feedback_squared_error_total 1"] == 1000 * 9 + 1000 * 4 + 9
        assert read_metrics(tmp_path)["housing_feedback_duplicates_total"] == 4 * 400
        joined = lines(tmp_path / "log", "joined")
        assert {row["id"] for row in joined} == set(names)
        assert len(joined) <= 2001 + 4 * 400 + 9 * 400  # each kill repeats at most one step


def feedback_line(name: str, row: int = 0, value: float = 4.0) -> Label:
    """Return a line of a feedback file with one label."""
    return {"time": time.time(), "feedback": [{"request_id": name, "row": row, "value": value}]}


def query(directory: Path, sql: str) -> list[Any]:
    """Return rows of the joiner's database."""
    with closing(sqlite3.connect(directory / "log" / DATABASE_FILE)) as connection:
        return connection.execute(sql).fetchall()


def test_a_failed_step_changes_nothing_and_is_repeated(tmp_path: Path) -> None:
    """The step fails after counting, because a directory has the name of the file of joined rows."""
    name, log = new_id(0), tmp_path / "log"
    append(log, "predictions-0", entry(name, [1.0]))
    publish(tmp_path, "1")
    blocker = log / "joined-99991231T000000.000000Z.jsonl"
    blocker.mkdir()
    with joiner(tmp_path):
        wait_for(lambda: bool(read_metrics(tmp_path)), "the joiner has started")
        append(log, "feedback-0", feedback_line(name))
        wait_for(lambda: b"feedback is not counted at present" in (tmp_path / "joiner.log").read_bytes(), "the step fails")
        assert query(tmp_path, "SELECT * FROM counted") == query(tmp_path, "SELECT * FROM offsets WHERE bytes_read > 0") == []
        blocker.rmdir()
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_matched_total 1"] == 1, "the label is counted")
        assert read_metrics(tmp_path)["housing_feedback_duplicates_total"] == 0


def test_entries_of_counted_rows_are_removed_with_their_predictions(tmp_path: Path) -> None:
    name, log = new_id(0), tmp_path / "log"
    append(log, "predictions-0", entry(name, [1.0]))
    append(log, "feedback-0", feedback_line(name))
    publish(tmp_path, "1")
    with joiner(tmp_path, timeout=2):
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_matched_total 1") == 1, "the label is counted")
        assert query(tmp_path, "SELECT request_id, row FROM counted") == [(name, 0)]
        (predictions,) = log.glob("predictions-*")
        predictions.unlink()
        wait_for(lambda: not query(tmp_path, "SELECT * FROM counted"), "the entry is removed")
        append(log, "feedback-0", feedback_line(name))
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_unmatched_total"] == 1, "the repeated label is unmatched")
        metrics = read_metrics(tmp_path)
        assert (metrics["housing_feedback_matched_total 1"], metrics["housing_feedback_duplicates_total"]) == (1, 0)


def test_a_row_is_counted_once_across_restarts(tmp_path: Path) -> None:
    name = new_id(0)
    append(tmp_path / "log", "predictions-0", entry(name, [1.0, 2.0]))
    append(tmp_path / "log", "feedback-0", feedback_line(name))
    publish(tmp_path, "1")
    with joiner(tmp_path):
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_matched_total 1") == 1, "the label is counted")
    append(tmp_path / "log", "feedback-0", feedback_line(name), feedback_line(name, row=1))
    with joiner(tmp_path):
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_duplicates_total"] == 1, "the first row is a duplicate")
        assert read_metrics(tmp_path)["housing_feedback_matched_total 1"] == 2


def test_a_second_joiner_of_a_directory_waits(tmp_path: Path) -> None:
    with joiner(tmp_path) as first:
        wait_for(lambda: bool(read_metrics(tmp_path)), "the first joiner has started")
        with joiner(tmp_path) as second:
            wait_for(lambda: b"waiting until it ends" in (tmp_path / "joiner.log").read_bytes(), "the second joiner waits")
            (tmp_path / "metrics" / error_totals.METRICS_FILE).unlink()
            first.kill()
            first.wait(60)
            wait_for(lambda: bool(read_metrics(tmp_path)), "the second joiner has started")
            assert second.poll() is None


def test_each_current_version_has_its_own_counts_and_old_ones_share_theirs(tmp_path: Path) -> None:
    names = {version: new_id(number) for number, version in enumerate(["1", "2", "77"])}
    append(tmp_path / "log", "predictions-0", *(entry(name, [1.0], version) for version, name in names.items()))
    with joiner(tmp_path):
        wait_for(
            lambda: "housing_feedback_matched_total other" in read_metrics(tmp_path),
            "the joiner counts without a current version",
        )
        publish(tmp_path, "1")
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_matched_total 1") == 0, "version 1 starts at 0")
        publish(tmp_path, "2")
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_matched_total 2") == 0, "version 2 starts at 0")
        labels = [{"request_id": name, "row": 0, "value": 4.0} for name in names.values()]
        append(tmp_path / "log", "feedback-0", {"time": time.time(), "feedback": labels})
        wait_for(
            lambda: all(read_metrics(tmp_path)[f"housing_feedback_matched_total {name}"] == 1 for name in ("1", "2", OTHER)),
            "all labels are counted",
        )


def test_the_most_recently_used_versions_are_kept() -> None:
    totals: dict[str, ErrorTotals] = {}
    for version in range(20):
        totals = error_totals.track_version(totals, str(version))
        totals = error_totals.track_version(totals, "0")  # repeated rollbacks to version 0
    assert list(totals) == [OTHER, *map(str, range(20 - MAX_VERSIONS + 1, 20)), "0"]


def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path) -> None:
    """Each damaged line is before a valid one. Some damaged lines contain valid JSON."""
    log, names = tmp_path / "log", [new_id(number) for number in range(20)]
    valid = json.dumps(feedback_line(names[0]), separators=(",", ":"))
    (item,) = feedback_line(names[0])["feedback"]
    kinds: list[object] = [[], 5, "text", None, {}, {"time": 1, "feedback": 3}, {"time": 1, "feedback": [3]}]
    damaged_feedback = [
        valid[:30].encode(),
        valid.encode()[:-4] + b"\xff\xfe}]}",
        b"\x00" * 4096,
        *(json.dumps(value).encode() for value in kinds),
        b'{"time": "x", "feedback": []}',
        *(
            json.dumps({"time": time.time(), "feedback": [{**item, **change}]}).encode()
            for change in ({"row": -1}, {"row": 2**70}, {"row": 0.5}, {"value": "x"}, {"value": None}, {"request_id": 7})
        ),
        json.dumps({"time": time.time(), "feedback": [{"row": 0, "value": 1.0}]}).encode(),
        valid.replace("4.0", "1e999").encode(),
        valid.replace("4.0", "1e308").encode(),
        valid.replace("4.0", "9" * 5000).encode(),
    ]
    line = json.dumps(entry(names[1], [1.0]), separators=(",", ":"))
    damaged_predictions = [
        line.replace("[1.0]", "[null]").replace(names[1], names[2]),
        line.replace('"rows":[[0.0]]', '"rows":[]').replace(names[1], names[3]),
        line.replace('"version"', '"versiom"').replace(names[1], names[4]),
        line.replace(names[1], names[5])[:60],
        line.replace(names[1], names[6]).replace('"columns":["area"]', '"columns":7'),
    ]
    append(log, "predictions-0", entry(names[0], [1.0]))
    append(log, "feedback-0", feedback_line(names[7]))
    (predictions,), (feedback,) = log.glob("predictions-0*"), log.glob("feedback-0*")
    with predictions.open("ab") as file:
        file.write("\n".join([*damaged_predictions, line, ""]).encode())
    with feedback.open("ab") as file:
        file.write(b"\n".join([*damaged_feedback, b""]))
    append(log, "feedback-0", *(feedback_line(name) for name in names[:7]))
    publish(tmp_path, "1")
    with joiner(tmp_path, timeout=1):
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_matched_total 1") == 2, "both valid labels are counted")
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_unmatched_total"] == 6, "the other labels are unmatched")
        assert read_metrics(tmp_path)["housing_feedback_malformed_lines_total"] == len(damaged_feedback) + len(
            damaged_predictions
        )
        assert read_metrics(tmp_path)["housing_feedback_absolute_error_total 1"] == 6.0
        assert b"Skipped a malformed line of " in (tmp_path / "joiner.log").read_bytes()


def page_offset(table: str, connection: sqlite3.Connection) -> int:
    """Return the byte offset of the first page of a table."""
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
        page = page_offset("counted", connection)
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
    append(log, "predictions-0", *(entry(name, [1.0], str(1 + index % 2)) for index, name in enumerate(names)))
    append(log, "feedback-0", *map(feedback_line, names), feedback_line(names[0]), b"{".decode())
    publish(tmp_path, "1")
    publish(tmp_path, "2")
    with joiner(tmp_path):
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_duplicates_total") == 1, "all labels are counted")
        before = read_metrics(tmp_path)
    damage_database(log / DATABASE_FILE, kind)
    append(log, "feedback-0", feedback_line(names[1]))  # a duplicate, which only the joiner with the new database sees
    with joiner(tmp_path):
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_duplicates_total"] == 2, "the duplicate is counted")
        expected = {"housing_feedback_duplicates_total": 2.0, "housing_feedback_damaged_databases_total": 1.0}
        assert read_metrics(tmp_path) == {**before, **expected}
    assert b"The database of feedback is damaged. It is now" in (tmp_path / "joiner.log").read_bytes()
    assert len(list(log.glob(f"{DATABASE_FILE}.damaged-*"))) == 1


def test_a_truncated_feedback_file_is_read_again(tmp_path: Path) -> None:
    log, names = tmp_path / "log", [new_id(number) for number in range(2)]
    append(log, "predictions-0", *(entry(name, [1.0]) for name in names))
    append(log, "feedback-0", *[feedback_line(names[0])] * 5)
    publish(tmp_path, "1")
    with joiner(tmp_path):
        wait_for(lambda: read_metrics(tmp_path).get("housing_feedback_duplicates_total") == 4, "all labels are counted")
        (feedback,) = log.glob("feedback-0*")
        os.truncate(feedback, 0)
        append(log, "feedback-0", feedback_line(names[1]))
        wait_for(lambda: read_metrics(tmp_path)["housing_feedback_matched_total 1"] == 2, "the new label is counted")
