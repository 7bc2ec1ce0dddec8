"""The Python interface: the same work, records and errors as the commands, and objects that a notebook shows."""

import json
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import housing
from housing import Project
from housing.core.environment import PROJECT
from housing.core.errors import ConfigError, HousingError, StoreError, TableError
from tests.support import code_blocks
from tests.support.commands import command
from tests.support.tables import RENTALS_DATA, rentals_frame

pytestmark = pytest.mark.long

PAGE = PROJECT / "docs" / "how-to" / "use-from-python.md"
ROW = {"area": 50.0, "rooms": 2, "furnished": True, "quarter": "hills", "built": 1950}


@pytest.fixture
def project(home: Path) -> Project:
    """A project with the table rentals, without runs."""
    return Project(home, "data=rentals", config_dir=PROJECT / "tests" / "tables")


def test_a_run_of_a_command_and_one_of_python_are_the_same_run(project: Project) -> None:
    trained = command(project.folder, "housing.train", *RENTALS_DATA, "model=linear")
    assert trained.code == 0, trained.err
    run = project.train("features=none", "model=linear")
    assert run.reused
    assert run.id in trained.out
    assert f"rmse {run.metrics['rmse']:.4f}" in trained.out


def test_the_story_of_a_project(project: Project) -> None:
    sweep = project.sweep("model=linear,decision_tree")
    assert list(sweep.leaderboard.status) == ["FINISHED", "FINISHED"]
    assert sweep.leaderboard.rmse.is_monotonic_increasing
    assert sweep.best.id == sweep.leaderboard.run_id[0]
    assert sweep.best.id in project.runs().query("status == 'FINISHED'").run_id.to_list()
    assert project.compare(*sweep.leaderboard.run_id).loc["model.name"].nunique() == 2

    decision = project.promote("gate.min_rows=50")
    assert (decision.verdict, decision.version) == ("PROMOTE", "1")
    assert project.history().verdict.to_list() == ["PROMOTE"]
    assert project.report(sweep.best.id).read_text(encoding="utf-8").startswith("<!doctype html>")

    [trial] = project.search("decision_tree", n_trials=1).outcomes
    assert project.runs(where="params.`model.name` = 'linear'").run_id.to_list() == [sweep.best.id]
    assert trial.run_id == project.runs(where=f"metrics.rmse > {sweep.best.metrics['rmse']}", limit=1).run_id[0]
    forced = project.promote(f"run_id={project.runs().run_id[0]}", "gate.min_rows=50", "force=true", "force_reason=test")
    assert (forced.verdict, forced.version) == ("PROMOTE", "2")
    returned = project.rollback()
    assert (returned.verdict, returned.version) == ("ROLLBACK", "1")

    predicted = project.predict(ROW, interval=0.8, quantiles=[0.5])
    assert list(predicted) == ["prediction", "lower", "upper", "quantile_0.5"]
    with project.serve() as url:
        request = urllib.request.Request(f"{url}/predict", json.dumps(ROW).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["predictions"] == predicted.prediction.to_list()
    for shown in (sweep, sweep.best, decision, project.load()):
        assert shown._repr_html_().startswith("<")  # pylint: disable=protected-access  # the name is Jupyter's


def test_a_model_takes_frames_dicts_and_lists(promoted_project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    model = promoted_project.load()
    frame = rentals_frame().head(20)
    predicted = model.predict(frame.set_index(pd.Index(range(100, 120))))
    assert predicted.index.to_list() == list(range(100, 120))
    records = json.loads(frame.to_json(orient="records"))
    assert model.predict(records).prediction.to_list() == predicted.prediction.to_list()
    assert model.predict(records[0]).prediction.to_list() == predicted.prediction.to_list()[:1]
    monkeypatch.setenv("HOUSING_HOME", str(promoted_project.folder))
    assert housing.load("models:/housing-rentals@staging").predict(records).equals(model.predict(records))


def test_an_explanation_adds_up(promoted_project: Project) -> None:
    model = promoted_project.load()
    values = promoted_project.explain(ROW)
    base = model.bundle.predict(model.bundle.background).mean()
    assert values.sum() + base == pytest.approx(model.predict(ROW).prediction[0])
    assert values.abs().is_monotonic_decreasing and set(values.index) == set(ROW)


def test_errors_are_those_of_the_commands(promoted_project: Project) -> None:
    project = promoted_project
    with pytest.raises(ConfigError, match=r"no option modle \(modle=linear\)\. Did you mean model\?"):
        project.train("modle=linear")
    with pytest.raises(ConfigError, match="Did you mean model=linear"):
        project.train("model=lienar")
    with pytest.raises(ConfigError, match="without flags"):
        project.train("-m", "model=linear")
    with pytest.raises(TableError, match="area"):
        project.predict({**ROW, "area": "fifty"})
    with pytest.raises(ConfigError, match="a DataFrame, a dict or a list of dicts"):
        project.predict([1, 2])  # type: ignore[list-item]
    with pytest.raises(StoreError, match="nonsense"):
        project.compare("nonsense")
    with pytest.raises(StoreError, match="Invalid clause"):
        project.runs(where="rmse is small")
    with pytest.raises(HousingError, match="Its output says why"):
        project.sweep("model=linear", "max_rows=range(5,5)")
    with pytest.raises(HousingError, match="The server ended"), project.serve("serve.rate_limit=-1"):
        pass


def test_two_projects_of_one_process_do_not_mix(promoted_project: Project, tmp_path: Path) -> None:
    folder = shutil.copytree(PROJECT / "tests" / "tables", tmp_path / "Übung, [1] = #2")
    other = Project(tmp_path / "other", "data=rentals", config_dir=folder)
    with pytest.raises(StoreError, match=f"There is no MLflow store at {tmp_path}/other/mlflow.db."):
        other.runs()
    assert len(promoted_project.runs()) == 1
    assert len(promoted_project.predict(ROW)) == 1  # the model is in the store of this project


@pytest.fixture
def promoted_project(project: Project) -> Project:
    """The project with a linear model at staging."""
    project.train("model=linear")
    assert project.promote("gate.min_rows=50").verdict == "PROMOTE"
    return project


def test_the_page_works_as_it_is_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "rentals.csv").write_bytes((PROJECT / "docs" / "tutorials" / "rentals.csv").read_bytes())
    (home / "data" / "rentals.csv").unlink()
    script = "\n".join(code_blocks.commands(PAGE, "python"))
    namespace: dict[str, object] = {}
    exec(compile(script, str(PAGE), "exec"), namespace)  # pylint: disable=exec-used  # the page is ours
    assert np.isfinite(namespace["predictions"]["prediction"]).all()  # type: ignore[index]
