"""Terminal output about sweeps: the leaderboard, and the reasons of failures."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from housing.command_line.console import WIDE_TERMINAL, create_console
from housing.runs.outcome import Outcome
from housing.scoring.metrics import COST_METRICS
from housing.sweeps.ranking import Ranking

MAX_RUNS = 20  # runs in the printed table, and failures below it
MAX_ERROR_LENGTH = 300  # characters


def show_leaderboard(ranking: Ranking, console: Console | None = None) -> None:
    """Print the jobs of a sweep, best first, the reasons of failures, and how to promote the best run."""
    console = console or create_console()
    outcomes, finished = ranking.outcomes, ranking.finished
    common = set.intersection(*(set(outcome.overrides) for outcome in outcomes)) if len(outcomes) > 1 else set()
    title = (
        f"{len(finished)} of {len(outcomes)} runs finished; ranked by {ranking.label()} on validation rows, {ranking.direction}"
    )
    if finished:
        console.print(_ranking_table(title, ranking, common, console.width >= WIDE_TERMINAL))
    else:
        console.print(title)
    if ranking.group_note:
        console.print(ranking.group_note, soft_wrap=True)
    if len(finished) > MAX_RUNS:
        console.print(f"Only the best of {len(finished)} finished runs are shown. leaderboard.csv lists all.")
    _show_failures(console, [outcome for outcome in outcomes if outcome.status not in ("FINISHED", "PRUNED")], common)
    if finished and ranking.promote_command and not ranking.group_note:
        console.print(f"Promote the best run: {ranking.promote_command}", soft_wrap=True)


def _ranking_table(title: str, ranking: Ranking, common: set[str], wide: bool) -> Table:
    front = ranking.pareto_front
    grid = Table(title=title + ("; * marks the Pareto set" if front else ""), title_justify="left", padding=(0, 1))
    scores = _shown_scores(ranking.objectives[0], wide)
    for name in ("#", "run", *scores, "fit s", "row µs", "MB", "state", "run id"):
        is_text = name in ("run", "state", "run id")
        grid.add_column(
            name,
            justify="left" if is_text else "right",
            overflow="fold",
            no_wrap=not (name == "run" or (wide and name == "run id")),
        )
    leaders = {group[0] for group in ranking.groups}
    for index in ranking.finished:
        in_front, outcome = index in front, ranking.outcomes[index]
        if grid.row_count < (2 if in_front else 1) * MAX_RUNS:
            cells = (outcome.describe(common), *_metric_cells(outcome, scores), *_origin_cells(outcome, wide))
            rank = ranking.ranks[index]
            grid.add_row(f"{rank}*" if in_front else rank, *cells, style="bold" if index in leaders else "")
    return grid


def _shown_scores(objective: str, wide: bool) -> tuple[str, ...]:
    """Return the scores that have a column: 80 characters have room for one."""
    known = ("rmse", "mae", "r2")
    if not wide:
        return ("rmse" if objective in COST_METRICS else objective,)
    return known if objective in (*known, *COST_METRICS) else (objective, *known)


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
        console.print(f"{outcome.status} {outcome.describe(common)}: {reason}", style="red")
    if len(failed) > MAX_RUNS:
        console.print(f"{len(failed) - MAX_RUNS} more jobs did not finish.", style="red")
    if any(outcome.status == "FAILED" for outcome in failed):
        console.print("Each failed run has its traceback in traceback.txt, linked from leaderboard.html.")
