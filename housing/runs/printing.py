"""TODO docstring."""

from omegaconf import DictConfig
from rich.table import Table

from housing.core.console import _console
from housing.data.table import parse_schema
from housing.runs.comparison import Comparison
from housing.runs.outcome import Outcome


def show_outcome(outcome: Outcome, cfg: DictConfig) -> None:
    """Print what came of one run."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    unit = parse_schema(cfg.data).target.unit_label
    state = "reused: this very run is finished already (force_rerun=true fits again)" if outcome.reused else "fitted"
    grid.add_row("run", f"{cfg.model.name} on features {cfg.features.name}, data {cfg.data.name}: {state}")
    metrics = outcome.metrics
    scores = f"rmse {metrics['rmse']:.4f}   mae {metrics['mae']:.4f}   r2 {metrics['r2']:.4f}"
    grid.add_row("validation", f"{scores}   ({unit})" if unit else scores)
    speed = f"fit {metrics['fit_seconds']:.2f} s   one row {metrics['latency_us']:,.0f} microseconds"
    grid.add_row("cost", f"{speed}   {metrics['rows_per_second']:,.0f} rows/s   {metrics['model_bytes'] / 1e6:.2f} MB")
    grid.add_row("look", outcome.link)
    _console().print(grid)


def show_comparison(comparisons: list[Comparison], run_id: str) -> None:
    """Print a run and its repetition side by side, and what is to be made of it."""
    console = _console()
    grid = Table(title=f"run {run_id} and its repetition", title_justify="left")
    for name in ("", "then", "now", ""):
        grid.add_column(name, overflow="fold")
    for row in comparisons:
        grid.add_row(
            row.name, row.original, row.repeated, "same" if row.is_equal else "differs", style="" if row.is_equal else "red"
        )
    console.print(grid)
    differing = ", ".join(row.name for row in comparisons if not row.is_equal)
    console.print("the same to the last digit" if not differing else f"what differs: {differing}", soft_wrap=True)
