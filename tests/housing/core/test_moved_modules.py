"""Modules that moved: code, files and stored runs that name them by their former names work as before."""

import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from housing.core.moved_modules import MOVED_MODULES, present_name
from housing.runs.reproduction import reproduce
from tests.support.tables import config, train

FORMER, PRESENT = "housing.training.old_folds", "sklearn.model_selection"
KFOLD = ("model=linear", "figures=false", "evaluation=kfold")


def test_a_former_name_is_the_same_module() -> None:
    program = "import sys, importlib; print(*(importlib.import_module(name).__name__ for name in sys.argv[1:]))"
    modules = subprocess.run([sys.executable, "-c", program, *MOVED_MODULES], capture_output=True, text=True, check=True).stdout
    assert modules.split() == list(MOVED_MODULES.values())


def test_a_pickle_with_a_former_name_is_read() -> None:
    metric = import_module("housing.scoring.ranking_metric").RankingMetric("mae")
    stored = pickle.dumps(metric, protocol=0).replace(b"housing.scoring.ranking_metric", b"housing.training.ranking_metric")
    assert b"housing.training." in stored and pickle.loads(stored) == metric  # noqa: S301  # made here


def test_only_names_in_moved_modules_change() -> None:
    assert present_name("housing.training.teacher.Teacher.fit") == "housing.fitting.teacher.Teacher.fit"
    for name in ("housing.training.build.build", "housing.training", "housing.training.teachers.Teacher", "print", ""):
        assert present_name(name) == name


def test_a_run_stored_under_a_former_name_is_refitted_and_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVED_MODULES, FORMER, PRESENT)
    first = train(home, *KFOLD, f"evaluation.folds._target_={FORMER}.KFold")
    comparisons = reproduce(config("reproduce", "data=rentals", f"run_id={first.run_id}"))
    assert [comparison.name for comparison in comparisons if not comparison.is_equal] == []
    again = train(home, *KFOLD)
    assert again.reused and again.run_id == first.run_id
