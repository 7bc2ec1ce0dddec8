"""The sources of the wheel in a folder of their own, so that a build leaves nothing in the clone."""

import shutil
from pathlib import Path

from housing.core.environment import PROJECT

SOURCES = ("conf", "housing", "hydra_plugins", "server", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def copy_sources(folder: Path) -> None:
    """Copy what a wheel is built from, without compiled files, into a new folder."""
    folder.mkdir()
    for source in (PROJECT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, folder)
