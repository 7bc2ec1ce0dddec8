"""Printed judgement of a canary."""

from rich.table import Table

from housing.command_line.console import create_console
from housing.promotion import printing
from housing.traffic.canary_judge import Judgement


def show_judgement(judgement: Judgement, model: str) -> None:
    """Print how a canary does beside its champion, and the decision if there is one."""
    console = create_console()
    if judgement.version is None:
        console.print(f"{model} has no canary at alias {judgement.alias}.", soft_wrap=True)
        return
    if judgement.decision is not None:
        printing.show_decision(judgement.decision, model)
    else:
        console.print(
            f"{judgement.verdict}  canary version {judgement.version} of {model} at alias {judgement.alias}", style="bold"
        )
        for reason in judgement.reasons:
            console.print(f"- {reason}", soft_wrap=True)
    if judgement.figures.hours:
        console.print(_figures_table(judgement))


def _figures_table(judgement: Judgement) -> Table:
    figures = judgement.figures
    title = f"{figures.hours:.1f} hours, {judgement.share:.3g} of the requests"
    grid = Table(title=title, title_justify="left")
    for name in ("version", "requests", "failures", "error"):
        grid.add_column(name, justify="left" if name == "version" else "right")
    rows = (
        (f"{judgement.version} (canary)", figures.requests, figures.failures, figures.error),
        (str(judgement.champion), figures.champion_requests, figures.champion_failures, figures.champion_error),
    )
    for name, requests, failures, error in rows:
        grid.add_row(name, f"{requests:,}", f"{failures:,}", f"{error:.4g}" if figures.labels else "")
    return grid
