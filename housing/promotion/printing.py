"""Printed decisions: the result of a promotion or rollback, and the history of decisions."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from housing.command_line.console import WIDE_TERMINAL, create_console
from housing.core.printable import show
from housing.evaluation.limitations import MIN_ROWS
from housing.evaluation.results import Evaluation
from housing.promotion.decision import CANARY, PENDING, Check, Decision
from housing.promotion.decision_log import DecisionRecord

MAX_SLICES = 5
SHOWN_DIGITS = 12  # of the fingerprint of a key
HISTORY_METRICS = {"challenger": "challenger_rmse", "champion": "champion_rmse", "difference": "difference"}
TSV_HEADER = "when\tdecision\talias\tfrom\tto\twho\tchallenger\tchampion\tdifference\tserved\twhy"


def show_decision(decision: Decision, model: str) -> None:
    """Print a decision, its scores and checks, and the reasons for it."""
    console = create_console()
    console.print(f"{decision.verdict}  {model} at alias {decision.alias}", style="bold")
    if decision.challenger_metrics:
        console.print(_scores_table(decision))
    if decision.checks:
        console.print(_checks_table(decision.checks))
    for reason in decision.reasons:
        console.print(f"- {reason}", soft_wrap=True)
    if decision.next_command:
        purpose = "Another person approves it with" if decision.verdict == PENDING else "To promote it nevertheless"
        console.print(f"{purpose}: {decision.next_command}", soft_wrap=True)
    if decision.evaluation is not None:
        _show_evaluation(console, decision.evaluation)
    version = decision.previous_version if decision.verdict == CANARY else decision.version
    state = f"is version {version}" if version else "has no version"
    console.print(f"{decision.alias} {state} ({'moved' if decision.moves else 'unchanged'})")


def _scores_table(decision: Decision) -> Table:
    grid = Table(title=f"Scores on {decision.test_rows:,} test rows", title_justify="left")
    grid.add_column("model", overflow="fold")
    for name in decision.challenger_metrics:
        grid.add_column(name, justify="right", overflow="fold")
    grid.add_row(f"challenger: run {decision.run_id}", *(f"{value:.4f}" for value in decision.challenger_metrics.values()))
    grid.add_row(f"champion: {decision.champion}", *(f"{value:.4f}" for value in decision.champion_metrics.values()))
    return grid


def _checks_table(checks: Sequence[Check]) -> Table:
    """Return a table of the checks. Of the slices that passed, it shows only the worst."""
    slices = sorted((check for check in checks if check.name.startswith("slice ")), key=lambda check: -(check.value or 0.0))
    shown = [check for check in checks if check not in slices or not check.passed or check in slices[:MAX_SLICES]]
    title = f"{len(checks)} checks" + (", with the worst slices" if slices else "")
    grid = Table(title=title, title_justify="left")
    for name in ("check", "measured", "limit", "result"):
        grid.add_column(name, overflow="fold")
    for check in shown:
        result, style = ("passed", "") if check.passed else ("failed", "red")
        grid.add_row(check.name, check.actual, check.limit, result, style=style)
    return grid


def show_history(decisions: Sequence[DecisionRecord], tsv: bool) -> None:
    """Print past decisions: a table on a terminal, tab-separated lines if requested or if the output is redirected."""
    console = create_console()
    if tsv or not console.is_terminal:
        show("\n".join([TSV_HEADER, *("\t".join(_to_tsv(decision)) for decision in decisions)]))
    else:
        console.print(_wide_history_table(decisions) if console.width >= WIDE_TERMINAL else _narrow_history_table(decisions))


def _wide_history_table(decisions: Sequence[DecisionRecord]) -> Table:
    grid = Table(show_lines=True)
    for name in ("when", "decision", "from → to", "test RMSE", "who", "served", "why"):
        grid.add_column(name, overflow="fold")
    for decision in decisions:
        scores = "\n".join(
            f"{name} {decision.metrics[metric]:.4f}" for name, metric in HISTORY_METRICS.items() if metric in decision.metrics
        )
        served = decision.served_at.replace("T", "\n")
        cells = (_timestamp(decision), _label(decision), _transition(decision), scores, _actor(decision), served, decision.reason)
        grid.add_row(*cells)
    return grid


def _narrow_history_table(decisions: Sequence[DecisionRecord]) -> Table:
    """Return a table of two columns. The scores are part of the reason."""
    grid = Table(show_lines=True, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for decision in decisions:
        served = f"\nserved {decision.served_at.partition('T')[0]}" if decision.served_at else ""
        label = _label(decision).replace(", ", "\n")
        facts = f"{_timestamp(decision)}\n{label}\n{_transition(decision)}{served}"
        grid.add_row(facts, f"{_actor(decision)}: {decision.reason}")
    return grid


def _actor(decision: DecisionRecord) -> str:
    return f"{decision.actor} (key {decision.signed_by[:SHOWN_DIGITS]})" if decision.signed_by else decision.actor


def _timestamp(decision: DecisionRecord) -> str:
    return decision.decided_at.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")


def _label(decision: DecisionRecord) -> str:
    forced = ", forced" if decision.forced else ""
    interrupted = "" if decision.finished else ", interrupted"
    return f"{decision.verdict} {decision.alias}{forced}{interrupted}"


def _transition(decision: DecisionRecord) -> str:
    if decision.verdict == PENDING:
        return f"{decision.previous_version or 'none'} (requested: {decision.requested_version})"
    return f"{decision.previous_version or 'none'} → {decision.version or 'none'}"


def _to_tsv(decision: DecisionRecord) -> list[str]:
    scores = [f"{decision.metrics[metric]:.6g}" if metric in decision.metrics else "" for metric in HISTORY_METRICS.values()]
    verdict = decision.verdict + (" forced" if decision.forced else "") + ("" if decision.finished else " interrupted")
    cells = [
        decision.decided_at.isoformat(timespec="seconds"),
        verdict,
        decision.alias,
        decision.previous_version,
        decision.version,
        decision.actor,
        *scores,
        decision.served_at,
        decision.reason,
    ]
    return [" ".join(cell.split()) for cell in cells]  # a tab or newline in a cell would forge other cells


def _show_evaluation(console: Console, evaluation: Evaluation) -> None:
    grid = Table(title="Full evaluation", title_justify="left")
    for name in ("rows of", "rows", "RMSE", ""):
        grid.add_column(name, justify="right" if name in ("rows", "RMSE") else "left")
    interval = ""
    if evaluation.rmse_lower is not None and evaluation.rmse_upper is not None:
        interval = f"95 % interval: {evaluation.rmse_lower:.4f} to {evaluation.rmse_upper:.4f}"
    grid.add_row("test set", f"{evaluation.rows:,}", f"{evaluation.scores['rmse']:.4f}", interval)
    for result in evaluation.harder_splits:
        note = f"refitted on {result.train_rows:,} rows"
        grid.add_row(f"{result.split} split", f"{result.test_rows:,}", f"{result.scores['rmse']:.4f}", note)
    large = [score for score in evaluation.slices if score.rows >= MIN_ROWS]
    for worst in sorted(large, key=lambda score: -score.rmse)[:MAX_SLICES]:
        note = f"{worst.ratio:.1f} times all rows; mean error {worst.mean_error:+.4f}"
        grid.add_row(f"{worst.kind} {worst.name}", f"{worst.rows:,}", f"{worst.rmse:.4f}", note)
    console.print(grid)
    for overall in evaluation.coverage[:1]:
        console.print(f"90 % intervals cover {overall.coverage:.1%}, mean width {overall.mean_width:.4g}")
    for limitation in evaluation.limitations:
        console.print(f"! {limitation}", soft_wrap=True)
    for skipped in evaluation.skipped:
        console.print(f"skipped: {skipped}", soft_wrap=True)
