"""Terminal output about single runs."""

from omegaconf import DictConfig
from rich.table import Table

from housing.command_line.console import create_console
from housing.command_line.next_command import next_command
from housing.data.settings import parse_schema
from housing.runs.comparison import Comparison
from housing.runs.outcome import Outcome


def show_outcome(outcome: Outcome, cfg: DictConfig) -> None:
    """Print the scores, costs and link of one run."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    state = "reused: this run is already finished (force_rerun=true fits it again)" if outcome.reused else "fitted"
    grid.add_row("run", f"{cfg.model.name} on features {cfg.features.name}, data {cfg.data.name}: {state}")
    metrics, unit = outcome.metrics, parse_schema(cfg.data).target.unit_label
    scores = f"rmse {metrics['rmse']:.4f}   mae {metrics['mae']:.4f}   r2 {metrics['r2']:.4f}"
    grid.add_row("validation", f"{scores}   ({unit})" if unit else scores)
    speed = f"fit {metrics['fit_seconds']:.2f} s   one row {metrics['latency_us']:,.0f} microseconds"
    grid.add_row("cost", f"{speed}   {metrics['rows_per_second']:,.0f} rows/s   {metrics['model_bytes'] / 1e6:.2f} MB")
    console = create_console()
    console.print(grid)
    console.print(f"{'MLflow':<10}  {outcome.link}", soft_wrap=True)  # a link in one piece can be clicked
    console.print(f"{'next':<10}  {next_command('promote')}", soft_wrap=True)


def show_comparison(comparisons: list[Comparison], run_id: str) -> None:
    """Print a run and its repetition side by side, and list the differences."""
    console = create_console()
    grid = Table(title=f"Run {run_id} and its repetition", title_justify="left")
    for name in ("value", "then", "now", "result"):
        grid.add_column(name, overflow="fold")
    for row in comparisons:
        grid.add_row(
            row.name, row.original, row.repeated, "same" if row.is_equal else "differs", style="" if row.is_equal else "red"
        )
    console.print(grid)
    differing = ", ".join(row.name for row in comparisons if not row.is_equal)
    message = f"These values differ: {differing}" if differing else "All values are the same to the last digit."
    console.print(message, soft_wrap=True)
