"""The commands of README and docs in a fresh clone, and scripts/run without the California table."""

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support import code_blocks
from tests.support.commands import NO_NETWORK
from tests.support.server import free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("clone")]

PAGES = [page for page in code_blocks.pages() if code_blocks.commands(page, "sh")]
# by the start of its command: the option for another port, the page's port, and a route that tells when the server is ready
SERVERS = {"./scripts/serve": ("serve.port=", 8000, "/readyz"), "mlflow ui": ("--port=", 5000, "/health")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone with all uncommitted changes. Its environment is that of the tests."""
    directory = tmp_path_factory.mktemp("fresh") / "housing"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(directory)], check=True)
    changed = subprocess.run(
        ["git", "ls-files", "-mo", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for name in changed.stdout.splitlines():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).exists():
            shutil.copy(PROJECT / name, directory / name)
    (directory / ".venv").symlink_to(PROJECT / ".venv")
    for compiled in (PROJECT / "housing").glob("*/*.so"):
        shutil.copy(compiled, directory / "housing" / compiled.parent.name)
    shell("./scripts/setup", directory)
    return directory


def shell(line: str, clone: Path, **environment: str) -> str:
    """Run a shell command as a user types it and return its output."""
    environ = {name: value for name, value in os.environ.items() if name not in ("HOUSING_HOME", "VIRTUAL_ENV")}
    process = subprocess.run(
        ["bash", "-c", line],
        cwd=clone,
        env={**environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert process.returncode == 0, f"{line}\n{process.stdout}"
    return process.stdout


def answers(url: str) -> bool:
    """Return whether a GET request succeeds."""
    return subprocess.run(["curl", "-sf", url], capture_output=True, check=False).returncode == 0


START_SECONDS = 300  # MLflow's server starts and stops slowly on a busy machine


@contextmanager
def background_server(line: str, url: str, clone: Path) -> Iterator[None]:
    """Run a command in the background. Wait until its URL responds. A failure prints the command's output."""
    output = clone / "outputs" / "server.log"
    with output.open("wb") as log:
        process = subprocess.Popen(["bash", "-c", f". .venv/bin/activate; exec {line}"], cwd=clone, stdout=log, stderr=log)
    try:
        try:
            wait_for(lambda: process.poll() is not None or answers(url), f"{line} responds", START_SECONDS)
            assert process.poll() is None, f"{line} ended with exit code {process.returncode}"
        except AssertionError:
            print(output.read_text(encoding="utf-8"))
            raise
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def test_run_without_the_california_table_warns_and_uses_synthetic_data(clone: Path) -> None:
    no_data = {"SCIKIT_LEARN_DATA": str(clone / "nowhere"), **NO_NETWORK}
    output = shell("./scripts/run", clone, **no_data)
    assert "COULD NOT DOWNLOAD THE CALIFORNIA TABLE" in output
    assert "Reason: Could not download table california: URLError" in output
    assert output.count("fitted in") == 3
    assert "PROMOTE  housing-synthetic" in output
    assert re.search(
        r'\{"predictions": \[\d\.\d+\], "model": "housing-synthetic", "version": "1", "request_id": "[-0-9a-f]+"\}', output
    )
    with sqlite3.connect(clone / "mlflow.db") as database:
        tagged = database.execute("select value from tags where key = 'housing.fallback'").fetchall()
    assert tagged == [("the California table could not be downloaded",)] * 4  # the sweep and its three runs
    repeated = shell("./scripts/run", clone, **no_data)
    assert repeated.count("│ reused │") == 3
    assert "HOLD  housing-synthetic" in repeated
    assert shell("pgrep -f '[g]unicorn.*server/gunicorn.conf.py' | xargs -r -n1 pwdx | grep -c $PWD || true", clone) == "0\n"


@pytest.fixture(scope="module")
def promoted(clone: Path, real_home: Path) -> Path:
    """The clone after scripts/run with the real table, which `real_home` shows to be available."""
    assert (real_home / "data" / "california.csv").exists()
    assert "PROMOTE  housing-california" in shell("./scripts/run", clone)
    return clone


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_works(page: Path, promoted: Path) -> None:
    for name, content in code_blocks.files(page).items():
        (promoted / name).parent.mkdir(parents=True, exist_ok=True)
        (promoted / name).write_text(content, encoding="utf-8")
    lines = code_blocks.commands(page, "sh")
    assert lines
    for number, line in enumerate(lines):
        server = next((server for start, server in SERVERS.items() if line.startswith(start)), None)
        if server is not None:
            option, usual_port, route = server
            port = free_port()  # another program of this machine may have the usual one
            with background_server(f"{line} {option}{port}", f"http://127.0.0.1:{port}{route}", promoted):
                for request in filter(is_request, lines[number:]):
                    response = shell(request.replace(f":{usual_port}", f":{port}"), promoted)
                    assert '"type": "about:blank"' in response or '"prediction' in response, response
        elif not is_request(line):
            shell(f". .venv/bin/activate; {line}", promoted)


def is_request(line: str) -> bool:
    """Return whether a command needs the server that the page starts."""
    return line.startswith("curl")


def test_predicting_a_file_keeps_every_row(promoted: Path) -> None:
    shell(". .venv/bin/activate; python -m housing.predict file=data/california.csv out=outputs/all.csv coverage=0.9", promoted)
    assert (promoted / "outputs" / "all.csv").read_text(encoding="utf-8").count("\n") == 20641


def test_setup_is_idempotent_and_names_a_missing_python(clone: Path) -> None:
    assert shell("./scripts/setup", clone) == ""
    process = subprocess.run(
        ["bash", "-c", "PYTHON=python2.9 ./scripts/setup; echo code $?"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "error: No Python 3.11, 3.12 or 3.13 found (tried: python2.9)" in process.stderr
    assert process.stdout == "code 1\n"
