"""What a command prints: the block of a run, the leaderboard of a sweep, the decision of the gate."""

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table as Grid

from housing.records import Decision, Outcome


WIDE = 120  # columns of a terminal in which the whole leaderboard has room


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log file has no edge to wrap at
    return console


def show_job(outcome: Outcome) -> None:
    """Print what came of one job of a sweep, in one line."""
    metrics = outcome.metrics
    state = "reused" if outcome.reused else f"fitted in {metrics['fit_seconds']:.2f} s"
    print(f"\t     rmse {metrics['rmse']:.4f}   mae {metrics['mae']:.4f}   r2 {metrics['r2']:.4f}   {state}", flush=True)


def show_outcome(outcome: Outcome, cfg: DictConfig) -> None:
    """Print what came of one run."""
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    unit = cfg.data.columns[_target(cfg)].get("unit", "")
    state = "reused: this very run is finished already (rerun=true fits again)" if outcome.reused else "fitted"
    grid.add_row("run", f"{cfg.model.name} on features {cfg.features.name}, data {cfg.data.name}: {state}")
    metrics = outcome.metrics
    grid.add_row("validation", f"rmse {metrics['rmse']:.4f}   mae {metrics['mae']:.4f}   r2 {metrics['r2']:.4f}   ({unit})")
    speed = f"fit {metrics['fit_seconds']:.2f} s   one row {metrics['row_microseconds']:,.0f} microseconds"
    grid.add_row("cost", f"{speed}   {metrics['rows_per_second']:,.0f} rows/s   {metrics['model_bytes'] / 1e6:.2f} MB")
    grid.add_row("look", outcome.link)
    _console().print(grid)


def _target(cfg: DictConfig) -> str:
    return next(name for name, column in cfg.data.columns.items() if column.get("role") == "target")


def show_leaderboard(outcomes: list[Outcome], cfg: DictConfig, run_id: str) -> None:
    """Print the jobs of a sweep, best first, and why the others failed."""
    console = _console()
    finished = sorted((o for o in outcomes if o.status == "FINISHED"), key=lambda outcome: outcome.metrics[cfg.metric])
    common = set.intersection(*(set(outcome.overrides) for outcome in outcomes)) if len(outcomes) > 1 else set()
    title = f"{len(finished)} of {len(outcomes)} runs finished, best {cfg.metric} on validation rows first"
    grid = Grid(title=title, title_justify="left")
    wide = console.width >= WIDE
    scores = ("rmse", "mae", "r2") if wide else ("rmse",)
    for name in ("", "run", *scores, "fit s", "row µs", "MB", "state", "run id"):
        grid.add_column(name, justify="left" if name in ("run", "state", "run id") else "right", overflow="fold")
    for rank, outcome in enumerate(finished, start=1):
        metrics = outcome.metrics
        numbers = [f"{metrics[name]:.4f}" for name in scores] + [f"{metrics['fit_seconds']:.2f}"]
        numbers += [f"{metrics['row_microseconds']:,.0f}", f"{metrics['model_bytes'] / 1e6:.2f}"]
        state, run = "reused" if outcome.reused else "fitted", str(outcome.run_id)
        best = "bold" if rank == 1 else ""
        grid.add_row(str(rank), _asked(outcome, common), *numbers, state, run if wide else run[:8], style=best)
    if finished:
        console.print(grid)
    else:
        console.print(title)
    for outcome in outcomes:
        if outcome.status != "FINISHED":
            console.print(f"{outcome.status} {_asked(outcome, common)}: {outcome.error}", style="red", markup=False)
    if finished:
        advice = f"promote its best: python -m housing.promote data={cfg.data.name} sweep={run_id}"
        console.print(f"sweep {run_id}   {advice}", soft_wrap=True)


def _asked(outcome: Outcome, common: set[str]) -> str:
    """Give what sets a job apart from the others of its sweep."""
    return " ".join(override for override in outcome.overrides if override not in common) or "(defaults)"


def show_decision(decision: Decision, cfg: DictConfig) -> None:
    """Print what the gate decided, on which figures, and why."""
    console = _console()
    console.print(f"{decision.verdict}  {cfg.registered_model} at alias {decision.alias}", style="bold")
    if decision.challenger_metrics:
        grid = Grid(title=f"on {decision.test_rows:,} test rows", title_justify="left")
        for name in ("", *decision.challenger_metrics):
            grid.add_column(name, justify="right" if name else "left")
        grid.add_row(f"challenger: run {decision.run_id}", *(f"{value:.4f}" for value in decision.challenger_metrics.values()))
        grid.add_row(f"champion: {decision.champion}", *(f"{value:.4f}" for value in decision.champion_metrics.values()))
        console.print(grid)
    for reason in decision.reasons:
        console.print(f"- {reason}", markup=False, soft_wrap=True)
    here = f"version {decision.version}" if decision.version else "nothing"
    console.print(f"{decision.alias} is {here}" + (" now" if decision.verdict == "PROMOTE" else ", as before"))
