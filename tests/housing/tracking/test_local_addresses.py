"""Copied and moved stores: commands in a copy never write to the folder that it was copied from."""

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
from omegaconf import DictConfig

from housing import Project
from housing.core.errors import StoreError
from housing.core.files import sha256
from housing.operations.health_checks import FAILED, CheckResult, run_checks
from housing.promotion.promotion import promote
from housing.tracking import store as tracking
from tests.support.promotions import open_store
from tests.support.tables import FLAT, TABLES, config, train


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the hash and the time of the last change of each file below a folder."""
    return {str(path): (sha256(path), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def present_store() -> DictConfig:
    """Return the config of the store in the present home."""
    mlflow: DictConfig = config("train", "data=rentals").mlflow
    return mlflow


def check_artifacts() -> CheckResult:
    """Return what the doctor finds about artifacts in the present home."""
    return dict(run_checks(config("doctor", "data=rentals", "serve.url=null")))["artifacts"]


@pytest.fixture
def original(tmp_path: Path, promoted_home: Path) -> Path:
    """A home with a promoted run, whose store refers to its own artifacts."""
    shutil.copytree(promoted_home, tmp_path / "original")
    open_store(tmp_path / "original")
    return tmp_path / "original"


@pytest.fixture
def copied(original: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete copy of the original, as the home of this process."""
    copy = original.with_name("a copy")
    shutil.copytree(original, copy)
    monkeypatch.setenv("HOUSING_HOME", str(copy))
    return copy


def test_commands_in_a_copy_change_no_byte_of_the_original(
    original: Path, copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(original)
    with caplog.at_level(logging.WARNING):
        run = train(copied, "model=decision_tree", "figures=false")
    assert f"copied or moved: the artifacts of 2 experiments are now read and written in {copied}/mlartifacts" in caplog.text
    assert f"(before: {original}/mlartifacts)" in caplog.text
    promoted = promote(config("promote", "data=rentals", f"run_id={run.run_id}", "force=true", "force_reason=test"))
    assert promoted.version == "2"
    assert check_artifacts().message.endswith("/a%20copy/mlartifacts/rentals")
    project = Project(copied, "data=rentals", config_dir=TABLES)
    assert len(project.predict(FLAT)) == 1
    assert project.rollback().version == "1"
    assert contents(original) == before


def test_a_moved_store_finds_its_artifacts(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = original.rename(tmp_path / "moved")
    monkeypatch.setenv("HOUSING_HOME", str(moved))
    assert check_artifacts().message.endswith("/moved/mlartifacts/rentals")
    with tracking.connect(present_store()).artifacts.bundle("models:/housing-rentals@staging") as folder:
        assert folder.is_dir()


def test_a_copy_without_artifacts_is_not_written_to(original: Path, copied: Path) -> None:
    before = contents(original)
    shutil.rmtree(copied / "mlartifacts" / "rentals")
    store = tracking.connect(present_store())
    with pytest.raises(StoreError, match=r"outside of .* 2 of its folders are missing.*cp -rn") as raised:
        store.runs.open("rentals", "run", {})
    result = check_artifacts()
    assert result.state == FAILED
    assert str(original / "mlartifacts" / "rentals") in result.message
    command = str(raised.value).partition("copy them as well: ")[2].partition(". If they")[0]
    subprocess.run(command, shell=True, check=True)
    open_store(copied)
    assert check_artifacts().message.endswith("/a%20copy/mlartifacts/rentals")
    assert contents(original) == before


def test_two_names_of_a_folder_are_one(original: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(original)
    before = contents(original)
    open_store(tmp_path / "link")
    assert contents(original) == before
