"""Commands of the project, git and DVC as subprocesses."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from housing.core.environment import PROJECT

NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def git(directory: Path, *arguments: str) -> str:
    """Run git in a repository and return its output."""
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True).stdout


def dvc(directory: Path, *arguments: str, **environment: str) -> str:
    """Run DVC in a repository and return its output."""
    process = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@dataclass(frozen=True)
class Ended:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


def command(home_: Path, *arguments: str, cwd: Path = PROJECT, **environment: str) -> Ended:
    """Run a command of the project, `command(home, "housing.train", "debug=fast")`, as a user would."""
    environ = {**os.environ, "HOUSING_HOME": str(home_), **environment}
    process = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    return Ended(process.returncode, process.stdout, process.stderr)
