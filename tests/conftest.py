"""Shared fixtures: homes, tables, a promoted model and running servers. The code under test is never mocked."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.data import table as data
from housing.data.split import split
from housing.data.table import Table
from housing.promotion.promotion import promote
from housing.tracking import store
from housing.training.build import BuildSettings, build
from tests.support.commands import command, dvc, git
from tests.support.homes import copy_home
from tests.support.server import Server, promoted, serving
from tests.support.tables import config, rentals_frame, towns_frame, train
from tests.support.waiting import wait_for

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background job ignores SIGINT, and child processes inherit that
os.environ.pop("COLUMNS", None)  # redirected output has a fixed width, unless a shell exports its own


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty MLflow store, which takes seconds to create."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.Store(f"sqlite:///{path}", artifact_root=None, ui="")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A home directory for one test, with the tables rentals and towns and an empty store."""
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path))
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "data").mkdir()
    rentals_frame().to_csv(tmp_path / "data" / "rentals.csv", index=False)
    towns_frame().to_csv(tmp_path / "data" / "towns.csv", index=False)
    return tmp_path


@pytest.fixture
def versioned(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is a git repository with the project's DVC config. DVC tracks its rentals table, which is committed."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(home / ".dvc" / "site"))
    shutil.copytree(PROJECT / ".dvc", home / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    (home / ".gitignore").write_text("/*\n!/data/\n/data/*.*\n!/data/*.dvc\n", encoding="utf-8")
    git(home, "init", "--quiet")
    dvc(home, "add", "--quiet", "data/rentals.csv")
    git(home, "add", "data/rentals.csv.dvc")
    git(home, "commit", "--quiet", "--message=rentals")
    return home


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the real California table. Without a network, the test is skipped."""
    directory = tmp_path_factory.mktemp("real")
    fetched = command(directory, "housing.fetch", "data=california")
    if fetched.code == 69:
        pytest.skip(f"the real table could not be downloaded: {fetched.err}")
    assert fetched.code == 0, fetched.err
    return directory


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
    """A small XGBoost model of the rentals table, with intervals."""
    cfg = config("train", "data=rentals", "features=none", "model.estimator.n_estimators=20")
    return build(BuildSettings.from_config(cfg), rentals, split(rentals, cfg.split), run_id="none")[0]


@pytest.fixture(scope="session")
def rentals_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A server with a small XGBoost model of the rentals table."""
    with serving(promoted(tmp_path_factory.mktemp("rentals_server"), "rentals", empty_store)) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


@pytest.fixture(scope="session")
def towns_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A server with a small XGBoost model of the towns table, which has coordinates. Its explanations are sampled."""
    home_ = promoted(tmp_path_factory.mktemp("towns_server"), "towns", empty_store)
    with serving(home_, "data=towns", "serve.explain_max_exact_columns=3", "serve.explain_samples=4096") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


@pytest.fixture(scope="session")
def orders_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A server with a small XGBoost model of the orders table, which has a column of every role and type."""
    home_ = promoted(tmp_path_factory.mktemp("orders_server"), "orders", empty_store)
    with serving(home_, "data=orders", "serve.workers=1") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


@pytest.fixture(scope="session")
def promoted_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with a promoted linear model of the rentals table, which takes seconds to create. Tests work on its copies."""
    directory = tmp_path_factory.mktemp("promoted")
    (directory / "data").mkdir()
    rentals_frame().to_csv(directory / "data" / "rentals.csv", index=False)
    shutil.copy(empty_store, directory / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(directory))
        train(directory, "model=linear", "figures=false")
        assert promote(config("promote", "data=rentals")).verdict == "PROMOTE"
    return directory


@pytest.fixture(scope="module")
def served_home(tmp_path_factory: pytest.TempPathFactory, promoted_home: Path) -> Iterator[Path]:
    """A home with a promoted linear model of the rentals table, for the tests of a module."""
    directory = tmp_path_factory.mktemp("served")
    copy_home(promoted_home, directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(directory))
        yield directory
