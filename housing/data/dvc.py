"""Data versions: DVC's cache and remote, used through its command line, and the `.dvc` file that git tracks."""

import functools
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from housing.core.errors import DataVersionError

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Version:
    """One version of a table, as its `.dvc` file names it."""

    md5: str
    size: int  # bytes

    def matches(self, path: Path) -> bool:
        """Return whether the file is this version."""
        return path.stat().st_size == self.size and self.is_prefix_of(path)

    def is_prefix_of(self, path: Path) -> bool:
        """Return whether the file is this version, possibly with rows appended."""
        digest, rest = hashlib.md5(usedforsecurity=False), self.size
        with path.open("rb") as file:
            while chunk := file.read(min(rest, CHUNK_BYTES)):
                digest.update(chunk)
                rest -= len(chunk)
        return digest.hexdigest() == self.md5


def dvc_file(table: Path) -> Path:
    """Return the path of a table's `.dvc` file."""
    return table.with_name(f"{table.name}.dvc")


def tracked_version(table: Path) -> Version | None:
    """Return the version in a table's `.dvc` file, or None if the table is not under DVC.

    Raises
    ------
    DataVersionError
        If the file names no version.
    """
    path = dvc_file(table)
    if not path.is_file():
        return None
    try:
        (output,) = yaml.safe_load(path.read_text(encoding="utf-8"))["outs"]
        return Version(str(output["md5"]), int(output["size"]))
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise DataVersionError(
            f"{path} names no version of {table.name} ({type(error).__name__}: {error})."
            f" Restore it from git, or write it again: dvc add {table}"
        ) from error


def present_version(table: Path) -> str | None:
    """Return the MD5 checksum of a table's file if it is the version that git names, else None."""
    version = tracked_version(table)
    if version is None or not table.is_file():
        return None
    status = table.stat()
    return version.md5 if status.st_size == version.size and _md5(table, status.st_mtime_ns) == version.md5 else None


@functools.lru_cache
def _md5(path: Path, _modified: int) -> str:
    """Return the MD5 checksum of a file, computed once until the file is modified."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, functools.partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def pull(table: Path) -> None:
    """Replace a table by the version that git names, from DVC's cache or remote. Changes that are not saved are kept.

    Raises
    ------
    DataVersionError
        If DVC fails, with its error message. This holds for every function below.
    """
    _dvc("pull", table)


def add(table: Path) -> None:
    """Save the present table as a version in DVC's cache and in its `.dvc` file."""
    _dvc("add", table)


def unprotect(table: Path) -> None:
    """Replace a link into DVC's cache by a copy of the table, so that a change of the table leaves the cache as it is."""
    _dvc("unprotect", table)


def push(table: Path) -> None:
    """Upload the version that git names from DVC's cache to its remote."""
    _dvc("push", table)


def is_in_remote(table: Path) -> bool:
    """Return whether DVC's remote has the version that git names."""
    return not json.loads(_dvc("status", table, "--cloud", "--json"))


def _dvc(command: str, table: Path, *flags: str) -> str:
    arguments = [sys.executable, "-m", "dvc", command, *flags, table.name]
    process = subprocess.run(arguments, cwd=table.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise DataVersionError(f"dvc {command} {table.name}: {_error_summary(process.stderr)}")
    return process.stdout


def _error_summary(stderr: str) -> str:
    """Return DVC's errors as one line, without its links and its advice on support."""
    lines = [
        line for line in stderr.splitlines() if line and not line.startswith(("<http", "Having any troubles", "Is your cache"))
    ]
    start = next((index for index, line in enumerate(lines) if line.startswith("ERROR: ")), 0)
    return " ".join(line.removeprefix("ERROR: ") for line in lines[start:])
