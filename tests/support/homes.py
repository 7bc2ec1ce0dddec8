"""Homes: folders with tables, a store and what was served."""

import shutil
from pathlib import Path


def copy_home(source: Path, directory: Path) -> None:
    """Copy a home with its artifacts, which the copied store refers to once it is opened."""
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("outputs"), dirs_exist_ok=True)
