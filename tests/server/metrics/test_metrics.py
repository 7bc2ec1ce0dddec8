"""The metrics of a real server with two workers: exact after kills, replacements and new versions, with bounded series."""

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
from housing.server_files import releases
from housing.serving import publishing
from housing.tracking import store as tracking
from server.metrics.mmap_counters import MmapCounters
from server.metrics.model_metrics import VERSION_MARK, ModelMetrics
from server.metrics.request_metrics import STAGES
from tests.support.server import Server, children, children_running, scraped, serving
from tests.support.tables import FLAT, config, rentals_frame, train
from tests.support.waiting import wait_for

Metrics = dict[str, float]
COUNTERS = re.compile(r"\w+_(total|bucket|count|sum)\b")
TOTALS = re.compile(
    r"housing_(rows|column_bin|prediction_bin|out_of_range|rejected_values|interval_width_\w+|versions_\w+)_total"
)
N_ROWS = 600  # enough for each bin of each column


@pytest.fixture(scope="module")
def server(served_home: Path) -> Iterator[Server]:
    """The promoted model, served by two workers."""
    with serving(served_home) as running:
        wait_until_settled(running)
        yield running


@pytest.fixture(scope="module")
def first(server: Server) -> Metrics:
    """All metrics before the first prediction."""
    return scraped(server)


def wait_until_settled(server: Server) -> None:
    """Wait until both workers, the joiner and the puller have their metrics of the version."""
    wait_for(lambda: server.answers("/readyz"), "the model is published")
    wait_for(lambda: len(files(server, "counter_*-version-*")) == 2, "both workers have metric files of the version")
    wait_for(lambda: "housing_version_rejected" in scraped(server), "the puller has its metrics")
    wait_for(
        lambda: 'housing_feedback_matched_total{version="1"}' in scraped(server), "the joiner has its metrics of the version"
    )


def metrics_dir(server: Server) -> Path:
    """Return the directory of the metric files of a server."""
    master = children_running(server.process.pid, "gunicorn")[0]
    environ = Path(f"/proc/{master}/environ").read_bytes().split(b"\0")
    return Path(next(line.partition(b"=")[2].decode() for line in environ if line.startswith(b"PROMETHEUS_MULTIPROC_DIR=")))


def files(server: Server, pattern: str = "*.db") -> set[str]:
    """Return the names of the metric files."""
    return {path.name for path in metrics_dir(server).glob(pattern)}


def read_current_bundle(server: Server) -> Bundle:
    """Return the bundle that the server uses."""
    release = releases.current_release(server.log.parent / "serving" / "rentals-staging")
    assert release is not None
    return Bundle.read(release / releases.BUNDLE)


@contextmanager
def increases_during(server: Server) -> Iterator[Metrics]:
    """Yield a dictionary that has the increases of the totals after the block, without zeros."""
    before, increases = totals(server), Metrics()
    yield increases
    increases |= {name: value - before.get(name, 0.0) for name, value in totals(server).items() if value != before.get(name, 0.0)}


def totals(server: Server) -> Metrics:
    """Return the counters of rows, rejected values and versions."""
    return {name: value for name, value in scraped(server).items() if TOTALS.match(name)}


def unusual_flats(rows: int, seed: int) -> list[dict[str, Any]]:
    """Return flats that differ from the training rows: larger, some out of range, and more without a year."""
    random = np.random.default_rng(seed)
    frame = rentals_frame(rows, seed).assign(area=random.uniform(5, 300, rows), built=random.integers(1850, 2031, rows))
    flats = [dict(zip(FLAT, row, strict=True)) for row in frame[list(FLAT)].astype(object).to_numpy().tolist()]
    return [{**flat, "built": None if random.random() < 0.3 else flat["built"]} for flat in flats]


def send(server: Server, flats: list[dict[str, Any]]) -> Vector:
    """Request predictions in all formats: a row, many rows, lists, MLflow's protocol and CSV."""
    third = len(flats) // 3
    names = list(FLAT)
    lists = {"columns": names[::-1], "rows": [[flat[name] for name in names[::-1]] for flat in flats[third : 2 * third]]}
    responses = [server.predict(flats[0]), server.predict({"instances": flats[1:third]}), server.predict(lists)]
    responses.append(server.ask("/invocations", json.dumps({"dataframe_records": flats[2 * third : -5]}).encode()))
    text = pd.DataFrame(flats[-5:], columns=names).to_csv(index=False)
    responses.append(server.ask("/invocations", text.encode(), Content_Type="text/csv"))
    assert {response.status for response in responses} == {200}, responses
    return np.concatenate([response.json["predictions"] for response in responses])


def count_with_numpy(bundle_: Bundle, flats: list[dict[str, Any]], predictions: Vector, training: Any) -> Metrics:
    """Return the counts of rows and predictions by series, computed with numpy, without zeros."""
    matrix, counts = bundle_.schema.encode_records(flats), Counter[str]()
    counts['housing_rows_total{version="1"}'] = len(flats)
    for index, column in enumerate(bundle_.schema.features):
        numbers, edges = matrix[:, index], np.array(bundle_.reference["columns"][column.name]["edges"])
        names = column.categories or (("false", "true") if column.type == "bool" else [f"{bin_:02d}" for bin_ in range(10)])
        for name, count in zip(names, bin_counts(numbers, edges), strict=False):
            counts[f'housing_column_bin_total{{bin="{name}",column="{column.name}",version="1"}}'] = int(count)
        counts[f'housing_column_bin_total{{bin="missing",column="{column.name}",version="1"}}'] = int(np.isnan(numbers).sum())
        if column.is_number:
            training_values = training[column.name]
            outside = int(((numbers < training_values.min()) | (numbers > training_values.max())).sum())
            counts[f'housing_out_of_range_total{{column="{column.name}",version="1"}}'] = outside
    for bin_, count in enumerate(bin_counts(predictions, np.array(bundle_.reference["prediction"]["edges"]))):
        counts[f'housing_prediction_bin_total{{bin="{bin_:02d}",version="1"}}'] = int(count)
    return {name: count for name, count in counts.items() if count}


def test_all_counters_exist_at_0_when_a_version_is_loaded(server: Server, first: Metrics) -> None:
    counters = {name: value for name, value in first.items() if COUNTERS.match(name)}
    unused = {name: value for name, value in counters.items() if "_seconds" not in name and "published" not in name}
    assert set(unused.values()) == {0.0}
    assert not any(value for name, value in first.items() if name.startswith("housing_stage_seconds"))
    for route in ("/predict", "/invocations"):
        assert first[f'housing_request_seconds_count{{route="{route}",status="500"}}'] == 0
    bins = {name.replace("_total", "_share") for name in first if "_bin_total{" in name}
    assert bins == {name for name in first if "_bin_share{" in name}
    reference = read_current_bundle(server).reference
    histograms = (*reference["columns"].values(), reference["prediction"])
    assert len(bins) == sum(len(histogram["shares"]) for histogram in histograms) + 1  # the bin of missing values


def test_the_documentation_lists_exactly_the_existing_metrics(first: Metrics) -> None:
    page = (PROJECT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    of_the_server, _, _ = page.partition("\n## ")  # the next section is about the metrics that a command exports
    names = set(re.findall(r"^\| `(housing_\w+)`", of_the_server, re.MULTILINE))
    assert names == {re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name.partition("{")[0]) for name in first}


def test_the_shares_of_the_training_rows_are_metrics(server: Server, first: Metrics) -> None:
    reference = read_current_bundle(server).reference
    for name, column in reference["columns"].items():
        shares = [value for series, value in first.items() if f'column="{name}"' in series and "_bin_share" in series]
        assert sorted(shares) == sorted([*column["shares"], *([column["missing"]] if name == "built" else [])])
    shares = [value for series, value in first.items() if series.startswith("housing_prediction_bin_share")]
    assert sorted(shares) == sorted(reference["prediction"]["shares"])


def test_the_served_version_has_a_single_info_series(server: Server, first: Metrics) -> None:
    card = server.ask("/model").json["card"]
    labels = f'alias="staging",data="{card["data"]["fingerprint"]}",model="housing-rentals",run_id="{card["run_id"]}",version="1"'
    assert {name: value for name, value in first.items() if "model_info" in name} == {f"housing_model_info{{{labels}}}": 1.0}
    assert first["housing_ready"] == 1
    assert first['housing_model_validation_rmse{version="1"}'] == card["metrics"]["rmse"]
    assert time.time() - 86_400 < first['housing_model_created_seconds{version="1"}'] < time.time()
    assert len(card["data"]["fingerprint"]) == 64


def test_rows_values_and_predictions_are_counted_like_with_numpy(server: Server, first: Metrics) -> None:
    flats = unusual_flats(N_ROWS, seed=5)
    with increases_during(server) as increases:
        predictions = send(server, flats)
    training = train_rows(server)
    assert increases == count_with_numpy(read_current_bundle(server), flats, predictions, training)
    assert any("out_of_range" in name for name in increases) and any('bin="missing"' in name for name in increases)
    assert first.keys() >= increases.keys()


def train_rows(server: Server) -> pd.DataFrame:
    """Return the rows that the bundle was fitted on: all except the test rows."""
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
    ({"an unknown column": 1, "and another": 2}, {("other", "unknown"): 2}),
]


@pytest.mark.parametrize(("change", "counted"), REFUSALS)
@pytest.mark.parametrize("route", ["/predict", "/explain"])
def test_rejected_values_are_counted_by_column_and_reason(
    server: Server, first: Metrics, route: str, change: dict[str, Any], counted: dict[tuple[str, str], int]
) -> None:
    with increases_during(server) as increases:
        body = json.dumps({**FLAT, **change}).replace("Infinity", "1e999")
        assert server.ask(route, body.encode()).status == 422
    assert increases == {
        f'housing_rejected_values_total{{column="{column}",reason="{reason}"}}': count
        for (column, reason), count in counted.items()
    }
    assert first.keys() >= increases.keys()


def test_invalid_rows_are_counted_with_the_reason_other(server: Server) -> None:
    with increases_during(server) as increases:
        assert server.predict({"instances": [FLAT, 5]}).status == 422
        assert server.predict({"columns": ["area", "area"], "rows": [[1, 2]]}).status == 422
    other = 'housing_rejected_values_total{column="other",reason="other"}'
    assert increases[other] == 2 and all(reason in name for name in increases.keys() - {other} for reason in ["missing"])


def test_the_stages_of_successful_predictions_are_timed(server: Server) -> None:
    def stages() -> Metrics:
        return {name: value for name, value in scraped(server).items() if "stage" in name or 'route="/predict"' in name}

    before = stages()
    for _ in range(10):
        server.predict(FLAT)
        server.predict({**FLAT, "area": -1})
    increases = {name: value - before[name] for name, value in stages().items()}
    for stage in STAGES:
        assert increases[f'housing_stage_seconds_count{{stage="{stage}"}}'] == 10
        assert increases[f'housing_stage_seconds_bucket{{le="+Inf",stage="{stage}"}}'] == 10
    durations = [increases[f'housing_stage_seconds_sum{{stage="{stage}"}}'] for stage in STAGES]
    assert min(durations) > 0
    assert sum(durations) < increases['housing_request_seconds_sum{route="/predict",status="200"}']


def test_the_widths_of_intervals_are_summed(server: Server) -> None:
    body = json.dumps({"instances": unusual_flats(20, seed=6)}).encode()
    with increases_during(server) as increases:
        responses = [server.ask(f"/predict?interval={share}", body).json for share in (0.5, 0.9)]
    width = sum(np.subtract(response["upper"], response["lower"]).sum() for response in responses)
    assert increases['housing_interval_width_sum_total{version="1"}'] == pytest.approx(width)
    assert increases['housing_interval_width_count_total{version="1"}'] == 40


def test_clients_cannot_create_series(server: Server) -> None:
    before = set(scraped(server))
    for number in range(5):
        server.ask(f"/made-up-{number}")
        server.ask("/predict", method=f"BREW{number}")
        assert server.ask(f"/metrics?name[]=made-up-{number}").status == 200
        server.ask(f"/predict?made-up-{number}=1", b"{}")
        server.predict({**FLAT, f"made-up-{number}": 1})
        server.predict({"columns": [f"made-up-{number}"], "rows": [[1]]})
        server.predict({**FLAT, "quarter": f"made-up-{number}"})
        server.ask("/predict", json.dumps(FLAT).encode(), Content_Type=f"made-up/{number}")
        server.ask("/feedback", json.dumps({"request_id": f"made-up-{number}", "value": 1}).encode())
    new = set(scraped(server)) - before
    assert {re.sub(r'(le="[^"]*",|_(bucket|sum|count))', "", name) for name in new} <= {
        f'housing_request_seconds{{route="{route}",status="{status}"}}'
        for route, status in (("unknown", 404), ("unknown", 405), ("/predict", 415), ("/feedback", 422))
    }


def replace_worker(server: Server, end: Callable[[int], None]) -> None:
    """Stop a worker and wait until its replacement has loaded the model."""
    before = server.workers()
    end(before[0])
    wait_for(lambda: before[0] not in (now := server.workers()) and len(now) == 2, "another worker runs")
    wait_for(lambda: all(maps(worker, VERSION_MARK) for worker in server.workers()), "it has metrics of the version")


def maps(pid: int, name: str) -> bool:
    """Return whether a process has mapped a metric file with this text in its name."""
    try:
        return name in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_worker_changes_no_total_and_adds_no_file(server: Server, number: signal.Signals) -> None:
    send(server, unusual_flats(60, seed=7))
    before, files_before = totals(server), files(server)
    replace_worker(server, lambda worker: os.kill(worker, number))
    assert (totals(server), files(server)) == (before, files_before)
    with increases_during(server) as increases:
        for _ in range(30):
            server.predict(FLAT)
    assert increases['housing_rows_total{version="1"}'] == 30
    assert files(server) == files_before


def test_a_killed_puller_continues_its_counters(server: Server) -> None:
    files_before, before = files(server), set(children(server.process.pid))
    (puller,) = children_running(server.process.pid, "housing.serving.puller")
    os.kill(puller, signal.SIGKILL)
    wait_for(
        lambda: any(maps(pid, "/counter_") for pid in set(children(server.process.pid)) - before),
        "another puller has its metrics",
    )
    assert (scraped(server)["housing_versions_published_total"], files(server)) == (1, files_before)


def test_both_formats_of_prometheus_have_all_metrics(server: Server) -> None:
    accept = "application/openmetrics-text;version=1.0.0"
    plain, open_ = server.ask("/metrics").text, server.ask("/metrics", Accept=accept).text
    parsers: Any = [*zip((plain_text, open_metrics), (plain, open_), strict=True)]
    names = [{sample.name for family in parse(text) for sample in family.samples} for parse, text in parsers]
    assert names[0] == names[1] >= {"housing_rows_total", "housing_column_bin_share", "housing_model_info"}


def test_a_file_that_a_process_has_just_created_is_left_out(server: Server) -> None:
    before = scraped(server)
    file = metrics_dir(server) / "counter_new.db"
    file.touch()
    try:
        assert scraped(server).keys() == before.keys()
    finally:
        file.unlink()


def test_only_current_versions_have_files_and_a_reused_version_number_starts_at_0(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "bundle")
    version_files = []
    for name in ("1-a", "2-b", "2-c", "3-d", "1-a"):
        version = name[0]
        publishing.publish(tmp_path / "published", name, tmp_path / "bundle", {"version": version})
        card = {"created": "2026-11-27T08:00:00+00:00", "metrics": {"rmse": 1.0}}
        counts = ModelMetrics(tmp_path, 0, tmp_path / "published" / name, dataclasses.replace(bundle, card=card), version)
        counts.add(bundle.background, bundle.predict(bundle.background))
        version_files.append({path.stem.partition(VERSION_MARK)[2] for path in tmp_path.glob("counter_0*")})
    assert version_files == [{"1-a"}, {"1-a", "2-b"}, {"2-c"}, {"2-c", "3-d"}, {"3-d", "1-a"}]
    collector: Any = MultiProcessCollector(None, str(tmp_path))  # type: ignore[no-untyped-call]
    rows = [sample for metric in collector.collect() for sample in metric.samples]
    values = {sample.labels["version"]: sample.value for sample in rows if sample.name == "housing_rows_total"}
    assert values == {"1": len(bundle.background), "3": len(bundle.background)}


def test_counters_of_an_existing_file_continue_when_a_release_adds_counters(tmp_path: Path) -> None:
    def keys(description: str, *buckets: str) -> list[str]:
        return [json.dumps(["t", "t_total", {"bucket": bucket}, description]) for bucket in buckets]

    MmapCounters(tmp_path / "counter_0.db", keys("before", "a", "b")).add(np.array([1.0, 2.0]))
    MmapCounters(tmp_path / "counter_0.db", keys("after", "b", "c")).add(np.array([10.0, 20.0]))
    collector: Any = MultiProcessCollector(None, str(tmp_path))  # type: ignore[no-untyped-call]
    samples = [sample for metric in collector.collect() for sample in metric.samples]
    assert {sample.labels["bucket"]: sample.value for sample in samples} == {"a": 1.0, "b": 12.0, "c": 20.0}


def test_many_threads_lose_no_count(tmp_path: Path) -> None:
    keys = [
        json.dumps(["t", "t_total", {"number": str(number)}, "many"]) for number in range(1200)
    ]  # as many as for a hundred columns
    counters = MmapCounters(tmp_path / "counter_0.db", keys)
    ones = np.ones(len(keys))

    def add() -> None:
        for _ in range(2000):
            counters.add(ones)

    threads, default_interval = [threading.Thread(target=add) for _ in range(4)], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds: threads also switch in the middle of an addition
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(default_interval)
    reopened = MmapCounters(tmp_path / "counter_0.db", keys)
    assert (reopened._values[reopened._offsets] == 8_000).all()  # pylint: disable=protected-access


@pytest.mark.long
def test_repeatedly_replaced_workers_keep_all_totals_and_a_bounded_number_of_files(served_home: Path, tmp_path: Path) -> None:
    with serving(served_home, f"serve.log_dir={tmp_path}") as running:
        wait_until_settled(running)
        send(running, unusual_flats(60, seed=8))
        max_files = 0
        for round_ in range(4):
            before, old = totals(running), set(running.workers())
            running.process.send_signal(signal.SIGHUP)
            wait_for(partial(are_new, running, old), "all workers are new")
            running.predict(FLAT)
            after = totals(running)
            assert after.keys() == before.keys()
            assert all(after[name] >= before[name] for name in before)
            assert after['housing_rows_total{version="1"}'] == before['housing_rows_total{version="1"}'] + 1
            assert len(files(running)) <= (max_files or 99)
            max_files = len(files(running)) if round_ == 1 else max_files  # two of each kind, and two more during the replacement


def are_new(server: Server, old: set[int]) -> bool:
    """Return whether all workers are new and the old ones have stopped."""
    return len(server.workers()) == 2 and not old & set(server.workers())


@pytest.mark.long
def test_a_new_version_keeps_the_series_of_the_previous_one_only(home: Path) -> None:
    runs = [train(home, "model=linear", "figures=false", *fewer) for fewer in ((), ("max_rows=500",), ("max_rows=400",))]
    with serving(home) as running:
        assert scraped(running)["housing_ready"] == 0
        assert not any("model_info" in name for name in scraped(running))
        assert promote(config("promote", "data=rentals", f"run_id={runs[0].run_id}")).verdict == "PROMOTE"
        store, scrapes, statuses = tracking.connect(config("train", "data=rentals").mlflow), [], Counter[int]()
        stop = threading.Event()
        scraper = threading.Thread(target=lambda: scrape(running, stop, statuses))
        scraper.start()
        for index, run in enumerate(runs):
            if index:
                store.registry.set_alias(
                    "housing-rentals", "staging", store.registry.register("housing-rentals", str(run.run_id))
                )
            version = str(index + 1)
            wait_for(partial(all_serve, running, version), f"all workers serve version {version}")
            running.predict({"instances": [FLAT] * (index + 1)})
            scrapes.append(scraped(running))
        stop.set()
        scraper.join()
        rows = [{name: value for name, value in scrape_.items() if name.startswith("housing_rows")} for scrape_ in scrapes]
        assert [scrape_["housing_ready"] for scrape_ in scrapes] == [1, 1, 1]
        assert versions(scrapes[0]) == {"1"} and versions(scrapes[1]) == {"1", "2"} and versions(scrapes[2]) == {"2", "3"}
        assert rows[1]['housing_rows_total{version="1"}'] == rows[0]['housing_rows_total{version="1"}']
        assert rows[2]['housing_rows_total{version="2"}'] == rows[1]['housing_rows_total{version="2"}']
        assert [len([name for name in scrape_ if "model_info" in name]) for scrape_ in scrapes] == [1, 1, 1]
        assert set(statuses) == {200} and statuses[200] > 20


def scrape(server: Server, stop: threading.Event, statuses: Counter[int]) -> None:
    """Request the metrics repeatedly."""
    while not stop.is_set():
        statuses[server.ask("/metrics").status] += 1


def all_serve(server: Server, version: str) -> bool:
    """Return whether each worker has metrics of a version and responds with it."""
    return len(files(server, f"counter_*-version-{version}-*")) == 2 and {
        server.ask("/model").json.get("version") for _ in range(20)
    } == {version}


def versions(metrics: Metrics) -> set[str]:
    """Return the versions that have bins."""
    return {match[1] for name in metrics if "_bin_" in name and (match := re.search(r'version="(\w+)"', name))}
