"""Homes: folders with tables, a store and what was served."""

import shutil
from pathlib import Path


def copy_home(source: Path, directory: Path) -> None:
    """Copy a home without artifacts: the copied store refers to those of its source."""
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("mlartifacts", "outputs"), dirs_exist_ok=True)
