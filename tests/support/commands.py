"""Commands of the project, git and DVC as subprocesses."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from housing.core.environment import PROJECT

NO_NETWORK = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
TIMEOUT_SECONDS = 300
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["housing.sweeps.sweep", "housing.promotion.promotion", "mlflow.store.tracking.sqlalchemy_store", "matplotlib.pyplot"]
)


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
class CommandResult:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


def user_error(result: CommandResult) -> str:
    """Return the message of a command that a user error has ended. It is the only output."""
    assert result.code == 1, result.err
    assert result.err.startswith("error: ") and "Traceback" not in result.err and "HYDRA_FULL_ERROR" not in result.err
    return result.err.removeprefix("error: ").rstrip("\n")


def command(home_: Path, *arguments: str, cwd: Path = PROJECT, **environment: str) -> CommandResult:
    """Run a command of the project, `command(home, "housing.train", "debug=fast")`, in a process of its own.

    The process is forked from one that has imported the libraries, which takes seconds. Use `fresh_command` if the test
    is about the start itself, or if no result may depend on the hash seed, which all forks share.
    """
    with tempfile.TemporaryDirectory() as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        environ = {**os.environ, "HOUSING_HOME": str(home_), **environment}
        process = FORKS.Process(target=run_module, args=(arguments, environ, out, err, cwd))
        process.start()
        process.join(TIMEOUT_SECONDS)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, TIMEOUT_SECONDS)
        return CommandResult(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def run_module(arguments: tuple[str, ...], environ: dict[str, str], out: Path, err: Path, cwd: Path = PROJECT) -> None:
    """Do what `python -m` does in the present process."""
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))
    sys.argv = list(arguments)
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing runs none  # pylint: disable=protected-access


def fresh_command(home_: Path, *arguments: str, cwd: Path = PROJECT, **environment: str) -> CommandResult:
    """Run a command of the project as a user would, with an interpreter of its own."""
    environ = {**os.environ, "HOUSING_HOME": str(home_), **environment}
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return CommandResult(process.returncode, process.stdout, process.stderr)
