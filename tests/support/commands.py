"""TODO docstring."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from housing.core.environment import PROJECT

NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def git(place: Path, *arguments: str) -> str:
    """Run git in a repository, and give what it prints."""
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=place, check=True, capture_output=True, text=True).stdout


def dvc(place: Path, *arguments: str, **environment: str) -> str:
    """Run DVC in a repository, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def command(home_: Path, *arguments: str, cwd: Path = PROJECT, **environment: str) -> Ended:
    """Run a command of the project, `command(home, "housing.train", "debug=fast")`, as a user would."""
    environ = {**os.environ, "HOUSING_HOME": str(home_), **environment}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)
