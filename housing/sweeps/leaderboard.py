"""The leaderboard of a sweep: a CSV file of all jobs, and a self-contained HTML page with table and figures."""

import csv
from collections.abc import Callable
from pathlib import Path

from housing.core.files import atomic_write
from housing.plots.html import write_page
from housing.runs.outcome import Outcome
from housing.sweeps import figures as sweep_figures
from housing.sweeps.job_table import job_table, link
from housing.sweeps.ranking import Ranking

CSV_FILE, PAGE_FILE = "leaderboard.csv", "leaderboard.html"
MAX_ROWS = 200  # rows of the page's table at first: a browser needs a second for 5,000
MAX_REASONS = 50  # most frequent reasons of failures in the page


def write(ranking: Ranking, folder: Path, figures: bool) -> list[Path]:
    """Write the CSV file and the page, and return their paths in this order."""
    return [_write_table(ranking, folder / CSV_FILE), _write_page(ranking, folder / PAGE_FILE, figures)]


def _write_table(ranking: Ranking, path: Path) -> Path:
    metrics = list(dict.fromkeys(name for outcome in ranking.outcomes for name in outcome.metrics))
    columns: dict[str, Callable[[int, Outcome], object]] = {
        "job": lambda index, _: ranking.job_numbers[index],
        "status": lambda _, outcome: outcome.status,
        "reused": lambda _, outcome: outcome.reused,
        "run_id": lambda _, outcome: outcome.run_id or "",
        "worker": lambda _, outcome: outcome.worker,
        "seconds": lambda _, outcome: round(outcome.seconds, 3),
        "error": lambda _, outcome: outcome.error,
    }
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rank", *(parameter.name for parameter in ranking.parameters), *metrics, *columns])
        for index in ranking.ranked:
            outcome = ranking.outcomes[index]
            values = [parameter.values[index] for parameter in ranking.parameters]
            scores = [outcome.metrics.get(name, "") for name in metrics]
            writer.writerow(
                [ranking.ranks.get(index, ""), *values, *scores, *(column(index, outcome) for column in columns.values())]
            )
    return path


def _write_page(ranking: Ranking, path: Path, figures: bool) -> Path:
    drawn = sweep_figures.draw(ranking) if figures and not ranking.group_note else []
    values = {"ranking": ranking, "table": job_table(ranking), "figures": drawn, "link": link}
    return write_page(PAGE_FILE, path, **values, max_rows=MAX_ROWS, max_reasons=MAX_REASONS)
