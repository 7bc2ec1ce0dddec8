"""Fixtures: places, tables, a promoted model, a running server. Nothing in here stands in for our own code."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from housing import data, tracking
from housing.build import build
from housing.bundle import Bundle
from housing.config import CONF, PROJECT
from housing.data import Table
from housing.promote import promote
from housing.records import Outcome
from housing.run import Job, run
from housing.split import split

TABLES = PROJECT / "tests" / "tables"
RENTALS_DATA = (f"--config-dir={TABLES}", "data=rentals", "features=none")
RENTALS_SWEEP = ("-m", *RENTALS_DATA, "refit=false", "interval=none", "figures=false", "log_model=best")  # one quick fit a job
NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
FLAT = {"area": 50.5, "rooms": 2, "furnished": True, "quarter": "hills", "built": 1950}  # of the rentals
COORDINATES = {"lat": {"type": "float", "role": "latitude"}, "lon": {"type": "float", "role": "longitude"}}  # of a made-up table
WITHOUT_REHEARSAL = {"promote": ("gate.rehearsal=null",)}  # unless a test asks for it: starting a server takes some seconds
SECONDS = 120  # for anything that is waited for
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would what tests start


def wait_for(holds: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait until a condition holds; the test fails where it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.05)


def rentals_frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Made-up flats whose rent follows from their columns; a tenth has no year."""
    random = np.random.default_rng(seed)
    area, rooms = random.uniform(20, 150, rows).round(1), random.integers(1, 7, rows)
    furnished, quarter = random.random(rows) < 0.3, random.choice(["old town", "harbour", "hills"], rows)
    built = np.where(random.random(rows) < 0.1, np.nan, random.integers(1900, 2020, rows))
    rent = 8 * area + 40 * rooms + 100 * furnished + np.select([quarter == "harbour", quarter == "hills"], [150, 300], 0)
    rent = rent + np.where(np.isnan(built), 50, (built - 1900)) + random.normal(0, 20, rows)
    return pd.DataFrame(
        {"area": area, "rooms": rooms, "furnished": furnished, "quarter": quarter, "built": built, "rent": rent.round(2)}
    )


def towns_frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Made-up houses whose price follows from where they lie and from their columns; a third lies where others lie."""
    random = np.random.default_rng(seed)
    places = random.uniform((45.0, 5.0), (47.0, 8.0), (rows, 2)).round(3)
    places[: rows // 3] = places[random.integers(rows // 3, rows, rows // 3)]
    area, garden = random.uniform(20, 200, rows).round(1), random.random(rows) < 0.4
    rooms = np.where(random.random(rows) < 0.1, np.nan, random.integers(1, 9, rows))
    kind = random.choice(["flat", "house", "barn"], rows)
    price = 300 + 150 * np.sin(2 * places[:, 0]) + 150 * np.cos(2 * places[:, 1]) + area + 30 * garden + 50 * (kind == "house")
    price = (price + random.normal(0, 10, rows)).round(2)
    columns = {"area": area, "rooms": rooms, "garden": garden, "kind": kind, "price": price}
    return pd.DataFrame({"north": places[:, 0], "east": places[:, 1], **columns})


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is made and empty: making one takes MLflow some seconds."""
    place = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.Store(f"sqlite:///{place}", artifacts=None, ui="")
    return place


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A home of its own for one test: data (rentals and towns), an empty store, outputs."""
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path))
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "data").mkdir()
    rentals_frame().to_csv(tmp_path / "data" / "rentals.csv", index=False)
    towns_frame().to_csv(tmp_path / "data" / "towns.csv", index=False)
    return tmp_path


@pytest.fixture
def versioned(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in a git repository of its own, with the project's config of DVC; its rentals are under DVC and committed."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(home / ".dvc" / "site"))
    shutil.copytree(PROJECT / ".dvc", home / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    (home / ".gitignore").write_text("/*\n!/data/\n/data/*.*\n!/data/*.dvc\n", encoding="utf-8")
    git(home, "init", "--quiet")
    dvc(home, "add", "--quiet", "data/rentals.csv")
    git(home, "add", "data/rentals.csv.dvc")
    git(home, "commit", "--quiet", "--message=rentals")
    return home


def git(place: Path, *arguments: str) -> str:
    """Run git in a repository, and give what it prints."""
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=place, check=True, capture_output=True, text=True).stdout


def dvc(place: Path, *arguments: str, **environment: str) -> str:
    """Run DVC in a repository, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def config(name: str, *overrides: str) -> DictConfig:
    """Compose a config of the project; tables of the tests are known too."""
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(name, [f"hydra.searchpath=[file://{TABLES}]", *WITHOUT_REHEARSAL.get(name, ()), *overrides])


# For tables of some hundred rows: fewer cells, fewer neighbours, a shorter climb.
SMALL_GEO = (
    "features.blocks.cells.counts=[40,10]",
    "features.blocks.neighbours.km_to=[5]",
    "features.blocks.neighbours.columns_of=[8]",
    "features.blocks.neighbours.targets_of=[1,3,10]",
    "features.blocks.neighbours.spreads_of=[10]",
)
SMALL_FULL = (
    *SMALL_GEO,
    *(
        f"features.blocks.{process}.{what}"
        for process in ("process", "log_process")
        for what in ("neighbours=12", "targets_of=[5,12]", "learned_on=60", "rounds=5")
    ),
)
SMALL = {"none": (), "static": (), "geo": SMALL_GEO, "full": SMALL_FULL}  # by name of the features


def train(home_: Path, *overrides: str) -> Outcome:
    """Run one job in this process, on the rentals unless told otherwise."""
    folder = home_ / "outputs" / str(len(list(home_.glob("outputs/*"))))
    asked = ["data=rentals", "features=none", *overrides]
    return run(config("train", *asked), Job(asked, folder))


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def command(home_: Path, *arguments: str, cwd: Path = PROJECT, **environment: str) -> Ended:
    """Run a command of the project, `command(home, "housing.train", "debug=fast")`, as a user would."""
    environ = {**os.environ, "HOUSING_HOME": str(home_), **environment}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the real table of California, where this machine can get it."""
    place = tmp_path_factory.mktemp("real")
    fetched = command(place, "housing.fetch", "data=california")
    if fetched.code == 69:
        pytest.skip(f"the real table cannot be had here: {fetched.err}")
    assert fetched.code == 0, fetched.err
    return place


@pytest.fixture(scope="session")
def rentals(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The rentals as a table."""
    path = tmp_path_factory.mktemp("rentals") / "rentals.csv"
    rentals_frame().to_csv(path, index=False)
    return data.load(config("train", "data=rentals", f"data.path={path}").data)


@pytest.fixture(scope="session")
def towns(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """The towns as a table."""
    path = tmp_path_factory.mktemp("towns") / "towns.csv"
    towns_frame().to_csv(path, index=False)
    return data.load(config("train", "data=towns", f"data.path={path}").data)


@pytest.fixture(scope="session")
def bundle(rentals: Table) -> Bundle:
    """A small XGBoost model of the rentals, with intervals."""
    cfg = config("train", "data=rentals", "features=none", "model.estimator.n_estimators=20")
    return build(cfg, rentals, split(rentals, cfg.split), run_id="none")[0]


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    type: str
    text: str
    id: str | None = None  # of the request, as its header tells

    @property
    def json(self) -> Any:
        """The body as JSON; NaN and the like are refused, as a strict caller does."""
        return json.loads(self.text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise AssertionError(f"the answer holds {name}")


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def ask(self, route: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        """Send bytes (JSON, unless a header says otherwise), or just ask."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.url}{route}", body, {"Content-Type": "application/json", **named}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(
                    answer.status, answer.headers["Content-Type"], answer.read().decode(), answer.headers["X-Request-Id"]
                )
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers["Content-Type"], error.read().decode())

    def predict(self, body: object) -> Answer:
        """Ask for predictions."""
        return self.ask("/predict", json.dumps(body).encode())

    def answers(self, route: str) -> bool:
        """Whether the route answers with 200."""
        try:
            return self.ask(route).status == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        """The pids of gunicorn's workers; the puller has children too, now and then."""
        masters = [pid for pid in children(self.process.pid) if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return [worker for master in masters for worker in children(master)]


def assert_problem(answer: Answer, status: int, detail: str) -> None:
    """Every error has one shape."""
    assert (answer.status, answer.type) == (status, "application/problem+json"), answer
    body = answer.json
    assert set(body) - {"errors"} == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert re.search(detail, body["detail"]), body


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def scraped(server: Server) -> dict[str, float]:
    """The metrics by name and labels."""
    lines = (line for line in server.ask("/metrics").text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def new_key(name: str, rights: str) -> tuple[str, str]:
    """Make a key as an operator does; give it and its line."""
    made = subprocess.run(
        [sys.executable, "-m", "server.access", name, rights], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    _, key, _, line = made.stdout.splitlines()
    return key.strip(), line.strip()


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


@contextmanager
def serving(home_: Path, *overrides: str, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve the rentals with real gunicorn workers and a real puller for as long as the block lasts."""
    port, log = free_port(), home_ / "serve.log"
    chosen = ["data=rentals", f"serve.port={port}", "serve.poll=0.1", "serve.drain=0", *overrides]
    arguments = [f"hydra.searchpath=[file://{TABLES}]", *chosen]
    workers = config("serve", *chosen).serve.workers
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "housing.serve", *arguments],
            env={**os.environ, "HOUSING_HOME": str(home_), **(environment or {})},
            stdout=file,
            stderr=file,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for(lambda: server.answers("/healthz") and len(server.workers()) == workers, "the server lives")
        yield server
    finally:
        process.terminate()
        process.wait(SECONDS)


def promoted(place: Path, table: str, empty_store_: Path) -> Path:
    """Make a home with a small promoted model of rentals or towns, with intervals."""
    frame = {"rentals": rentals_frame, "towns": towns_frame}[table]()
    (place / "data").mkdir()
    frame.to_csv(place / "data" / f"{table}.csv", index=False)
    shutil.copy(empty_store_, place / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(place))
        train(place, f"data={table}", "figures=false", "model.estimator.n_estimators=50", "model.estimator.learning_rate=0.2")
        assert promote(config("promote", f"data={table}")).verdict == "PROMOTE"
    return place


@pytest.fixture(scope="session")
def rentals_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A small XGBoost model of the rentals, served."""
    with serving(promoted(tmp_path_factory.mktemp("rentals_server"), "rentals", empty_store)) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


@pytest.fixture(scope="session")
def towns_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A small XGBoost model of the towns, which have coordinates, served; explanations are samples."""
    home_ = promoted(tmp_path_factory.mktemp("towns_server"), "towns", empty_store)
    with serving(home_, "data=towns", "serve.explain_exact=3", "serve.explain_rows=4096") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


@pytest.fixture(scope="module")
def served_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A home with a promoted model of the rentals."""
    place = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(place))
        (place / "data").mkdir()
        rentals_frame().to_csv(place / "data" / "rentals.csv", index=False)
        shutil.copy(empty_store, place / "mlflow.db")
        train(place, "model=linear", "figures=false")
        assert promote(config("promote", "data=rentals")).verdict == "PROMOTE"
        yield place
