"""Table of a leaderboard's page: one row for each job, best first, as texts that the page shows, sorts and filters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from housing.runs.outcome import Outcome
from housing.scoring.metrics import COST_METRICS, HIGHER_IS_BETTER
from housing.sweeps.ranking import Parameter, Ranking

SCORES = ("rmse", "mae", "r2")  # shown beside the objectives
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "fit_seconds": ("fit s", lambda value: f"{value:.2f}"),
    "latency_us": ("row µs", lambda value: f"{value:,.0f}"),
    "model_bytes": ("MB", lambda value: f"{value / 1e6:.2f}"),
}
BREAK = "_\u200b"  # a place where a browser may break a long name


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes
    ----------
    name
        The name by which a filter knows the column.
    label, hint
        The text of its header, and what is shown if the pointer rests there.
    is_text
        Whether it is sorted as text and aligned to the left.
    cell
        Returns the text of a job, by its index.
    """

    name: str
    label: str
    hint: str
    is_text: bool
    cell: Callable[[int], str]


@dataclass(frozen=True)
class JobTable:
    """The columns of the table, and its rows in the order of the ranking."""

    columns: list[Column]
    rows: list[dict[str, Any]]

    @property
    def data(self) -> dict[str, Any]:
        """The table for the page's script."""
        columns = [{"name": column.name, "text": column.is_text} for column in self.columns]
        return {"columns": columns, "rows": [list(row.values()) for row in self.rows]}


def job_table(ranking: Ranking) -> JobTable:
    """Return the table of a ranking. A row has its `cells`, the `style` of the job's state, and the `link` to its run."""
    columns = _columns(ranking)
    return JobTable(columns, [_row(ranking, columns, index) for index in ranking.ranked])


def _row(ranking: Ranking, columns: list[Column], index: int) -> dict[str, Any]:
    outcome = ranking.outcomes[index]
    style = "front" if index in ranking.pareto_front else "" if outcome.status in ("FINISHED", "PRUNED") else "unfinished"
    return {"cells": [column.cell(index) for column in columns], "style": style, "link": link(outcome)}


def _columns(ranking: Ranking) -> list[Column]:
    def rank(index: int) -> str:
        return ranking.ranks.get(index, "") + ("*" if index in ranking.pareto_front else "")

    metrics = [name for name in dict.fromkeys([*ranking.objectives, *SCORES]) if name not in COST_METRICS]
    return [
        Column("rank", "rank", "", False, rank),
        Column("job", "job", "", False, lambda index: str(ranking.job_numbers[index])),
        *(_score_column(ranking, name) for name in metrics),
        *map(_parameter_column, ranking.parameters),
        *(_cost_column(ranking, name) for name in COSTS),
        Column("state", "state", "", True, lambda index: state(ranking.outcomes[index])),
        Column("run", "run", "", True, lambda index: (ranking.outcomes[index].run_id or "")[:8]),
    ]


def _score_column(ranking: Ranking, name: str) -> Column:
    direction, arrow = ("higher", "↑") if name in HIGHER_IS_BETTER else ("lower", "↓")

    def cell(index: int) -> str:
        value = ranking.outcomes[index].metrics.get(name)
        return "" if value is None else f"{value:.4f}"

    return Column(name, f"{ranking.label(name)} {arrow}", f"{direction} is better", False, cell)


def _parameter_column(parameter: Parameter) -> Column:
    numbers = parameter.numbers

    def cell(index: int) -> str:
        return parameter.values[index] if numbers is None else f"{numbers[index]:.4g}"

    return Column(parameter.label, parameter.label.replace("_", BREAK), parameter.name, numbers is None, cell)


def _cost_column(ranking: Ranking, name: str) -> Column:
    label, text = COSTS[name]

    def cell(index: int) -> str:
        value = ranking.outcomes[index].metrics.get(name)
        return "" if value is None else text(value)

    return Column(name, f"{label} ↓", "lower is better", False, cell)


def link(outcome: Outcome) -> str:
    """Return the address of a job's run, or "" if a browser would not open it as a page."""
    return outcome.link if outcome.link.startswith(("http://", "https://")) else ""


def state(outcome: Outcome) -> str:
    """Return how a job ended, in one word."""
    if outcome.reused:
        return "reused"
    return "fitted" if outcome.status == "FINISHED" else outcome.status.lower()
