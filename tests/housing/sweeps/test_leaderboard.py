"""The leaderboard: ranking, figures, the self-contained page, and the table on a terminal."""

import csv
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from housing.plots.svg import ACCENT, SvgFigure
from housing.runs.outcome import Outcome
from housing.sweeps import figures, leaderboard, printing
from housing.sweeps.figures import parameter_importances
from housing.sweeps.ranking import Ranking, best_outcomes, pareto_optimal

UNIT, COMMAND = "EUR a month", "python -m housing.promote data=rentals sweep=abc"
COSTS = {"mae": 0.3, "r2": 0.8, "fit_seconds": 1.0, "model_bytes": 1e5}


def job(rmse: float, microseconds: float = 100.0, **parameters: object) -> Outcome:
    """Return a finished job with these parameters."""
    metrics = {"rmse": rmse, "latency_us": microseconds, **COSTS}
    return Outcome(
        [f"model.{name}={value}" for name, value in parameters.items()], "FINISHED", "ab" * 16, "http://x/run", metrics=metrics
    )


def searched(jobs: int) -> list[Outcome]:
    """Return jobs whose score depends on the depth and not on the rate."""
    random = np.random.default_rng(0)
    depths, rates = random.integers(2, 12, jobs), 10.0 ** random.uniform(-3, 0, jobs)
    kinds = random.choice(["exact", "hist"], jobs)
    return [
        job((depth - 7) ** 2 / 100 + random.normal(0.5, 0.001), depth=depth, rate=rate, kind=kind)
        for depth, rate, kind in zip(depths, rates, kinds, strict=True)
    ]


def write_and_read(
    outcomes: list[Outcome], folder: Path, objectives: tuple[str, ...] = ("rmse",)
) -> tuple[list[dict[str, str]], str]:
    """Write a leaderboard, and return the rows of its table and its page."""
    ranking = Ranking("a sweep", outcomes, list(objectives), UNIT, COMMAND)
    table, page = leaderboard.write(ranking, folder, figures=True)
    return list(csv.DictReader(table.read_text().splitlines())), page.read_text()


def titles(page: str) -> list[str]:
    """Return the headings of a page."""
    return re.findall("<h2>(.*?)</h2>", page)


def test_the_page_shows_table_and_figures_and_is_self_contained(tmp_path: Path) -> None:
    rows, page = write_and_read(searched(40), tmp_path)
    assert titles(page) == ["Jobs", "rmse of each job", "Parameter importance", "Slices", "Parallel coordinates"]
    assert not re.findall(r"""(?:src|href)=["'](?!http://x/run|#)""", page) and "url(http" not in page
    assert re.findall("<script.*?>", page) == ['<script type="application/json" id="data">', "<script>"]
    for figure in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "nan" not in ET.tostring(ET.fromstring(figure), encoding="unicode").lower()
    assert len(re.findall(r"<tr[ >]", page)) == 41
    scores = [float(row["rmse"]) for row in rows]
    assert scores == sorted(scores) and rows[0]["rank"] == "1" and float(rows[0]["model.rate"]) > 0


def test_the_same_jobs_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = (write_and_read(searched(12), tmp_path / name)[1] for name in ("one", "two"))
    assert first == second


def test_importance_names_the_parameter_that_decides_the_score() -> None:
    ranking = Ranking("", searched(60), ["rmse"])
    shares = parameter_importances(ranking, ranking.parameters)
    assert shares is not None and shares["depth"] > 0.9 and sum(shares.values()) == pytest.approx(1.0)


def test_failures_are_grouped_by_their_reason_and_cannot_break_the_page(tmp_path: Path) -> None:
    reason = "ValueError: <script>alert(1)</script>"
    failed = [Outcome([f"model.depth={depth}"], "FAILED", error=reason) for depth in (20, 21)]
    killed = Outcome(["model.depth=22"], "KILLED", error="The job's process was killed by SIGKILL.")
    rows, page = write_and_read([job(0.5, depth=2), *failed, killed, job(0.4, depth=3)], tmp_path)
    assert "<script>alert" not in page and page.count("&lt;script&gt;alert(1)") == 1
    assert re.search(r"<td>2</td><td class=\"text\">FAILED</td>", page) and "SIGKILL" in page
    assert [row["status"] for row in rows] == ["FINISHED", "FINISHED", "FAILED", "FAILED", "KILLED"]
    assert [row["rank"] for row in rows] == ["1", "2", "", "", ""]


def test_an_outlier_does_not_flatten_the_other_scores(tmp_path: Path) -> None:
    page = write_and_read([*searched(20), job(1e6, depth=3, rate=0.1, kind="hist")], tmp_path)[1]
    assert "1 job lies above the axis, at up to 1e+06" in page


def test_no_other_job_dominates_those_of_the_pareto_set(tmp_path: Path) -> None:
    jobs = [job(0.5, 100, d=1), job(0.4, 200, d=2), job(0.45, 300, d=3), job(0.5, 100, d=4), Outcome(["model.d=5"], "PRUNED")]
    assert pareto_optimal(jobs, ("rmse", "latency_us")) == [jobs[0], jobs[1], jobs[3]]
    page = write_and_read(jobs, tmp_path, ("rmse", "latency_us"))[1]
    assert "rmse against latency_us" in titles(page) and page.count("*</td>") == 3


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([Outcome(["model.depth=1"], "FAILED", error="no")], ["Jobs", "Failures"]),
        ([job(0.5)], ["Jobs"]),
        ([job(0.5, depth=1), job(0.5, depth=2)], ["Jobs", "rmse of each job", "Slices"]),
        (
            [job(0.5, depth=d, rate=0.1 * d) for d in (1, 2, 3, 4)],
            ["Jobs", "rmse of each job", "Slices", "Parallel coordinates"],
        ),
    ],
    ids=["none finished", "one job", "two jobs, one parameter", "equal scores"],
)
def test_a_figure_needs_enough_jobs(outcomes: list[Outcome], expected: list[str], tmp_path: Path) -> None:
    assert titles(write_and_read(outcomes, tmp_path)[1]) == expected


def test_the_page_of_a_large_sweep_stays_small(tmp_path: Path) -> None:
    rows, page = write_and_read(searched(5000), tmp_path)
    assert len(rows) == 5000 and len(page) < 3_000_000
    assert "The best 200 of 5000 jobs" in page and len(re.findall(r"<tr[ >]", page)) == 201  # a browser without scripts


def test_the_page_names_unit_direction_and_promote_command_and_numbers_from_1(tmp_path: Path) -> None:
    failed = Outcome(["model.d=3"], "FAILED", error="no", job=7)
    rows, page = write_and_read([job(0.5, d=1), job(0.4, d=2), failed], tmp_path)
    assert f"Ranked by rmse ({UNIT}) on validation rows; lower is better" in page and f"<code>{COMMAND}</code>" in page
    assert f"mae ({UNIT}) ↓" in page and "r2 ↑" in page and ">job 7<" in page.replace("\n", "><")
    assert [(row["rank"], row["job"]) for row in rows] == [("1", "2"), ("2", "1"), ("", "7")]
    assert re.findall(r"<td>(\d*)</td><td>(\d+)</td>", page)[:2] == [("1", "2"), ("2", "1")]


def test_the_page_has_a_dark_mode_and_no_fixed_width(tmp_path: Path) -> None:
    page = write_and_read(searched(4), tmp_path)[1]
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert page.count("<table") == page.count('<div class="scroll"><table')  # a wide table scrolls inside the page


@pytest.mark.parametrize("objectives", [["rmse"], ["rmse", "latency_us"]])
def test_the_printed_table_fits_80_columns_without_escape_codes_in_a_file(objectives: list[str]) -> None:
    jobs = [
        job(123.4567 + depth, 12345.0, max_depth=depth, learning_rate=0.1234567, min_samples_leaf=depth) for depth in range(30)
    ]
    file = StringIO()
    printing.show_leaderboard(Ranking("", jobs, objectives, "100,000 USD"), Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b" not in file.getvalue()
    assert any("123.4567" in line and "│ fitted │" in line for line in lines)
    assert "lower is better" in " ".join(file.getvalue().split())


def test_a_score_of_ones_own_leaves_room_for_runs_and_their_ids_in_80_columns() -> None:
    jobs = [replace(job(1.0, depth=1), metrics={"worst_error": 395.3103, **job(1.0).metrics})]
    file = StringIO()
    printing.show_leaderboard(Ranking("", jobs, ["worst_error"], "", COMMAND), Console(file=file, width=80))
    [line] = [line for line in file.getvalue().splitlines() if "395.3103" in line]
    assert "│ depth=1 │" in line and "│ abababab │" in line


def test_jobs_scored_on_different_rows_are_ranked_apart(tmp_path: Path) -> None:
    scores = [("50", 0.9), ("200", 0.2), ("50", 0.8), ("200", 0.3)]
    jobs = [replace(job(score, d=number), scored_rows=rows) for number, (rows, score) in enumerate(scores)]
    rows, page = write_and_read(jobs, tmp_path)
    assert [(row["rank"], row["rmse"]) for row in rows] == [("1.1", "0.8"), ("1.2", "0.9"), ("2.1", "0.2"), ("2.2", "0.3")]
    assert "scored on 2 different sets of rows" in page and "Promote the best run" not in page and "<svg" not in page
    file = StringIO()
    printing.show_leaderboard(Ranking("", jobs, ["rmse"], UNIT, COMMAND), Console(file=file, width=120))
    assert "scored on 2 different sets of rows" in file.getvalue() and "Promote the best run" not in file.getvalue()
    assert [outcome.metrics["rmse"] for outcome in best_outcomes(jobs, "rmse")] == [0.8, 0.2]


def test_figures_show_higher_values_of_r2_as_better() -> None:
    rmse = [job(0.5 + 0.01 * number, depth=number, rate=number % 3) for number in (4, 1, 6, 0, 3, 5, 2, 7)]
    mirrored = [replace(outcome, metrics={**outcome.metrics, "r2": 1 - outcome.metrics["rmse"]}) for outcome in rmse]
    by_rmse, by_r2 = (
        {figure.title.removeprefix(f"{name} "): figure for figure in figures.draw(Ranking("", jobs, [name], UNIT, COMMAND))}
        for name, jobs in (("rmse", rmse), ("r2", mirrored))
    )
    assert "Lower is better" in by_rmse["of each job"].caption and "Higher is better" in by_r2["of each job"].caption

    def line_colors(figure: SvgFigure) -> list[str]:
        return re.findall(r"stroke: (#\w{6}); stroke-opacity: 0.8", figure.svg)

    colors = line_colors(by_r2["Parallel coordinates"])
    assert len(set(colors)) == len(rmse) and colors == line_colors(by_rmse["Parallel coordinates"])

    def best_so_far(figure: SvgFigure) -> list[float]:
        """Return the heights of the step line of the best values, from the top of the figure."""
        (path,) = re.findall(rf'<path d="([^"]*)"[^>]*stroke: {ACCENT}', figure.svg)[:1]
        return [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]

    falling, rising = best_so_far(by_rmse["of each job"]), best_so_far(by_r2["of each job"])
    assert falling == sorted(falling) and falling[0] < falling[-1]
    assert rising == sorted(rising, reverse=True) and rising[0] > rising[-1]
