"""Messages for mistakes on the command line: what failed, the value, what is expected, and the next command."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from housing.command_line.arguments import FLAGS_WITH_VALUE, SWITCHES
from tests.support.commands import command, user_error
from tests.support.tables import TABLES


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ("train model=xgbost", ["model has no option 'xgbost'. Did you mean model=xgboost? Options: blend, catboost,"]),
        ("train model=", ["model= needs an option. Options: blend,"]),
        ("train data=flats", ["data has no option 'flats'. Options: california, synthetic.", "--config-dir=FOLDER"]),
        ("train hydra/launcher=proceses", ["Did you mean hydra/launcher=processes?"]),
        (
            "train model.estimator.max_dept=3",
            ["has no option model.estimator.max_dept (model.estimator.max_dept=3). Did you mean model.estimator.max_depth?"],
        ),
        (
            "train data=synthetic model=decision_tree model.estimator.criterium=3",
            ["Options of model.estimator: _target_, max_depth,", "--cfg job data=synthetic model=decision_tree"],
        ),
        ("train max_depth=3", ["has no option max_depth (max_depth=3). Did you mean model.estimator.max_depth?"]),
        ("train run=1", ["housing.train has no option run (run=1). All options: python -m housing.train --cfg job"]),
        ("serve serve.prot=1", ["housing.serve has no option serve.prot (serve.prot=1). Did you mean serve.port?"]),
        ("train +seed=1", ["seed exists already. Set it without the plus sign: seed=1"]),
        ("train foo", ["'foo' is no option. Expected NAME=VALUE. All options: python -m housing.train --help"]),
        ("train xgboost", ["'xgboost' is no option. Expected NAME=VALUE: model=xgboost."]),
        ("train seed", ["'seed' is no option. Expected NAME=VALUE: seed=VALUE."]),
        ("train seed =3", ["'seed' is no option. Expected NAME=VALUE without spaces: seed=3."]),
        ("train data=2024", ["""data=2024 is not read as a name.""", """quote it twice: 'data="2024"'"""]),
        ("train =3", ["'=3' has no name. Expected NAME=VALUE."]),
        (
            "train 'seed=[1'",
            ["Could not read 'seed=[1': ", "with every bracket and quote closed", """quote it twice: 'seed="[1"'"""],
        ),
        (
            "train model=linear,mean",
            ["model=linear,mean has several values, and housing.train takes one.", "add -m.", "'model=[linear,mean]'"],
        ),
        ("predict file=a,b out=c", ["""For one text, write 'file="a,b"'."""]),
        ("train 'seed=range(1,3)'", ["seed=range(1,3) has several values", "For a sweep over them, add -m."]),
        ("train --config-dir=nope", ["--config-dir=nope is no folder."]),
        ("train --config-name=nope", ["There is no config file nope.yaml in "]),
        (
            "train --seed=3",
            ["Unknown flag --seed=3. Options have no dashes: seed=3. All options: python -m housing.train --help"],
        ),
        ("train --max-rows 5", ["Options have no dashes: max_rows=VALUE."]),
        ("train -x", ["Unknown flag -x. Options have no dashes: NAME=VALUE."]),
        ("train --run --multirun", ["Only one of --run, --multirun"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_on_the_command_line_is_explained(words: str, messages: list[str], refuse: Callable[..., str]) -> None:
    error = refuse(*shlex.split(words))
    for message in messages:
        assert message in error


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ("train -m model=linear,decision_tree model.estimator.max_dept=3", ["Did you mean model.estimator.max_depth?"]),
        ("train -m model=linear,xgbost", ["model has no option 'xgbost'. Did you mean model=xgboost?"]),
        ("report", ["Required: run_id (the run, or a list of runs to compare). Example: python -m housing.report run_id=ID"]),
        (
            "predict",
            ["Required: file (", "; out (", "python -m housing.predict file=rows.csv out=predictions.csv"],
        ),
        ("predict file=rows.csv", ["Required: out ("]),
        ("prepare", ["Required: out ("]),
        ("train ~model data=synthetic", ["model is missing, and housing.train needs it."]),
        ("train 'experiment_name=${nope}'", [" refers to ${nope}, which the config does not have. If it is meant as text"]),
        ("train 'experiment_name=${nope:1}'", [" has a reference that cannot be resolved: Unsupported"]),
        ("train 'experiment_name=${oc.env:NOPE}'", [" has a reference that cannot be resolved: ", "NOPE"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_a_command_needs_is_explained(words: str, messages: list[str], home: Path) -> None:
    name, *arguments = shlex.split(words)
    error = user_error(command(home, f"housing.{name}", *arguments))
    for message in messages:
        assert message in error


def test_a_folder_of_runs_that_cannot_be_made_is_named(home: Path, refuse: Callable[..., str]) -> None:
    (home / "outputs").touch()
    message = refuse("train", "data=synthetic", "model=linear")
    assert message.startswith(f"Could not write {home}/outputs/runs") and "make its folder writable" in message


def test_a_sweep_over_models_takes_a_value_that_the_default_model_lacks(home: Path) -> None:
    rentals = (f"--config-dir={TABLES}", "data=rentals", "features=none", "interval=none", "figures=false", "refit=false")
    models = ("model=decision_tree,random_forest", "model.estimator.min_samples_leaf=30", "max_rows=200")
    swept = command(home, "housing.train", "-m", *rentals, *models)
    assert swept.code == 0, swept.err
    assert "2 of 2 runs finished" in swept.out


def test_the_command_that_prints_all_options_works_when_pasted(home: Path) -> None:
    folder = home / "my configs" / "data"
    folder.mkdir(parents=True)
    (folder / "flats.yaml").write_text((TABLES / "data" / "rentals.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    error = user_error(command(home, "housing.train", f"--config-dir={folder.parent}", "data=flats", "data.nam=x"))
    assert "Did you mean data.name?" in error
    shown = command(home, *shlex.split(error.partition("python -m ")[2]))
    assert "name: rentals" in shown.out, shown.err


def test_a_hydra_error_has_its_traceback_if_the_user_asks_for_it(home: Path) -> None:
    result = command(home, "housing.train", "model=xgbost", HYDRA_FULL_ERROR="1")
    assert result.code == 1 and "MissingConfigException" in result.err and "Traceback" in result.err


def test_the_flags_are_those_of_hydra() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "housing.train", "--hydra-help"], capture_output=True, text=True, check=True
    ).stdout
    documented = {flag for line in shown.splitlines() if line.startswith("-") for flag in line.split(" : ")[0].split(",")}
    assert {flag for flags in (*SWITCHES, *FLAGS_WITH_VALUE) for flag in flags} == documented
