"""What a command prints: the block of a run, the leaderboard of a sweep, the decision of the gate."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from housing import ranking
from housing.checks import ABSENT, GOOD, Found
from housing.decisions import Past
from housing.drift import Drift
from housing.findings import Honest
from housing.new_rows import BadRow
from housing.records import Check, Comparison, Decision, Outcome
from housing.trust import FEW

SHOWN = 20  # runs of a sweep that are printed
WORST = 5  # slices that are printed
REASON = 300  # letters of why a job failed
SAME = "as before"  # of a column without drift
FIGURES = {"challenger": "challenger_rmse", "champion": "champion_rmse", "difference": "difference"}  # of a decision of the past
PLAIN = "when\tdecision\talias\tfrom\tto\twho\tchallenger\tchampion\tdifference\tserved\twhy"
WIDE = 120  # columns of a terminal in which the whole leaderboard, or history, has room


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log file has no edge to wrap at
    return console


def show_outcome(outcome: Outcome, cfg: DictConfig) -> None:
    """Print what came of one run."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    unit = cfg.data.columns[_target(cfg)].get("unit")
    state = "reused: this very run is finished already (rerun=true fits again)" if outcome.reused else "fitted"
    grid.add_row("run", f"{cfg.model.name} on features {cfg.features.name}, data {cfg.data.name}: {state}")
    metrics = outcome.metrics
    scores = f"rmse {metrics['rmse']:.4f}   mae {metrics['mae']:.4f}   r2 {metrics['r2']:.4f}"
    grid.add_row("validation", f"{scores}   ({unit})" if unit else scores)
    speed = f"fit {metrics['fit_seconds']:.2f} s   one row {metrics['row_microseconds']:,.0f} microseconds"
    grid.add_row("cost", f"{speed}   {metrics['rows_per_second']:,.0f} rows/s   {metrics['model_bytes'] / 1e6:.2f} MB")
    grid.add_row("look", outcome.link)
    _console().print(grid)


def _target(cfg: DictConfig) -> str:
    return next(name for name, column in cfg.data.columns.items() if column.get("role") == "target")


def show_leaderboard(outcomes: list[Outcome], cfg: DictConfig, objectives: Sequence[str], run_id: str) -> None:
    """Print the jobs of a sweep, best first, and why the others failed. `*` marks the Pareto set of several objectives."""
    console = _console()
    common = set.intersection(*(set(outcome.overrides) for outcome in outcomes)) if len(outcomes) > 1 else set()
    finished = sorted((o for o in outcomes if o.status == "FINISHED"), key=lambda outcome: outcome.metrics[objectives[0]])
    title = f"{len(finished)} of {len(outcomes)} runs finished, best {objectives[0]} on validation rows first"
    if finished:
        front = ranking.pareto(outcomes, objectives) if len(objectives) > 1 else []
        console.print(_ranking(title, finished, front, common, console.width >= WIDE))
    else:
        console.print(title)
    if len(finished) > SHOWN:
        console.print(f"{len(finished)} runs finished, of which the best are shown; all are in leaderboard.csv")
    _show_failures(console, [o for o in outcomes if o.status not in ("FINISHED", "PRUNED")], common)
    if finished:
        advice = f"promote its best: python -m housing.promote data={cfg.data.name} sweep={run_id}"
        console.print(f"sweep {run_id}   {advice}", soft_wrap=True)


def _ranking(title: str, finished: list[Outcome], front: list[Outcome], common: set[str], wide: bool) -> Grid:
    grid = Grid(title=title + (", * the Pareto set" if front else ""), title_justify="left")
    scores = ("rmse", "mae", "r2") if wide else ("rmse",)
    for name in ("", "run", *scores, "fit s", "row µs", "MB", "state", "run id"):
        grid.add_column(name, justify="left" if name in ("run", "state", "run id") else "right", overflow="fold")
    for rank, outcome in enumerate(finished, start=1):
        if grid.row_count < (2 if outcome in front else 1) * SHOWN:
            mark, style = f"{rank}*" if outcome in front else str(rank), "bold" if rank == 1 else ""
            grid.add_row(mark, outcome.asked(common), *_numbers(outcome, scores), *_origin(outcome, wide), style=style)
    return grid


def _numbers(outcome: Outcome, scores: Sequence[str]) -> list[str]:
    metrics = outcome.metrics
    cost = [f"{metrics['fit_seconds']:.2f}", f"{metrics['row_microseconds']:,.0f}", f"{metrics['model_bytes'] / 1e6:.2f}"]
    return [f"{metrics[name]:.4f}" for name in scores] + cost


def _origin(outcome: Outcome, wide: bool) -> tuple[str, str]:
    run_id = str(outcome.run_id)
    return "reused" if outcome.reused else "fitted", run_id if wide else run_id[:8]


def _show_failures(console: Console, failed: list[Outcome], common: set[str]) -> None:
    for outcome in failed[:SHOWN]:
        reason = " ".join(outcome.error.split())[:REASON]
        console.print(f"{outcome.status} {outcome.asked(common)}: {reason}", style="red", markup=False)
    if len(failed) > SHOWN:
        console.print(f"and {len(failed) - SHOWN} more that did not finish", style="red")
    if any(outcome.status == "FAILED" for outcome in failed):
        console.print("the whole traceback is in each run: traceback.txt, linked from leaderboard.html")


def show_file(path: Path) -> None:
    """Print where a file lies."""
    _console().print(f"written: {path}", soft_wrap=True)


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


def show_comparison(compared: list[Comparison], run_id: str) -> None:
    """Print a run and its repetition side by side, and what is to be made of it."""
    console = _console()
    grid = Grid(title=f"run {run_id} and its repetition", title_justify="left")
    for name in ("", "then", "now", ""):
        grid.add_column(name, overflow="fold")
    for row in compared:
        grid.add_row(row.what, row.then, row.now, "same" if row.same else "differs", style="" if row.same else "red")
    console.print(grid)
    differing = ", ".join(row.what for row in compared if not row.same)
    console.print("the same to the last digit" if not differing else f"what differs: {differing}", soft_wrap=True)


def show_bad_rows(bad: Sequence[BadRow], file: Path) -> None:
    """Print each row of a file that does not fit its table, and why."""
    console = _console()
    for row in bad:
        console.print(f"{file}, {row}", style="red", markup=False, soft_wrap=True)


def show_drift(drifts: Sequence[Drift], rows: int, present: int, cfg: DictConfig) -> None:
    """Print how new rows differ from the present ones, column by column, and a sentence for each that does."""
    console = _console()
    grid = Grid(title=f"how {rows:,} new rows differ from the {present:,} present ones", title_justify="left")
    for name in ("column", "PSI", "by chance up to", "present", "new", "out of range", ""):
        grid.add_column(name, justify="right" if name in ("PSI", "by chance up to", "out of range") else "left", overflow="fold")
    for one in drifts:
        judged = _judged(one, cfg)
        figures = (f"{one.psi:.3f}", f"{one.chance:.3f}", one.before, one.now, f"{one.outside:,}")
        grid.add_row(one.column, *figures, judged, style="" if judged == SAME else "yellow")
    console.print(grid)
    for one in drifts:
        if _judged(one, cfg) != SAME:
            outside = f"; {one.outside:,} rows are out of the present range" if one.outside else ""
            sentence = f"{one.column} is {_judged(one, cfg)}: {one.now}, it was {one.before}{outside}"
            console.print(f"- {sentence}", markup=False, soft_wrap=True)


def show_found(what: str, found: Found) -> None:
    """Print what a check found, and below it what mends it."""
    mark, style = {GOOD: ("ok", "green"), ABSENT: ("-", "dim")}.get(found.state, ("NOT RIGHT", "bold red"))
    console = _console()
    console.print(f"{mark:>9}  {what:<12}{found.what}", style=style if found.state != GOOD else "", markup=False, soft_wrap=True)
    if found.remedy:
        console.print(f"{'':>9}  {'':<12}mend it: {found.remedy}", markup=False, soft_wrap=True)


def _judged(drift: Drift, cfg: DictConfig) -> str:
    """Say in words how far a column is off: not at all where chance can do that."""
    if drift.psi <= max(drift.chance, cfg.drift.notable):
        return SAME
    return "very different" if drift.psi > cfg.drift.strong else "different"
