"""The config: every option of every group composes and instantiates."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.data.settings import parse_schema
from housing.estimators.specs import estimator_specs
from housing.features.pipeline import Features
from tests.support.commands import command
from tests.support.tables import config, require_library

GROUPS = [(path.parent.name, path.stem) for path in sorted(Path(CONF).glob("*/*.yaml")) if path.parent.name != "cluster"]
REQUIRED = {"distilled": ("model.teacher._target_=sklearn.linear_model.LinearRegression",)}  # what an option leaves to the user
COMMANDS = sorted(path.stem for path in Path(CONF).glob("*.yaml") if path.stem not in ("command", "paths", "registry"))


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_option_composes_and_instantiates(group: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    require_library(option)
    cfg = config(
        "train", f"{'+' if group in ('debug', 'experiment') else ''}{group}={option}".removeprefix("+"), *REQUIRED.get(option, ())
    )
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    schema = parse_schema(cfg.data)
    for spec in estimator_specs(cfg):
        assert spec.create_estimator().fit
        assert Features(schema, spec.features, spec.nan_handling).names
    assert cfg.interval.estimator is None or instantiate(cfg.interval.estimator).fit
    assert cfg.evaluation.folds is None or instantiate(cfg.evaluation.folds).split
    assert callable(get_method(cfg.split._target_))  # pylint: disable=protected-access
    assert callable(get_method(cfg.data.source._target_))  # pylint: disable=protected-access


def test_the_class_of_a_cluster_can_be_chosen() -> None:
    engine = config("train", "engine=dask_slurm", "cluster@engine.cluster=slurm").engine
    assert engine.name == "dask" and engine.cluster._target_ == "dask_jobqueue.SLURMCluster"  # pylint: disable=protected-access


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_module_and_composes(name: str) -> None:
    assert (PROJECT / "housing" / f"{name}.py").is_file()
    OmegaConf.to_container(config(name), resolve=True)


@pytest.mark.parametrize("override", ["modle=linear", "model.estimator.n_estimator=3", "speed=9"])
def test_an_unknown_key_is_an_error_with_its_name(override: str) -> None:
    with pytest.raises(ConfigCompositionException, match=override.split("=", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]):
        config("train", override)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("--help", "python -m housing.train -m model=linear,decision_tree,xgboost"), ("--cfg=job", "max_depth: 6")],
)
def test_help_and_cfg_work_outside_of_the_project(flag: str, expected: str) -> None:
    arguments = [sys.executable, "-m", "housing.train", flag]
    process = subprocess.run(arguments, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 0, process.stderr
    assert expected in process.stdout


def test_a_missing_mandatory_value_is_an_error_with_its_name(tmp_path: Path) -> None:
    result = command(tmp_path, "housing.predict")
    assert result.code == 1
    assert result.err.startswith("error: Required: file (")
