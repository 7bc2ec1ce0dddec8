"""Versions of a table. DVC keeps them, and is asked as a command; `<table>.csv.dvc` beside the table says which one git names."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from housing.core.errors import DataVersionError


@dataclass(frozen=True)
class Version:
    """One version of a table, as its .dvc file names it."""

    md5: str
    size: int  # bytes

    def matches(self, path: Path) -> bool:
        """Whether the file is this version."""
        return path.stat().st_size == self.size and self.is_prefix_of(path)

    def is_prefix_of(self, path: Path) -> bool:
        """Whether the file is this version, or this version with rows added behind it."""
        with path.open("rb") as file:
            return hashlib.md5(file.read(self.size), usedforsecurity=False).hexdigest() == self.md5


def dvc_file(table: Path) -> Path:
    """Give the place of a table's .dvc file."""
    return table.with_name(f"{table.name}.dvc")


def tracked_version(table: Path) -> Version | None:
    """Give the version that a table's .dvc file names, or None where the table is not under DVC.

    Raises VersionError where the file names none.
    """
    path = dvc_file(table)
    if not path.is_file():
        return None
    try:
        (out,) = yaml.safe_load(path.read_text(encoding="utf-8"))["outs"]
        return Version(str(out["md5"]), int(out["size"]))
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise DataVersionError(f"{path} names no version of {table.name}: {type(error).__name__}: {error}") from error


def pull(table: Path) -> None:
    """Put the version that git names in a table's place, from DVC's cache or remote. An unsaved change is never overwritten.

    Raises VersionError with what DVC says.
    """
    _dvc("pull", table)


def add(table: Path) -> None:
    """Keep the present table as a version in DVC's cache, and name it in its .dvc file.

    Raises VersionError with what DVC says.
    """
    _dvc("add", table)


def push(table: Path) -> None:
    """Put the version that git names into DVC's remote, from its cache. Raises VersionError with what DVC says."""
    _dvc("push", table)


def is_in_remote(table: Path) -> bool:
    """Whether DVC's remote has the version that git names. Raises VersionError where the remote cannot be asked."""
    return not json.loads(_dvc("status", table, "--cloud", "--json"))


def _dvc(command: str, table: Path, *flags: str) -> str:
    arguments = [sys.executable, "-m", "dvc", command, *flags, table.name]
    done = subprocess.run(arguments, cwd=table.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DataVersionError(f"dvc {command} {table.name}: {_error_summary(done.stderr)}")
    return done.stdout


def _error_summary(stderr: str) -> str:
    """Give DVC's errors as one line, without its advice on where to ask for help."""
    lines = [
        line for line in stderr.splitlines() if line and not line.startswith(("<http", "Having any troubles", "Is your cache"))
    ]
    begin = next((place for place, line in enumerate(lines) if line.startswith("ERROR: ")), 0)
    return " ".join(line.removeprefix("ERROR: ") for line in lines[begin:])
