"""Projects of one's own: what is written, what is refused, and which project a command works in."""

import shlex
import shutil
from pathlib import Path

import pytest

from housing import Project
from housing.command_line.next_command import next_command
from housing.command_line.project_overrides import add_project_overrides
from housing.core.environment import own_config_folder, own_project, project_home
from housing.core.errors import ConfigError, HousingError, WriteError
from housing.new_project.project import create_project, template_differences
from tests.support.tables import TABLES, config


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project, and a folder in it as the working directory."""
    folder = tmp_path / "flats"
    create_project(folder)
    (folder / "notebooks").mkdir()
    monkeypatch.chdir(folder / "notebooks")
    monkeypatch.delenv("HOUSING_HOME", raising=False)
    return folder


def write_marker(project: Path, text: str) -> None:
    """Replace the content of housing.yaml."""
    (project / "housing.yaml").write_text(text, encoding="utf-8")


def test_a_new_project_is_small_and_as_its_template(project: Path) -> None:
    files = [path for path in project.rglob("*") if path.is_file()]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 120
    assert "# flats\n" in (project / "README.md").read_text(encoding="utf-8")
    assert template_differences() == ""
    (project / "dvc.yaml").unlink()
    assert "+++ dvc.yaml (template)" in template_differences()


def test_printed_commands_are_those_of_the_installed_program(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next_command("train", "data=flats") == "housing train data=flats"
    with pytest.raises(ConfigError, match="All options: housing train --help"):
        Project(project).train("foo")
    monkeypatch.chdir(project.parent)
    assert next_command("train", "data=flats") == "python -m housing.train data=flats"


def test_a_hint_in_python_names_the_config_folder_as_a_command_does(project: Path) -> None:
    own = project / 'my "conf'
    shutil.copytree(TABLES, own)
    with pytest.raises(HousingError) as raised:
        Project(project, "data=rentals", config_dir=own).runs()
    hint = str(raised.value).rpartition("train a model first: ")[2]
    assert shlex.split(hint) == ["housing", "train", f"--config-dir={own}", "data=rentals"]


def test_a_folder_with_files_is_left_alone(project: Path) -> None:
    before = sorted(project.rglob("*"))
    with pytest.raises(ConfigError, match="exists already"):
        create_project(project)
    assert sorted(project.rglob("*")) == before
    assert [path.name for path in project.parent.iterdir()] == ["flats"]


def test_a_project_that_cannot_be_made_is_one_sentence_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=f"Could not write {tmp_path}/file/flats: File exists."):
        create_project(tmp_path / "file" / "flats")


def test_the_nearest_project_upwards_is_the_home(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_project() == project_home() == project
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path / "elsewhere"))
    assert (own_project(), project_home()) == (project, tmp_path / "elsewhere")
    create_project(tmp_path / "other")
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path / "other"))
    assert own_project() == project_home() == tmp_path / "other"


def test_config_files_of_the_project_come_first(project: Path) -> None:
    folder = own_config_folder()
    assert folder == project / "conf"
    (folder / "model").mkdir()
    for name in ("linear", "own"):
        (folder / "model" / f"{name}.yaml").write_text(f"name: {name} of the project\n", encoding="utf-8")
    # the table rentals is that of the tests
    assert config("train", "data=rentals", "model=own", "seed=1").model.name == "own of the project"
    assert config("train", "data=rentals", "model=linear", "seed=1").model.name == "linear of the project"


def test_overrides_of_the_project_belong_to_each_command_that_has_them(project: Path) -> None:
    write_marker(project, "overrides: [data=flats, model=linear]")
    assert add_project_overrides("train", ["-m", "seed=1"]) == ["-m", "data=flats", "model=linear", "seed=1"]
    assert add_project_overrides("promote", ["--cfg", "job"]) == ["--cfg", "job", "data=flats"]
    assert add_project_overrides("train", ["data=other"]) == ["model=linear", "data=other"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("overrides: [modle=linear]", "No command accepts modle=linear"),
        ("overrides: data=flats", "housing.yaml is wrong. Expected overrides"),
        ("feature_blocks: {log: Logarithms}", "housing.yaml is wrong. Expected overrides"),
        ("tables: []", "housing.yaml is wrong. Expected overrides"),
    ],
)
def test_a_wrong_marker_is_named(project: Path, text: str, reason: str) -> None:
    write_marker(project, text)
    with pytest.raises(ConfigError, match=reason):
        add_project_overrides("train", [])


def test_without_a_project_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert add_project_overrides("train", ["-m"]) == ["-m"]
    with pytest.raises(ConfigError, match="This is no project"):
        template_differences()
