"""Runs and versions that the store does not have: each command says how to list those that it has."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from housing import Project
from housing.core.errors import StoreError
from housing.predict import predict
from housing.promotion.promotion import promote
from housing.promotion.rolling_back import rollback
from housing.reports.report import write_report
from housing.runs.reproduction import reproduce
from housing.traffic.replay import replay
from tests.support.commands import command, user_error
from tests.support.tables import RENTALS_DATA, config

RUNS = "Run ids are in the leaderboard.html of each sweep, and in MLflow: mlflow ui --backend-store-uri sqlite:////"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report run_id=nope", f"has no run nope. {RUNS}"),
        ("reproduce run_id=nope", f"has no run nope. {RUNS}"),
        ("promote run_id=nope", f"has no run nope. {RUNS}"),
        ("promote sweep=nope", f"has no run nope. {RUNS}"),
        ("predict file=rows.csv out=out.csv", "housing-rentals has no version at staging in the MLflow store "),
        ("predict file=rows.csv out=out.csv source=models:/housing-rentals@production", "has no version at production"),
        (
            "predict file=rows.csv out=out.csv source=models:/housing-rentals/9",
            "models:/housing-rentals/9.\nVersions that served: python",
        ),
        ("predict file=rows.csv out=out.csv source=runs:/nope/bundle", f"has no run nope. {RUNS}"),
        (
            "predict file=rows.csv out=out.csv source=housing-rentals",
            "source must be models:/NAME/VERSION, models:/NAME@ALIAS or",
        ),
        ("predict file=rows.csv out=out.csv source=", "source must be models:/NAME/VERSION"),
        ("rollback version=9", "housing-rentals has no version at staging. Promote one first: "),
        ("history limit=-1", "limit must be a whole number from 1 to 50000 (got -1)."),
        ("history limit=abc", "limit must be a whole number from 1 to 50000 (got 'abc')."),
    ],
)
def test_a_run_or_version_that_does_not_exist_is_an_error_that_says_how_to_list_them(
    words: str, message: str, home: Path
) -> None:
    name, *options = shlex.split(words)
    shutil.copy(home / "data" / "rentals.csv", home / "rows.csv")
    is_of_table = name not in ("report", "reproduce")
    error = user_error(command(home, f"housing.{name}", *(RENTALS_DATA[:2] if is_of_table else ()), *options, cwd=home))
    assert message in error


@pytest.mark.parametrize(
    "call",
    [
        lambda: write_report(config("report", "run_id=x")),
        lambda: reproduce(config("reproduce", "run_id=x")),
        lambda: replay(config("replay", *RENTALS_DATA[1:2], "version=1", "log_dir=.")),
        lambda: promote(config("promote", *RENTALS_DATA[1:2])),
        lambda: rollback(config("rollback", *RENTALS_DATA[1:2])),
        lambda: predict(config("predict", *RENTALS_DATA[1:2], "file=data/rentals.csv", "out=out.csv")),
        lambda: Project(".").runs(),
        lambda: Project(".").compare("x"),
        lambda: Project(".").history(),
        lambda: Project(".").decision(),
        lambda: Project(".").load(),
    ],
)
def test_a_folder_without_a_store_is_refused_and_gets_none(
    call: Callable[[], object], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mlflow.db").unlink()
    (home / "predictions-0.jsonl").touch()
    monkeypatch.chdir(home)
    with pytest.raises(StoreError, match=r"^There is no MLflow store at .*/mlflow\.db\. Run this command in the folder of"):
        call()
    assert not (home / "mlflow.db").exists()


def test_the_command_that_promotes_for_a_prediction_works_when_pasted(home: Path) -> None:
    words = (*RENTALS_DATA[:2], "file=data/rentals.csv", "out=out.csv")
    error = user_error(command(home, "housing.predict", *words, cwd=home))
    promote = re.search(r"python -m (housing\.promote .*)", error)
    assert promote is not None
    untrained = user_error(command(home, *shlex.split(promote[1])))
    assert "has no finished run on this table" in untrained


def test_a_sweep_is_told_from_the_run_of_a_job(home: Path) -> None:
    quick = (*RENTALS_DATA, "figures=false", "interval=none", "refit=false", "model=linear,mean")
    swept = command(home, "housing.train", "-m", *quick)
    promote = re.search(r"python -m (housing\.promote .*)", swept.out)
    assert promote is not None
    words = shlex.split(promote[1])
    sweep = next(word for word in words if word.startswith("sweep="))
    wrong = [word.replace("sweep=", "run_id=") for word in words]
    error = user_error(command(home, *wrong))
    assert f"is a sweep. Promote it with: python -m housing.promote --config-dir={words[1].partition('=')[2]}" in error
    assert error.endswith(sweep)
