"""Next commands: each printed command works, also with a config folder and a renamed table."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support.commands import CommandResult, command
from tests.support.tables import TABLES

QUICK = ("features=none", "interval=none", "figures=false", "split=random")


@pytest.fixture
def config_dir(home: Path) -> str:
    """Return the option for a config folder whose path has a space. The rentals have another file name in it."""
    folder = home / "my configs"
    (folder / "data").mkdir(parents=True)
    shutil.copy(TABLES / "data" / "rentals.yaml", folder / "data" / "flats.yaml")
    return f"--config-dir={folder}"


def paste(home: Path, text: str, name: str) -> CommandResult:
    """Run the only command line of a command in a text, split like in a shell."""
    lines = re.findall(rf"python -m (housing\.{name} .*?)(?:, or add|\.?\s*$)", text, flags=re.MULTILINE)
    assert len(lines) == 1, text
    return command(home, *shlex.split(lines[0]))


@pytest.mark.long
def test_the_commands_that_a_sweep_and_errors_suggest_work_as_printed(home: Path, config_dir: str) -> None:
    (home / "data" / "rentals.csv").rename(home / "data" / "flats.csv")
    options = (config_dir, "data=flats", f"data.path={home}/data/flats.csv", f"mlflow.tracking_uri=sqlite:///{home}/mlflow.db")
    missing = command(home, "housing.prepare", config_dir, "data=flats", f"out={home}/o.parquet")
    assert (
        "has no source" in paste(home, missing.err, "fetch").err
    )  # the suggested command names the same table, which has no public source
    untrained = command(home, "housing.promote", *options, "split=random").err
    sweep = command(home, *shlex.split(re.findall(r"python -m (housing\.train .*)", untrained)[0]), *QUICK, "model=mean,linear")
    assert sweep.code == 0, sweep.err
    promoted = paste(home, sweep.out, "promote")
    assert "PROMOTE" in promoted.out, promoted.err
    assert f"data.path={home}/data/flats.csv" in sweep.out and "split=random" in sweep.out


@pytest.mark.parametrize("arguments", [("train", "--help"), ("history", "--help"), ("train", "--cfg=job")])
def test_output_into_a_closed_pipe_ends_silently(arguments: tuple[str, str]) -> None:
    name, flag = arguments
    with subprocess.Popen(
        [sys.executable, "-m", f"housing.{name}", flag], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, -13, 141)
