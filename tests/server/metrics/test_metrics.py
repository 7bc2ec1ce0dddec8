"""The metrics of a real server of two workers: exact, whatever is killed, replaced or swapped, and never of a caller's making."""

import dataclasses
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.data import table as data
from housing.data.split import split
from housing.promotion.promotion import promote
from housing.schema.column import Vector
from housing.schema.histogram import bin_counts
from housing.tracking import store as tracking
from server.core import releases
from server.metrics.mmap_counters import MmapCounters
from server.metrics.model_metrics import VERSION_MARK, ModelMetrics
from server.metrics.request_metrics import STAGES
from tests.support.server import Server, children, scraped, serving
from tests.support.tables import FLAT, config, rentals_frame, train
from tests.support.waiting import wait_for

Figures = dict[str, float]
ADDED_UP = re.compile(r"\w+_(total|bucket|count|sum)\b")
TOTALS = re.compile(
    r"housing_(rows|column_bin|prediction_bin|out_of_range|rejected_values|interval_width_\w+|versions_\w+)_total"
)
SWEPT = 600  # rows: enough for each bin of each column


@pytest.fixture(scope="module")
def server(served_home: Path) -> Iterator[Server]:
    """The promoted model, served by two workers."""
    with serving(served_home) as running:
        settled(running)
        yield running


@pytest.fixture(scope="module")
def first(server: Server) -> Figures:
    """All metrics, before anything was predicted."""
    return scraped(server)


def settled(server: Server) -> None:
    """Wait until both workers and the joiner count for the model, and the puller counts."""
    wait_for(lambda: server.answers("/readyz"), "the model is published")
    wait_for(lambda: len(files(server, "counter_*-version-*")) == 2, "both workers count it")
    wait_for(lambda: "housing_version_rejected" in scraped(server), "the puller counts, and is at rest")
    wait_for(lambda: 'housing_feedback_matched_total{version="1"}' in scraped(server), "the joiner counts for it")


def folder(server: Server) -> Path:
    """Where the metrics of a server lie."""
    environ = Path(f"/proc/{children(server.process.pid)[0]}/environ").read_bytes().split(b"\0")
    return Path(next(line.partition(b"=")[2].decode() for line in environ if line.startswith(b"PROMETHEUS_MULTIPROC_DIR=")))


def files(server: Server, pattern: str = "*.db") -> set[str]:
    """Names of the files of metrics."""
    return {path.name for path in folder(server).glob(pattern)}


def bundle_of(server: Server) -> Bundle:
    """The bundle in use."""
    used = releases.current_release(server.log.parent / "serving" / "rentals-staging")
    assert used is not None
    return Bundle.read(used / releases.BUNDLE)


@contextmanager
def rising(server: Server) -> Iterator[Figures]:
    """Give by how much each of the totals rises while the block runs, where it does."""
    before, risen = totals(server), Figures()
    yield risen
    risen |= {name: value - before.get(name, 0.0) for name, value in totals(server).items() if value != before.get(name, 0.0)}


def totals(server: Server) -> Figures:
    """What is counted of predictions, refusals and versions."""
    return {name: value for name, value in scraped(server).items() if TOTALS.match(name)}


def odd_flats(rows: int, seed: int) -> list[dict[str, Any]]:
    """Flats unlike those of the training rows: larger ones, some larger than any, and more without a year."""
    random = np.random.default_rng(seed)
    frame = rentals_frame(rows, seed).assign(area=random.uniform(5, 300, rows), built=random.integers(1850, 2031, rows))
    flats = [dict(zip(FLAT, row, strict=True)) for row in frame[list(FLAT)].astype(object).to_numpy().tolist()]
    return [{**flat, "built": None if random.random() < 0.3 else flat["built"]} for flat in flats]


def send(server: Server, flats: list[dict[str, Any]]) -> Vector:
    """Ask for predictions in all forms: a row, many rows, lists, MLflow's protocol, CSV."""
    third = len(flats) // 3
    names = list(FLAT)
    lists = {"columns": names[::-1], "rows": [[flat[name] for name in names[::-1]] for flat in flats[third : 2 * third]]}
    answers = [server.predict(flats[0]), server.predict({"instances": flats[1:third]}), server.predict(lists)]
    answers.append(server.ask("/invocations", json.dumps({"dataframe_records": flats[2 * third : -5]}).encode()))
    text = pd.DataFrame(flats[-5:], columns=names).to_csv(index=False)
    answers.append(server.ask("/invocations", text.encode(), Content_Type="text/csv"))
    assert {answer.status for answer in answers} == {200}, answers
    return np.concatenate([answer.json["predictions"] for answer in answers])


def expected(bundle_: Bundle, flats: list[dict[str, Any]], predictions: Vector, training: Any) -> Figures:
    """What numpy counts of rows and predictions, by series; what is 0 is left out."""
    matrix, counted = bundle_.schema.encode_records(flats), Counter[str]()
    counted['housing_rows_total{version="1"}'] = len(flats)
    for place, column in enumerate(bundle_.schema.features):
        numbers, edges = matrix[:, place], np.array(bundle_.reference["columns"][column.name]["edges"])
        names = column.categories or (("false", "true") if column.type == "bool" else [f"{bin_:02d}" for bin_ in range(10)])
        for name, count in zip(names, bin_counts(numbers, edges), strict=False):
            counted[f'housing_column_bin_total{{bin="{name}",column="{column.name}",version="1"}}'] = int(count)
        counted[f'housing_column_bin_total{{bin="missing",column="{column.name}",version="1"}}'] = int(np.isnan(numbers).sum())
        if column.is_number:
            known = training[column.name]
            outside = int(((numbers < known.min()) | (numbers > known.max())).sum())
            counted[f'housing_out_of_range_total{{column="{column.name}",version="1"}}'] = outside
    for bin_, count in enumerate(bin_counts(predictions, np.array(bundle_.reference["prediction"]["edges"]))):
        counted[f'housing_prediction_bin_total{{bin="{bin_:02d}",version="1"}}'] = int(count)
    return {name: count for name, count in counted.items() if count}


def test_everything_is_there_at_0_once_a_version_is_loaded(server: Server, first: Figures) -> None:
    added_up = {name: value for name, value in first.items() if ADDED_UP.match(name)}
    quiet = {name: value for name, value in added_up.items() if "_seconds" not in name and "published" not in name}
    assert set(quiet.values()) == {0.0}
    assert not any(value for name, value in first.items() if name.startswith("housing_stage_seconds"))
    for route in ("/predict", "/invocations"):
        assert first[f'housing_request_seconds_count{{route="{route}",status="500"}}'] == 0
    bins = {name.replace("_total", "_share") for name in first if "_bin_total{" in name}
    assert bins == {name for name in first if "_bin_share{" in name}
    known = bundle_of(server).reference
    assert len(bins) == sum(len(each["shares"]) for each in (*known["columns"].values(), known["prediction"])) + 1  # missing


def test_the_documentation_names_every_metric_and_no_other(first: Figures) -> None:
    told = (PROJECT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(housing_\w+)`", told, re.MULTILINE))
    assert named == {re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name.partition("{")[0]) for name in first}


def test_shares_of_the_training_rows_stand_beside_the_counts(server: Server, first: Figures) -> None:
    known = bundle_of(server).reference
    for name, column in known["columns"].items():
        shares = [value for series, value in first.items() if f'column="{name}"' in series and "_bin_share" in series]
        assert sorted(shares) == sorted([*column["shares"], *([column["missing"]] if name == "built" else [])])
    shares = [value for series, value in first.items() if series.startswith("housing_prediction_bin_share")]
    assert sorted(shares) == sorted(known["prediction"]["shares"])


def test_what_is_served_is_told_once(server: Server, first: Figures) -> None:
    told = server.ask("/model").json
    card = told["card"]
    labels = f'alias="staging",data="{card["data"]["fingerprint"]}",model="housing-rentals",run_id="{card["run_id"]}",version="1"'
    assert {name: value for name, value in first.items() if "model_info" in name} == {f"housing_model_info{{{labels}}}": 1.0}
    assert first["housing_ready"] == 1
    assert first['housing_model_validation_rmse{version="1"}'] == card["metrics"]["rmse"]
    assert time.time() - 600 < first['housing_model_created_seconds{version="1"}'] < time.time()
    assert len(card["data"]["fingerprint"]) == 64


def test_rows_values_and_predictions_are_counted_as_numpy_counts_them(server: Server, first: Figures) -> None:
    flats = odd_flats(SWEPT, seed=5)
    with rising(server) as risen:
        predictions = send(server, flats)
    training = train_rows(server)
    assert risen == expected(bundle_of(server), flats, predictions, training)
    assert any("out_of_range" in name for name in risen) and any('bin="missing"' in name for name in risen)
    assert first.keys() >= risen.keys()


def train_rows(server: Server) -> pd.DataFrame:
    """The rows that the bundle was fitted on: all but the test rows, by the split that the run used."""
    cfg = config("train", "data=rentals", f"data.path={server.log.parent}/data/rentals.csv")
    table = data.load(cfg.data)
    parts = split(table, cfg.split)
    rows = np.concatenate([parts.train, parts.valid])
    return pd.DataFrame(table.matrix[rows], columns=[column.name for column in table.schema.features])


REFUSALS = [
    ({"area": None}, {("area", "missing"): 1}),
    ({"area": "50"}, {("area", "type"): 1}),
    ({"area": "0 is above 5"}, {("area", "type"): 1}),
    ({"area": 1e999}, {("area", "type"): 1}),
    ({"area": 500.5, "rooms": 0}, {("area", "bounds"): 1, ("rooms", "bounds"): 1}),
    ({"rooms": 2.5}, {("rooms", "type"): 1}),
    ({"furnished": 1}, {("furnished", "type"): 1}),
    ({"quarter": "moon"}, {("quarter", "category"): 1}),
    ({"quarter": None}, {("quarter", "missing"): 1}),
    ({"made up by a caller": 1, "and another": 2}, {("other", "unknown"): 2}),
]


@pytest.mark.parametrize(("change", "counted"), REFUSALS)
@pytest.mark.parametrize("route", ["/predict", "/explain"])
def test_refused_values_are_counted_by_column_and_reason(
    server: Server, first: Figures, route: str, change: dict[str, Any], counted: dict[tuple[str, str], int]
) -> None:
    with rising(server) as risen:
        body = json.dumps({**FLAT, **change}).replace("Infinity", "1e999")
        assert server.ask(route, body.encode()).status == 422
    assert risen == {
        f'housing_rejected_values_total{{column="{column}",reason="{reason}"}}': count
        for (column, reason), count in counted.items()
    }
    assert first.keys() >= risen.keys()


def test_rows_that_are_none_are_refused_for_another_reason(server: Server) -> None:
    with rising(server) as risen:
        assert server.predict({"instances": [FLAT, 5]}).status == 422
        assert server.predict({"columns": ["area", "area"], "rows": [[1, 2]]}).status == 422
    other = 'housing_rejected_values_total{column="other",reason="other"}'
    assert risen[other] == 2 and all(reason in name for name in risen.keys() - {other} for reason in ["missing"])


def test_each_stage_of_a_prediction_is_timed_and_of_nothing_else(server: Server) -> None:
    def stages() -> Figures:
        return {name: value for name, value in scraped(server).items() if "stage" in name or 'route="/predict"' in name}

    before = stages()
    for _ in range(10):
        server.predict(FLAT)
        server.predict({**FLAT, "area": -1})
    risen = {name: value - before[name] for name, value in stages().items()}
    for stage in STAGES:
        assert risen[f'housing_stage_seconds_count{{stage="{stage}"}}'] == 10
        assert risen[f'housing_stage_seconds_bucket{{le="+Inf",stage="{stage}"}}'] == 10
    took = [risen[f'housing_stage_seconds_sum{{stage="{stage}"}}'] for stage in STAGES]
    assert min(took) > 0
    assert sum(took) < risen['housing_request_seconds_sum{route="/predict",status="200"}']


def test_widths_of_intervals_add_up(server: Server) -> None:
    body = json.dumps({"instances": odd_flats(20, seed=6)}).encode()
    with rising(server) as risen:
        answers = [server.ask(f"/predict?interval={share}", body).json for share in (0.5, 0.9)]
    width = sum(np.subtract(answer["upper"], answer["lower"]).sum() for answer in answers)
    assert risen['housing_interval_width_sum_total{version="1"}'] == pytest.approx(width)
    assert risen['housing_interval_width_count_total{version="1"}'] == 40


def test_a_caller_makes_no_series(server: Server) -> None:
    before = set(scraped(server))
    for place in range(5):
        server.ask(f"/made-up-{place}")
        server.ask("/predict", method=f"BREW{place}")
        assert server.ask(f"/metrics?name[]=made-up-{place}").status == 200
        server.ask(f"/predict?made-up-{place}=1", b"{}")
        server.predict({**FLAT, f"made-up-{place}": 1})
        server.predict({"columns": [f"made-up-{place}"], "rows": [[1]]})
        server.predict({**FLAT, "quarter": f"made-up-{place}"})
        server.ask("/predict", json.dumps(FLAT).encode(), Content_Type=f"made-up/{place}")
        server.ask("/feedback", json.dumps({"request_id": f"made-up-{place}", "value": 1}).encode())
    new = set(scraped(server)) - before
    assert {re.sub(r'(le="[^"]*",|_(bucket|sum|count))', "", name) for name in new} <= {
        f'housing_request_seconds{{route="{route}",status="{status}"}}'
        for route, status in (("unknown", 404), ("unknown", 405), ("/predict", 415), ("/feedback", 422))
    }


def replaced(server: Server, end: Callable[[int], None]) -> None:
    """End a worker, and wait until another is there and has loaded the model."""
    before = server.workers()
    end(before[0])
    wait_for(lambda: before[0] not in (now := server.workers()) and len(now) == 2, "another worker is there")
    wait_for(lambda: all(maps(worker, VERSION_MARK) for worker in server.workers()), "it counts for the version")


def maps(pid: int, name: str) -> bool:
    """Whether a process has opened a file of metrics with that in its name."""
    try:
        return name in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_changes_no_total_and_adds_no_file(server: Server, number: signal.Signals) -> None:
    send(server, odd_flats(60, seed=7))
    before, there = totals(server), files(server)
    replaced(server, lambda worker: os.kill(worker, number))
    assert (totals(server), files(server)) == (before, there)
    with rising(server) as risen:
        for _ in range(30):
            server.predict(FLAT)
    assert risen['housing_rows_total{version="1"}'] == 30
    assert files(server) == there


def test_a_puller_that_is_killed_goes_on_counting(server: Server) -> None:
    there, before = files(server), set(children(server.process.pid))
    (puller,) = (pid for pid in before if b"housing.serving.puller" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(puller, signal.SIGKILL)
    wait_for(lambda: any(maps(pid, "/counter_") for pid in set(children(server.process.pid)) - before), "another puller counts")
    assert (scraped(server)["housing_versions_published_total"], files(server)) == (1, there)


def test_both_formats_that_prometheus_reads_are_whole(server: Server) -> None:
    accept = "application/openmetrics-text;version=1.0.0"
    plain, open_ = server.ask("/metrics").text, server.ask("/metrics", Accept=accept).text
    read: Any = [*zip((plain_text, open_metrics), (plain, open_), strict=True)]
    names = [{sample.name for family in parse(text) for sample in family.samples} for parse, text in read]
    assert names[0] == names[1] >= {"housing_rows_total", "housing_column_bin_share", "housing_model_info"}


def test_only_versions_that_are_published_have_files_and_a_number_that_comes_again_begins_anew(
    bundle: Bundle, tmp_path: Path
) -> None:
    bundle.write(tmp_path / "bundle")
    kept = []
    for name in ("1-a", "2-b", "2-c", "3-d", "1-a"):
        version = name[0]
        releases.publish(tmp_path / "published", name, tmp_path / "bundle", {"version": version})
        card = {"created": "2026-11-27T08:00:00+00:00", "metrics": {"rmse": 1.0}}
        counts = ModelMetrics(tmp_path, 0, tmp_path / "published" / name, dataclasses.replace(bundle, card=card), version)
        counts.add(bundle.background, bundle.predict(bundle.background))
        kept.append({path.stem.partition(VERSION_MARK)[2] for path in tmp_path.glob("counter_0*")})
    assert kept == [{"1-a"}, {"1-a", "2-b"}, {"2-c"}, {"2-c", "3-d"}, {"3-d", "1-a"}]
    collector: Any = MultiProcessCollector(None, str(tmp_path))  # type: ignore[no-untyped-call]
    rows = [sample for metric in collector.collect() for sample in metric.samples]
    found = {sample.labels["version"]: sample.value for sample in rows if sample.name == "housing_rows_total"}
    assert found == {"1": len(bundle.background), "3": len(bundle.background)}


def test_counters_go_on_in_a_kept_file_where_a_new_release_counts_more(tmp_path: Path) -> None:
    def keys(meaning: str, *buckets: str) -> list[str]:
        return [json.dumps(["t", "t_total", {"bucket": bucket}, meaning]) for bucket in buckets]

    MmapCounters(tmp_path / "counter_0.db", keys("before", "a", "b")).add(np.array([1.0, 2.0]))
    MmapCounters(tmp_path / "counter_0.db", keys("after", "b", "c")).add(np.array([10.0, 20.0]))
    collector: Any = MultiProcessCollector(None, str(tmp_path))  # type: ignore[no-untyped-call]
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    assert {sample.labels["bucket"]: sample.value for sample in samples} == {"a": 1.0, "b": 12.0, "c": 20.0}


def test_many_threads_lose_no_count(tmp_path: Path) -> None:
    keys = [json.dumps(["t", "t_total", {"number": str(number)}, "many"]) for number in range(1200)]  # as of a hundred columns
    cells = MmapCounters(tmp_path / "counter_0.db", keys)
    ones = np.ones(len(keys))

    def add() -> None:
        for _ in range(2000):
            cells.add(ones)

    threads, usual = [threading.Thread(target=add) for _ in range(4)], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds: they take turns in the middle of an addition, too
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    again = MmapCounters(tmp_path / "counter_0.db", keys)
    assert (again._values[again._offsets] == 8_000).all()  # pylint: disable=protected-access


@pytest.mark.long
def test_workers_that_are_replaced_again_and_again_change_no_total_and_their_files_are_bounded(
    served_home: Path, tmp_path: Path
) -> None:
    with serving(served_home, f"serve.log_dir={tmp_path}") as running:
        settled(running)
        send(running, odd_flats(60, seed=8))
        most = 0
        for round_ in range(4):
            before, old = totals(running), set(running.workers())
            running.process.send_signal(signal.SIGHUP)
            wait_for(partial(are_new, running, old), "all workers are new")
            running.predict(FLAT)
            after = totals(running)
            assert after.keys() == before.keys()
            assert all(after[name] >= before[name] for name in before)
            assert after['housing_rows_total{version="1"}'] == before['housing_rows_total{version="1"}'] + 1
            assert len(files(running)) <= (most or 99)
            most = len(files(running)) if round_ == 1 else most  # two of each kind, and as many beside them for the hand-over


def are_new(server: Server, old: set[int]) -> bool:
    """Whether all workers are others, and the old ones are gone."""
    return len(server.workers()) == 2 and not old & set(server.workers())


@pytest.mark.long
def test_a_swap_keeps_the_version_before_and_no_other_and_no_scrape_fails(home: Path) -> None:
    runs = [train(home, "model=linear", "figures=false", *fewer) for fewer in ((), ("max_rows=500",), ("max_rows=400",))]
    with serving(home) as running:
        assert scraped(running)["housing_ready"] == 0
        assert not any("model_info" in name for name in scraped(running))
        assert promote(config("promote", "data=rentals", f"run_id={runs[0].run_id}")).verdict == "PROMOTE"
        store, seen, statuses = tracking.connect(config("train", "data=rentals").mlflow), [], Counter[int]()
        stop = threading.Event()
        scraper = threading.Thread(target=lambda: scrape(running, stop, statuses))
        scraper.start()
        for place, made in enumerate(runs):
            if place:
                store.registry.set_alias(
                    "housing-rentals", "staging", store.registry.register("housing-rentals", str(made.run_id))
                )
            version = str(place + 1)
            wait_for(partial(all_serve, running, version), f"all workers serve version {version}")
            running.predict({"instances": [FLAT] * (place + 1)})
            seen.append(scraped(running))
        stop.set()
        scraper.join()
        rows = [{name: value for name, value in each.items() if name.startswith("housing_rows")} for each in seen]
        assert [each["housing_ready"] for each in seen] == [1, 1, 1]
        assert versions(seen[0]) == {"1"} and versions(seen[1]) == {"1", "2"} and versions(seen[2]) == {"2", "3"}
        assert rows[1]['housing_rows_total{version="1"}'] == rows[0]['housing_rows_total{version="1"}']
        assert rows[2]['housing_rows_total{version="2"}'] == rows[1]['housing_rows_total{version="2"}']
        assert [len([name for name in each if "model_info" in name]) for each in seen] == [1, 1, 1]
        assert set(statuses) == {200} and statuses[200] > 20


def scrape(server: Server, stop: threading.Event, statuses: Counter[int]) -> None:
    """Ask for the metrics again and again."""
    while not stop.is_set():
        statuses[server.ask("/metrics").status] += 1


def all_serve(server: Server, version: str) -> bool:
    """Whether each worker counts a version and answers with it."""
    return len(files(server, f"counter_*-version-{version}-*")) == 2 and {
        server.ask("/model").json.get("version") for _ in range(20)
    } == {version}


def versions(figures: Figures) -> set[str]:
    """The versions that have bins."""
    return {found[1] for name in figures if "_bin_" in name and (found := re.search(r'version="(\w+)"', name))}
