"""The leaderboard: what is ranked, what is drawn, and that the page stands alone."""

import csv
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from housing.runs.outcome import Outcome
from housing.sweeps import leaderboard
from housing.sweeps.figures import parameter_importances
from housing.sweeps.ranking import Ranking, pareto_optimal

COSTS = {"mae": 0.3, "r2": 0.8, "fit_seconds": 1.0, "model_bytes": 1e5}


def job(rmse: float, microseconds: float = 100.0, **asked: object) -> Outcome:
    """A finished job with these parameters."""
    metrics = {"rmse": rmse, "latency_us": microseconds, **COSTS}
    return Outcome(
        [f"model.{name}={value}" for name, value in asked.items()], "FINISHED", "ab" * 16, "http://x/run", metrics=metrics
    )


def searched(jobs: int) -> list[Outcome]:
    """Jobs of which the depth decides almost everything, and the rate nothing."""
    random = np.random.default_rng(0)
    depths, rates = random.integers(2, 12, jobs), 10.0 ** random.uniform(-3, 0, jobs)
    kinds = random.choice(["exact", "hist"], jobs)
    return [
        job((depth - 7) ** 2 / 100 + random.normal(0.5, 0.001), depth=depth, rate=rate, kind=kind)
        for depth, rate, kind in zip(depths, rates, kinds, strict=True)
    ]


def written(outcomes: list[Outcome], folder: Path, objectives: tuple[str, ...] = ("rmse",)) -> tuple[list[dict[str, str]], str]:
    """The rows of the table, and the page."""
    table, page = leaderboard.write(outcomes, objectives, "a sweep", folder, figures=True)
    return list(csv.DictReader(table.read_text().splitlines())), page.read_text()


def titles(page: str) -> list[str]:
    """The headings of a page."""
    return re.findall("<h2>(.*?)</h2>", page)


def test_the_page_shows_every_figure_and_stands_alone(tmp_path: Path) -> None:
    rows, page = written(searched(40), tmp_path)
    assert titles(page) == ["rmse over the jobs", "What mattered", "Slices", "Parallel coordinates", "Jobs"]
    assert not re.findall(r"""(?:src|href)=["'](?!http://x/run|#)""", page) and "<script" not in page and "url(http" not in page
    for figure in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "nan" not in ET.tostring(ET.fromstring(figure), encoding="unicode").lower()
    assert page.count("<tr>") + page.count("<tr ") == 41
    scores = [float(row["rmse"]) for row in rows]
    assert scores == sorted(scores) and rows[0]["rank"] == "1" and float(rows[0]["model.rate"]) > 0


def test_the_same_jobs_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = (written(searched(12), tmp_path / name)[1] for name in ("one", "two"))
    assert first == second


def test_importance_is_where_the_score_comes_from() -> None:
    board = Ranking("", searched(60), ["rmse"])
    shares = parameter_importances(board, board.parameters)
    assert shares is not None and shares["depth"] > 0.9 and sum(shares.values()) == pytest.approx(1.0)


def test_failures_are_grouped_by_their_reason_and_cannot_break_the_page(tmp_path: Path) -> None:
    reason = "ValueError: <script>alert(1)</script>"
    bad = [Outcome([f"model.depth={depth}"], "FAILED", error=reason) for depth in (20, 21)]
    killed = Outcome(["model.depth=22"], "KILLED", error="its process was killed by SIGKILL")
    rows, page = written([job(0.5, depth=2), *bad, killed, job(0.4, depth=3)], tmp_path)
    assert "<script" not in page and page.count("&lt;script&gt;alert(1)") == 1
    assert re.search(r"<td>2</td><td class=\"text\">FAILED</td>", page) and "SIGKILL" in page
    assert [row["status"] for row in rows] == ["FINISHED", "FINISHED", "FAILED", "FAILED", "KILLED"]
    assert [row["rank"] for row in rows] == ["1", "2", "", "", ""]


def test_one_score_that_went_astray_does_not_flatten_the_rest(tmp_path: Path) -> None:
    page = written([*searched(20), job(1e6, depth=3, rate=0.1, kind="hist")], tmp_path)[1]
    assert "1 job lies above the upper edge, at up to 1e+06" in page


def test_the_pareto_set_is_what_no_other_job_beats(tmp_path: Path) -> None:
    jobs = [job(0.5, 100, d=1), job(0.4, 200, d=2), job(0.45, 300, d=3), job(0.5, 100, d=4), Outcome(["model.d=5"], "PRUNED")]
    assert pareto_optimal(jobs, ("rmse", "latency_us")) == [jobs[0], jobs[1], jobs[3]]
    page = written(jobs, tmp_path, ("rmse", "latency_us"))[1]
    assert "rmse against latency_us" in titles(page) and page.count("*</td>") == 3


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([Outcome(["model.depth=1"], "FAILED", error="no")], ["What did not finish", "Jobs"]),
        ([job(0.5)], ["Jobs"]),
        ([job(0.5, depth=1), job(0.5, depth=2)], ["rmse over the jobs", "Slices", "Jobs"]),
        (
            [job(0.5, depth=d, rate=0.1 * d) for d in (1, 2, 3, 4)],
            ["rmse over the jobs", "Slices", "Parallel coordinates", "Jobs"],
        ),
    ],
    ids=["none finished", "one job", "two jobs, one parameter", "all alike"],
)
def test_few_jobs_give_what_they_can(outcomes: list[Outcome], expected: list[str], tmp_path: Path) -> None:
    assert titles(written(outcomes, tmp_path)[1]) == expected


def test_a_large_sweep_gives_a_page_that_a_browser_can_show(tmp_path: Path) -> None:
    rows, page = written(searched(5000), tmp_path)
    assert len(rows) == 5000 and len(page) < 3_000_000
    assert "The best 200 of 5000 jobs" in page
