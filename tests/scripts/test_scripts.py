"""A fresh clone: the commands of README and docs one after the other, and scripts/run without the real table."""

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
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("clone")]

PAGES = [page for page in code_blocks.pages() if code_blocks.commands(page, "sh")]
LASTING = {"./scripts/serve": "http://127.0.0.1:8000/readyz", "mlflow ui": "http://127.0.0.1:5000/health"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone, with what is not committed yet. Its environment is the one that scripts/setup has made for the tests."""
    place = tmp_path_factory.mktemp("fresh") / "housing"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(place)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-mo", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).exists():
            shutil.copy(PROJECT / name, place / name)
    (place / ".venv").symlink_to(PROJECT / ".venv")
    for compiled in (PROJECT / "housing" / "bundle").glob("tree_walker.*.so"):
        shutil.copy(compiled, place / "housing" / "bundle")
    shell("./scripts/setup", place)
    return place


def shell(line: str, clone: Path, **environment: str) -> str:
    """Run a line as a user types it, and give what it prints."""
    environ = {name: value for name, value in os.environ.items() if name not in ("HOUSING_HOME", "VIRTUAL_ENV")}
    done = subprocess.run(
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
    assert done.returncode == 0, f"{line}\n{done.stdout}"
    return done.stdout


def answers(url: str) -> bool:
    """Return whether a GET request succeeds."""
    return subprocess.run(["curl", "-sf", url], capture_output=True, check=False).returncode == 0


START_SECONDS = 300  # MLflow's server starts and stops slowly on a busy machine


@contextmanager
def lasting(line: str, url: str, clone: Path) -> Iterator[None]:
    """Keep a command running that is meant to last, once it answers."""
    with (clone / "outputs" / "lasting.log").open("wb") as log:
        process = subprocess.Popen(["bash", "-c", f". .venv/bin/activate; exec {line}"], cwd=clone, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(url), f"{line} answers", START_SECONDS)
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def test_run_goes_on_with_a_generated_table_and_says_so_everywhere(clone: Path) -> None:
    nowhere = {"SCIKIT_LEARN_DATA": str(clone / "nowhere"), **NO_NETWORK}
    shown = shell("./scripts/run", clone, **nowhere)
    assert "COULD NOT DOWNLOAD THE CALIFORNIA TABLE" in shown
    assert "Reason: Could not download table california: URLError" in shown
    assert shown.count("fitted in") == 3
    assert "PROMOTE  housing-synthetic" in shown
    assert re.search(
        r'\{"predictions": \[\d\.\d+\], "model": "housing-synthetic", "version": "1", "request_id": "[-0-9a-f]+"\}', shown
    )
    with sqlite3.connect(clone / "mlflow.db") as database:
        tagged = database.execute("select value from tags where key = 'housing.fallback'").fetchall()
    assert tagged == [("the California table could not be downloaded",)] * 4  # the sweep and its three runs
    again = shell("./scripts/run", clone, **nowhere)
    assert again.count("│ reused │") == 3
    assert "HOLD  housing-synthetic" in again
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
        url = next((url for start, url in LASTING.items() if line.startswith(start)), None)
        if url is not None:
            with lasting(line, url, promoted):
                for request in filter(is_request, lines[number:]):
                    answer = shell(request, promoted)
                    assert '"type": "about:blank"' in answer or '"prediction' in answer, answer
        elif not is_request(line):
            shell(f". .venv/bin/activate; {line}", promoted)


def is_request(line: str) -> bool:
    """Return whether a command needs the server that the page starts."""
    return line.startswith("curl")


def test_predicting_a_file_keeps_every_row(promoted: Path) -> None:
    shell(". .venv/bin/activate; python -m housing.predict file=data/california.csv out=outputs/all.csv coverage=0.9", promoted)
    assert (promoted / "outputs" / "all.csv").read_text(encoding="utf-8").count("\n") == 20641


def test_setup_is_idempotent_and_names_what_is_missing(clone: Path) -> None:
    assert shell("./scripts/setup", clone) == ""
    nothing = subprocess.run(
        ["bash", "-c", "PYTHON=python2.9 ./scripts/setup; echo code $?"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "error: No Python 3.11, 3.12 or 3.13 found (tried: python2.9)" in nothing.stderr
    assert nothing.stdout == "code 1\n"
