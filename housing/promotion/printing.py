"""TODO docstring."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from housing.core.console import _console
from housing.evaluation.limitations import FEW
from housing.evaluation.results import Honest
from housing.promotion.decision import Check, Decision
from housing.promotion.decision_log import Past

WORST = 5  # slices that are printed


FIGURES = {"challenger": "challenger_rmse", "champion": "champion_rmse", "difference": "difference"}  # of a decision of the past


PLAIN = "when\tdecision\talias\tfrom\tto\twho\tchallenger\tchampion\tdifference\tserved\twhy"


WIDE = 120  # columns of a terminal in which the whole leaderboard, or history, has room


def show_decision(decision: Decision, model: str) -> None:
    """Print what was decided, on which figures, and why."""
    console = _console()
    console.print(f"{decision.verdict}  {model} at alias {decision.alias}", style="bold")
    if decision.challenger_metrics:
        console.print(_scores(decision))
    if decision.checks:
        console.print(_checks(decision.checks))
    for reason in decision.reasons:
        console.print(f"- {reason}", markup=False, soft_wrap=True)
    if decision.honest is not None:
        _show_honest(console, decision.honest)
    here = f"version {decision.version}" if decision.version else "nothing"
    console.print(f"{decision.alias} is {here}" + (" now" if decision.moves else ", as before"))


def _scores(decision: Decision) -> Grid:
    grid = Grid(title=f"on {decision.test_rows:,} test rows", title_justify="left")
    for name in ("", *decision.challenger_metrics):
        grid.add_column(name, justify="right" if name else "left", overflow="fold")
    grid.add_row(f"challenger: run {decision.run_id}", *(f"{value:.4f}" for value in decision.challenger_metrics.values()))
    grid.add_row(f"champion: {decision.champion}", *(f"{value:.4f}" for value in decision.champion_metrics.values()))
    return grid


def _checks(checks: Sequence[Check]) -> Grid:
    """Give what was checked as a table: all that failed, and of slices that passed the worst."""
    slices = sorted((one for one in checks if one.name.startswith("slice ")), key=lambda one: -(one.value or 0.0))
    shown = [one for one in checks if one not in slices or not one.passed or one in slices[:WORST]]
    grid = Grid(title=f"{len(checks)} checks" + (", the worst slices among them" if slices else ""), title_justify="left")
    for name in ("check", "found", "allowed", ""):
        grid.add_column(name, overflow="fold")
    for one in shown:
        grid.add_row(
            escape(one.name), escape(one.found), one.allowed, "" if one.passed else "veto", style="" if one.passed else "red"
        )
    return grid


def show_history(past: Sequence[Past], plain: bool) -> None:
    """Print decisions of the past: as a table, or as lines with tabs where another program reads them."""
    console = _console()
    if plain or not console.is_terminal:
        print("\n".join([PLAIN, *("\t".join(_as_line(one)) for one in past)]))
    else:
        console.print(_history_in_full(past) if console.width >= WIDE else _history_in_short(past))


def _history_in_full(past: Sequence[Past]) -> Grid:
    grid = Grid(show_lines=True)
    for name in ("when", "decision", "from → to", "figures", "who", "served", "why"):
        grid.add_column(name, overflow="fold")
    for one in past:
        figures = "\n".join(f"{name} {one.metrics[metric]:.4f}" for name, metric in FIGURES.items() if metric in one.metrics)
        cells = (_when(one), _what(one), _way(one), figures, one.by, one.served.replace("T", "\n"), one.why)
        grid.add_row(*map(escape, cells))
    return grid


def _history_in_short(past: Sequence[Past]) -> Grid:
    """Give decisions in two columns; the reason has the figures too."""
    grid = Grid(show_lines=True, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in past:
        served = f"\nserved {one.served.partition('T')[0]}" if one.served else ""
        grid.add_row(escape(f"{_when(one)}\n{_what(one)}\n{_way(one)}{served}"), escape(f"{one.by}: {one.why}"))
    return grid


def _when(one: Past) -> str:
    return one.at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


def _what(one: Past) -> str:
    return f"{one.verdict} {one.alias}" + (", forced" if one.forced else "") + ("" if one.finished else ", cut off")


def _way(one: Past) -> str:
    return f"{one.before or 'nothing'} → {one.version or 'nothing'}"


def _as_line(one: Past) -> list[str]:
    figures = [f"{one.metrics[metric]:.6g}" if metric in one.metrics else "" for metric in FIGURES.values()]
    when = one.at.isoformat(timespec="seconds")
    what = one.verdict + (" forced" if one.forced else "") + ("" if one.finished else " cut off")
    return [when, what, one.alias, one.before, one.version, one.by, *figures, one.served, " ".join(one.why.split())]


def _show_honest(console: Console, honest: Honest) -> None:
    grid = Grid(title="honest evaluation", title_justify="left")
    for name in ("on", "rows", "rmse", ""):
        grid.add_column(name, justify="right" if name in ("rows", "rmse") else "left")
    certain = f"95 % of resamples: {honest.low:.4f} to {honest.high:.4f}"
    grid.add_row("test rows", f"{honest.rows:,}", f"{honest.scores['rmse']:.4f}", certain)
    for other in honest.elsewhere:
        fit = f"fitted again on {other.train_rows:,} rows"
        grid.add_row(f"{other.split} split", f"{other.test_rows:,}", f"{other.scores['rmse']:.4f}", fit)
    large = [one for one in honest.slices if one.rows >= FEW]
    for worst in sorted(large, key=lambda one: -one.rmse)[:WORST]:
        note = f"{worst.share:.1f} times all rows; mean error {worst.mean_error:+.4f}"
        grid.add_row(f"{worst.kind} {worst.name}", f"{worst.rows:,}", f"{worst.rmse:.4f}", note)
    console.print(grid)
    for covered in honest.coverage[:1]:
        console.print(f"intervals at 90 % cover {covered.share:.1%}, mean width {covered.width:.4g}")
    for sentence in honest.not_to_trust:
        console.print(f"! {sentence}", markup=False, soft_wrap=True)
    for left_out in honest.left_out:
        console.print(f"left out: {left_out}", markup=False, soft_wrap=True)
