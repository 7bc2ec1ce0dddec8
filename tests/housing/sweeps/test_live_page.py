"""The page of a running sweep: what it shows, to whom it answers, and how it ends."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from housing.core.errors import ConfigError
from housing.runs.outcome import Outcome
from housing.sweeps.live_page import ADDRESS, LivePage
from housing.sweeps.progress import SweepProgress


@pytest.fixture
def progress(tmp_path: Path) -> SweepProgress:
    """Return the progress of a sweep with a finished, a failed and a running job."""
    outcomes = {
        "1": Outcome(["model.depth=3"], "FINISHED", metrics={"rmse": 0.25}, seconds=2.0),
        "2": Outcome(["model.depth=4"], "FAILED", error="<script>alert(1)</script>"),
        "3": Outcome(["model.depth=5"], "RUNNING", worker="node1 7", progress="fold 2 of 5"),
    }
    for name, outcome in outcomes.items():
        (tmp_path / name).mkdir()
        outcome.write(tmp_path / name)
    progress = SweepProgress(tmp_path, "rmse", total_jobs=40)
    progress.update()
    return progress


@pytest.fixture
def live_page(progress: SweepProgress) -> Iterator[LivePage]:
    """Yield a page that answers."""
    page = LivePage(progress, threading.Lock(), "a sweep", "/sweep/leaderboard.html", 0)
    page.start()
    yield page
    page.stop()


def get(page: LivePage, path: str = "/", host: str = "localhost") -> str:
    """Return what a browser gets that calls the page by this name."""
    request = urllib.request.Request(f"http://{ADDRESS}:{page.port}{path}", headers={"Host": f"{host}:{page.port}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
        text: str = response.read().decode()
    return text


def test_the_page_shows_the_best_the_failures_and_what_runs(live_page: LivePage, progress: SweepProgress, tmp_path: Path) -> None:
    text = get(live_page)
    assert "0.2500" in text and "2 of 40" in text and "depth=3" in text and " left." in text
    assert "fold 2 of 5" in text and "node1 7" in text
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text
    Outcome(["model.depth=5"], "FINISHED", metrics={"rmse": 0.125}).write(tmp_path / "3")
    progress.update()
    assert "0.1250" in get(live_page) and "fold 2 of 5" not in get(live_page)
    assert "fetch(" in get(live_page, "/live.js")


@pytest.mark.parametrize(("path", "host", "code"), [("/", "attacker.example", 403), ("/jobs.json", "localhost", 404)])
def test_other_names_and_paths_are_refused(live_page: LivePage, path: str, host: str, code: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(live_page, path, host)
    with refused.value as answer:
        assert answer.code == code


def test_a_port_that_is_taken_is_an_error_before_the_first_job(live_page: LivePage, progress: SweepProgress) -> None:
    with pytest.raises(ConfigError, match=f"sweep.port={live_page.port}"):
        LivePage(progress, threading.Lock(), "another", "", live_page.port)


def test_after_the_sweep_nothing_answers(progress: SweepProgress) -> None:
    page = LivePage(progress, threading.Lock(), "a sweep", "", 0)
    page.start()
    with socket.create_connection((ADDRESS, page.port)):  # as browsers open ahead: it delays neither the page nor the end
        assert "2 of 40" in get(page)
        page.stop()
    with pytest.raises(urllib.error.URLError):
        get(page)
