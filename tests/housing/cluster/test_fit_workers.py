"""The engine `dask`: the model of the engine `memory` from rows on several workers, and what becomes of lost ones."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from housing.cluster import fit_workers
from housing.cluster.connection import ClusterSettings, connected
from housing.cluster.fit_workers import FitWorkers
from housing.core.errors import ClusterError, ConfigError
from housing.data import table as tables
from housing.data.settings import TableSettings
from housing.data.split import split
from housing.data.table import Table
from housing.fitting.callbacks import OnRound, no_op
from housing.fitting.fitting import FitSettings, fit
from housing.runs.outcome import Outcome
from housing.runs.run import Job, run
from housing.runs.run_key import run_key
from housing.streaming.loading import read_streamed
from housing.streaming.settings import StreamSettings
from housing.tracking import store as tracking_store
from housing.tracking import tags
from tests.support.cluster import daemon
from tests.support.server import free_port
from tests.support.tables import config, goods_frame, towns_frame
from tests.support.waiting import wait_for

pytestmark = pytest.mark.long
pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")

N_WORKERS, N_ROWS = 2, 20_000
EMBEDDED = ClusterSettings(address=None, workers=N_WORKERS, memory_gb=2.0, timeout_seconds=60)
ALL_ROWS = ("features=none", "interval=none", "model.estimator.subsample=1", "model.estimator.colsample_bynode=1")
TOWNS = ("data=towns", *ALL_ROWS, "+data.columns.counts={type: float, role: weight}")


@pytest.fixture(name="workers", scope="module")
def fixture_workers() -> Iterator[FitWorkers]:
    """Two workers on this machine."""
    with connected(EMBEDDED) as client:
        yield FitWorkers(client, EMBEDDED)


@pytest.fixture(name="towns_path", scope="module")
def fixture_towns_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of towns, of which some count more than others. Few different values make the bins of all engines equal."""
    path = tmp_path_factory.mktemp("towns") / "towns.parquet"
    frame = towns_frame(N_ROWS).assign(counts=np.where(np.arange(N_ROWS) % 3 == 0, 1.0, 5.0))
    frame.assign(north=frame.north.round(1), east=frame.east.round(1), area=frame.area.round(-1)).to_parquet(path)
    return path


def both_tables(path: Path, *overrides: str, chunk_rows: int) -> tuple[Any, Table, Any]:
    """Return a training config, and the table in memory and in chunks."""
    cfg = config("train", f"data.path={path}", *overrides)
    return cfg, tables.load(cfg.data), read_streamed(TableSettings.from_config(cfg.data), StreamSettings(chunk_rows, 5000))


def rmse_of_fit(cfg: Any, table: Table, on_round: OnRound = no_op) -> float:
    """Return the RMSE of the test rows after a fit on the training rows."""
    parts = split(table, cfg.split)
    table = table.learn(parts.train)
    model = fit(FitSettings.from_config(cfg), table, parts.train, parts.valid, on_round=on_round)
    return float(np.sqrt(np.mean((model.predict(table.matrix[parts.test]) - table.target[parts.test]) ** 2)))


def test_a_fit_over_workers_is_as_good_as_one_in_memory(workers: FitWorkers, towns_path: Path) -> None:
    cfg, table, streamed = both_tables(
        towns_path, *TOWNS, "model.early_stopping=5", "model.estimator.learning_rate=0.3", chunk_rows=1000
    )
    rounds: list[int] = []
    rmse = rmse_of_fit(cfg, replace(streamed, fit=workers.fit), lambda _, done, *rest: rounds.append(done))
    assert rmse == pytest.approx(rmse_of_fit(cfg, table), rel=1e-3)
    wait_for(lambda: 25 in rounds, "the workers have reported a round")
    assert max(rounds) < cfg.model.estimator.n_estimators - 25  # early stopping


def test_encodings_that_depend_on_targets_are_those_in_memory(workers: FitWorkers, tmp_path: Path) -> None:
    goods_frame(4000).to_csv(tmp_path / "goods.csv", index=False, sep=";")
    levels = ("features.encoding.method=target_mean_and_share", "features.encoding.max_one_hot_levels=6")
    overrides = ("data=goods", *ALL_ROWS, *levels, "model.estimator.n_estimators=40")
    cfg, table, streamed = both_tables(tmp_path / "goods.csv", *overrides, chunk_rows=300)
    expected, in_chunks = rmse_of_fit(cfg, table), rmse_of_fit(cfg, streamed)
    assert in_chunks == pytest.approx(expected, rel=1e-3)
    assert rmse_of_fit(cfg, replace(streamed, fit=workers.fit)) == pytest.approx(expected, rel=1e-3)


def test_rows_that_workers_cannot_hold_are_refused_before_they_are_sent(
    workers: FitWorkers, towns_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, _, streamed = both_tables(towns_path, *TOWNS, chunk_rows=1000)
    monkeypatch.setattr(fit_workers, "LIBRARIES", fit_workers.MAX_MEMORY * 2e9 - 100_000)
    message = r"Each of 2 workers needs 1 MB for its part of the rows \(got 0 MB of 2,000 .*Start more workers, or larger ones"
    with pytest.raises(ClusterError, match=message):
        rmse_of_fit(cfg, replace(streamed, fit=workers.fit))


def test_workers_belong_to_the_key_of_a_run_but_the_address_does_not(towns_path: Path) -> None:
    cfg, table, _ = both_tables(towns_path, *TOWNS, "engine=dask", chunk_rows=1000)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    parts = split(table, cfg.split)
    elsewhere = {"address": "tcp://10.0.0.1:8786", "memory_gb": 1, "timeout_seconds": 5, "cluster": {"cores": 2}}
    first, same, other = (
        run_key({**resolved, "engine": {**resolved["engine"], **changed}}, table, parts)
        for changed in ({}, elsewhere, {"workers": 3})
    )
    assert first == same != other


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (("model=linear",), ConfigError, "stream and dask fit XGBoost only .* Use model=xgboost, or engine=memory"),
        (("engine.workers=0",), ConfigError, "engine.workers must be a whole number, at least 1"),
        (
            (f"engine.address=tcp://127.0.0.1:{free_port()}", "engine.timeout_seconds=0.5"),
            ClusterError,
            "No Dask scheduler answered",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_the_table_is_read(
    home: Path, overrides: tuple[str, ...], error: type[Exception], message: str
) -> None:
    (home / "data" / "towns.csv").write_text("nothing", encoding="utf-8")
    with pytest.raises(error, match=message):
        run(config("train", "data=towns", "features=none", "engine=dask", *overrides), Job([], home / "outputs" / "0"))


@dataclass
class Processes:
    """A scheduler, and workers that nobody starts again."""

    address: str
    scheduler: "subprocess.Popen[bytes]"
    workers: "list[subprocess.Popen[bytes]]"


@contextmanager
def cluster(folder: Path, port: int) -> Iterator[Processes]:
    """Run a scheduler and two workers, as separate processes."""
    address, dask = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "dask"]
    listen = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard"]
    folder.mkdir()
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> "subprocess.Popen[bytes]":
            log = folder / f"{name}.log"
            started = "Scheduler at" if name == "scheduler" else "Starting established connection"
            return stack.enter_context(daemon([*dask, *arguments], log, lambda: started in log.read_text(encoding="utf-8")))

        scheduler = start("scheduler", "scheduler", "--port", str(port), *listen)
        settings = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder), *listen)
        yield Processes(address, scheduler, [start(name, "worker", address, "--name", name, *settings) for name in ("0", "1")])


def kill_while_it_fits(cfg: Any, folder: Path, process: "subprocess.Popen[bytes]") -> Outcome:
    """Kill a process of the cluster as soon as a run has fitted some trees, and return the outcome of the run."""
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(run, cfg, Job([], folder))
        wait_for(lambda: running.done() or "round" in getattr(Outcome.read(folder), "progress", ""), "the workers fit")
        process.kill()
        return running.result()


def test_a_fit_goes_on_without_a_lost_worker_and_fails_without_its_scheduler(home: Path, towns_path: Path) -> None:
    store = tracking_store.connect(config("train").mlflow)
    trees = (*TOWNS, "model.estimator.n_estimators=200", "figures=false", "refit=false", f"data.path={towns_path}")
    expected = run(config("train", *trees), Job([], home / "memory"))
    port = free_port()
    place = ("engine=dask", "engine.chunk_rows=1000", f"engine.address=tcp://127.0.0.1:{port}", "engine.timeout_seconds=3")
    cfg = config("train", *trees, *place)
    with cluster(home / "first", port) as processes:
        outcome = kill_while_it_fits(cfg, home / "worker", processes.workers[1])
        assert outcome.metrics["rmse"] == pytest.approx(expected.metrics["rmse"], rel=1e-3)
        assert store.runs.get(str(outcome.run_id)).tags[tags.LOST_WORKERS].startswith("tcp://127.0.0.1:")

        again = config("train", *trees, *place, "engine.workers=1")
        with pytest.raises(ClusterError, match="was lost during the fit .* run the same command again"):
            kill_while_it_fits(again, home / "scheduler", processes.scheduler)
    failed = Outcome.read(home / "scheduler")
    assert failed is not None and failed.status == "FAILED"
    assert store.runs.get(str(failed.run_id)).status == "FAILED"
    assert not (home / "scheduler" / "bundle").exists()
    with cluster(home / "second", port):
        assert run(again, Job([], home / "again")).metrics["rmse"] == pytest.approx(expected.metrics["rmse"], rel=1e-3)
