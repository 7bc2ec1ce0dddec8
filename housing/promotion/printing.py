"""TODO docstring."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from housing.core.console import WIDE_TERMINAL, _console
from housing.evaluation.limitations import MIN_ROWS
from housing.evaluation.results import Evaluation
from housing.promotion.decision import Check, Decision
from housing.promotion.decision_log import DecisionRecord

MAX_SLICES = 5  # slices that are printed


HISTORY_METRICS = {
    "challenger": "challenger_rmse",
    "champion": "champion_rmse",
    "difference": "difference",
}  # of a decision of the past


TSV_HEADER = "when\tdecision\talias\tfrom\tto\twho\tchallenger\tchampion\tdifference\tserved\twhy"


def show_decision(decision: Decision, model: str) -> None:
    """Print what was decided, on which figures, and why."""
    console = _console()
    console.print(f"{decision.verdict}  {model} at alias {decision.alias}", style="bold")
    if decision.challenger_metrics:
        console.print(_scores_table(decision))
    if decision.checks:
        console.print(_checks_table(decision.checks))
    for reason in decision.reasons:
        console.print(f"- {reason}", markup=False, soft_wrap=True)
    if decision.evaluation is not None:
        _show_evaluation(console, decision.evaluation)
    here = f"version {decision.version}" if decision.version else "nothing"
    console.print(f"{decision.alias} is {here}" + (" now" if decision.moves else ", as before"))


def _scores_table(decision: Decision) -> Table:
    grid = Table(title=f"on {decision.test_rows:,} test rows", title_justify="left")
    for name in ("", *decision.challenger_metrics):
        grid.add_column(name, justify="right" if name else "left", overflow="fold")
    grid.add_row(f"challenger: run {decision.run_id}", *(f"{value:.4f}" for value in decision.challenger_metrics.values()))
    grid.add_row(f"champion: {decision.champion}", *(f"{value:.4f}" for value in decision.champion_metrics.values()))
    return grid


def _checks_table(checks: Sequence[Check]) -> Table:
    """Give what was checked as a table: all that failed, and of slices that passed the worst."""
    slices = sorted((one for one in checks if one.name.startswith("slice ")), key=lambda one: -(one.value or 0.0))
    shown = [one for one in checks if one not in slices or not one.passed or one in slices[:MAX_SLICES]]
    grid = Table(title=f"{len(checks)} checks" + (", the worst slices among them" if slices else ""), title_justify="left")
    for name in ("check", "found", "allowed", ""):
        grid.add_column(name, overflow="fold")
    for one in shown:
        grid.add_row(
            escape(one.name), escape(one.actual), one.limit, "" if one.passed else "veto", style="" if one.passed else "red"
        )
    return grid


def show_history(decisions: Sequence[DecisionRecord], tsv: bool) -> None:
    """Print decisions of the past: as a table, or as lines with tabs where another program reads them."""
    console = _console()
    if tsv or not console.is_terminal:
        print("\n".join([TSV_HEADER, *("\t".join(_to_tsv(one)) for one in decisions)]))
    else:
        console.print(_wide_history_table(decisions) if console.width >= WIDE_TERMINAL else _narrow_history_table(decisions))


def _wide_history_table(decisions: Sequence[DecisionRecord]) -> Table:
    grid = Table(show_lines=True)
    for name in ("when", "decision", "from → to", "figures", "who", "served", "why"):
        grid.add_column(name, overflow="fold")
    for one in decisions:
        figures = "\n".join(
            f"{name} {one.metrics[metric]:.4f}" for name, metric in HISTORY_METRICS.items() if metric in one.metrics
        )
        cells = (_timestamp(one), _label(one), _transition(one), figures, one.actor, one.served_at.replace("T", "\n"), one.reason)
        grid.add_row(*map(escape, cells))
    return grid


def _narrow_history_table(decisions: Sequence[DecisionRecord]) -> Table:
    """Give decisions in two columns; the reason has the figures too."""
    grid = Table(show_lines=True, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in decisions:
        served = f"\nserved {one.served_at.partition('T')[0]}" if one.served_at else ""
        grid.add_row(
            escape(f"{_timestamp(one)}\n{_label(one)}\n{_transition(one)}{served}"), escape(f"{one.actor}: {one.reason}")
        )
    return grid


def _timestamp(decision: DecisionRecord) -> str:
    return decision.decided_at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


def _label(decision: DecisionRecord) -> str:
    return (
        f"{decision.verdict} {decision.alias}"
        + (", forced" if decision.forced else "")
        + ("" if decision.finished else ", cut off")
    )


def _transition(decision: DecisionRecord) -> str:
    return f"{decision.previous_version or 'nothing'} → {decision.version or 'nothing'}"


def _to_tsv(decision: DecisionRecord) -> list[str]:
    figures = [f"{decision.metrics[metric]:.6g}" if metric in decision.metrics else "" for metric in HISTORY_METRICS.values()]
    when = decision.decided_at.isoformat(timespec="seconds")
    what = decision.verdict + (" forced" if decision.forced else "") + ("" if decision.finished else " cut off")
    return [
        when,
        what,
        decision.alias,
        decision.previous_version,
        decision.version,
        decision.actor,
        *figures,
        decision.served_at,
        " ".join(decision.reason.split()),
    ]


def _show_evaluation(console: Console, evaluation: Evaluation) -> None:
    grid = Table(title="honest evaluation", title_justify="left")
    for name in ("on", "rows", "rmse", ""):
        grid.add_column(name, justify="right" if name in ("rows", "rmse") else "left")
    certain = f"95 % of resamples: {evaluation.rmse_lower:.4f} to {evaluation.rmse_upper:.4f}"
    grid.add_row("test rows", f"{evaluation.rows:,}", f"{evaluation.scores['rmse']:.4f}", certain)
    for other in evaluation.harder_splits:
        fit = f"fitted again on {other.train_rows:,} rows"
        grid.add_row(f"{other.split} split", f"{other.test_rows:,}", f"{other.scores['rmse']:.4f}", fit)
    large = [one for one in evaluation.slices if one.rows >= MIN_ROWS]
    for worst in sorted(large, key=lambda one: -one.rmse)[:MAX_SLICES]:
        note = f"{worst.ratio:.1f} times all rows; mean error {worst.mean_error:+.4f}"
        grid.add_row(f"{worst.kind} {worst.name}", f"{worst.rows:,}", f"{worst.rmse:.4f}", note)
    console.print(grid)
    for covered in evaluation.coverage[:1]:
        console.print(f"intervals at 90 % cover {covered.coverage:.1%}, mean width {covered.mean_width:.4g}")
    for sentence in evaluation.limitations:
        console.print(f"! {sentence}", markup=False, soft_wrap=True)
    for left_out in evaluation.skipped:
        console.print(f"left out: {left_out}", markup=False, soft_wrap=True)
