"""TODO docstring."""

from collections.abc import Sequence

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from housing.core.console import WIDE_TERMINAL, _console
from housing.runs.outcome import Outcome
from housing.sweeps import ranking

MAX_RUNS = 20  # runs of a sweep that are printed


MAX_ERROR_LENGTH = 300  # letters of why a job failed


def show_leaderboard(outcomes: list[Outcome], cfg: DictConfig, objectives: Sequence[str], run_id: str) -> None:
    """Print the jobs of a sweep, best first, and why the others failed. `*` marks the Pareto set of several objectives."""
    console = _console()
    common = set.intersection(*(set(outcome.overrides) for outcome in outcomes)) if len(outcomes) > 1 else set()
    finished = sorted((o for o in outcomes if o.status == "FINISHED"), key=lambda outcome: outcome.metrics[objectives[0]])
    title = f"{len(finished)} of {len(outcomes)} runs finished, best {objectives[0]} on validation rows first"
    if finished:
        front = ranking.pareto_optimal(outcomes, objectives) if len(objectives) > 1 else []
        console.print(_ranking_table(title, finished, front, common, console.width >= WIDE_TERMINAL))
    else:
        console.print(title)
    if len(finished) > MAX_RUNS:
        console.print(f"{len(finished)} runs finished, of which the best are shown; all are in leaderboard.csv")
    _show_failures(console, [o for o in outcomes if o.status not in ("FINISHED", "PRUNED")], common)
    if finished:
        advice = f"promote its best: python -m housing.promote data={cfg.data.name} sweep={run_id}"
        console.print(f"sweep {run_id}   {advice}", soft_wrap=True)


def _ranking_table(title: str, finished: list[Outcome], front: list[Outcome], common: set[str], wide: bool) -> Table:
    grid = Table(title=title + (", * the Pareto set" if front else ""), title_justify="left")
    scores = ("rmse", "mae", "r2") if wide else ("rmse",)
    for name in ("", "run", *scores, "fit s", "row µs", "MB", "state", "run id"):
        grid.add_column(name, justify="left" if name in ("run", "state", "run id") else "right", overflow="fold")
    for rank, outcome in enumerate(finished, start=1):
        if grid.row_count < (2 if outcome in front else 1) * MAX_RUNS:
            mark, style = f"{rank}*" if outcome in front else str(rank), "bold" if rank == 1 else ""
            grid.add_row(
                mark, outcome.describe(common), *_metric_cells(outcome, scores), *_origin_cells(outcome, wide), style=style
            )
    return grid


def _metric_cells(outcome: Outcome, scores: Sequence[str]) -> list[str]:
    metrics = outcome.metrics
    cost = [f"{metrics['fit_seconds']:.2f}", f"{metrics['latency_us']:,.0f}", f"{metrics['model_bytes'] / 1e6:.2f}"]
    return [f"{metrics[name]:.4f}" for name in scores] + cost


def _origin_cells(outcome: Outcome, wide: bool) -> tuple[str, str]:
    run_id = str(outcome.run_id)
    return "reused" if outcome.reused else "fitted", run_id if wide else run_id[:8]


def _show_failures(console: Console, failed: list[Outcome], common: set[str]) -> None:
    for outcome in failed[:MAX_RUNS]:
        reason = " ".join(outcome.error.split())[:MAX_ERROR_LENGTH]
        console.print(f"{outcome.status} {outcome.describe(common)}: {reason}", style="red", markup=False)
    if len(failed) > MAX_RUNS:
        console.print(f"and {len(failed) - MAX_RUNS} more that did not finish", style="red")
    if any(outcome.status == "FAILED" for outcome in failed):
        console.print("the whole traceback is in each run: traceback.txt, linked from leaderboard.html")
