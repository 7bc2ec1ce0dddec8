"""A new project of one's own, and how an older one differs from the present template."""

import difflib
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from housing.core.environment import MARKER, own_project
from housing.core.errors import ConfigError
from housing.core.files import write_error

TEMPLATE = Path(__file__).parent / "template"
# Files by their place in the template, whose names have no leading dot: tools would read them there.
RENAMED = {"gitignore": ".gitignore", "workflows/train.yml": ".github/workflows/train.yml"}
FOLDERS = ("conf/data", "data")  # empty at first
NAME_MARK, VERSION_MARK = "PROJECT_NAME", "HOUSING_VERSION"


def create_project(folder: Path) -> None:
    """Write a new project.

    Raises
    ------
    ConfigError
        If the folder exists and is not empty.
    WriteError
        If the folder cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} exists already. Choose another name, or see what is new in the template: housing new --update"
        )
    try:
        _write_project(folder)
    except OSError as error:
        raise write_error(folder, error) from error


def _write_project(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".housing-") as scratch:
        for name, text in _files(folder.name):
            path = Path(scratch, "project", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for name in FOLDERS:
            Path(scratch, "project", name).mkdir(parents=True, exist_ok=True)
        os.replace(Path(scratch, "project"), folder)  # appears as a whole


def template_differences() -> str:
    """Return what the present template would change in the project of the working directory, as a unified diff.

    Raises
    ------
    ConfigError
        If the working directory is in no project.
    """
    folder = own_project()
    if folder is None:
        raise ConfigError(
            f"This is no project: neither {Path.cwd()} nor a folder above has a file {MARKER}. Make one: housing new NAME"
        )
    return "".join(line for name, text in _files(folder.name) for line in _difference(folder / name, name, text))


def _files(project_name: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each file within a project, and its text."""
    for path in sorted(TEMPLATE.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            name = path.relative_to(TEMPLATE).as_posix()
            text = path.read_text(encoding="utf-8").replace(NAME_MARK, project_name).replace(VERSION_MARK, version("housing"))
            yield RENAMED.get(name, name), text


def _difference(path: Path, name: str, text: str) -> Iterator[str]:
    present = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return difflib.unified_diff(present, text.splitlines(keepends=True), f"{name} (yours)", f"{name} (template)")
