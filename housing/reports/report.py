"""The report: from run ids to a page in one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from housing.core.errors import ConfigError
from housing.plots.html import write_page
from housing.plots.svg import SERIES_COLORS
from housing.reports import run_data
from housing.reports.comparison_page import build_comparison_page
from housing.reports.page import TEMPLATE
from housing.reports.run_data import RunData
from housing.reports.run_page import build_run_page
from housing.tracking import store as tracking
from housing.tracking.store import Store

RUN_LABELS = "ABCDEFGH"


def write_report(cfg: DictConfig) -> Path:
    """Write the page of a run, or the comparison of several, and return its path.

    Raises
    ------
    HousingError
        If a run does not exist, did not finish, kept no bundle, or cannot be compared with the others.
    """
    if cfg.evaluate not in (None, "full"):
        raise ConfigError(f"evaluate must be full, or null for the evaluation of a promotion (got {cfg.evaluate!r}).")
    run_ids = [str(run_id) for run_id in cfg.run_id] if isinstance(cfg.run_id, ListConfig) else [str(cfg.run_id)]
    if not 1 <= len(set(run_ids)) == len(run_ids) <= len(SERIES_COLORS):
        raise ConfigError(f"run_id must name one to {len(SERIES_COLORS)} different runs (got {', '.join(run_ids) or 'none'}).")
    store = tracking.connect(cfg.mlflow)
    if len(run_ids) == 1:
        page, name = build_run_page(cfg, run_data.read(cfg, store, run_ids[0])), run_ids[0][:32]
    else:
        page, name = build_comparison_page(_read_runs(cfg, store, run_ids)), "-".join(run_id[:8] for run_id in run_ids)
    return write_page(TEMPLATE, Path(cfg.out or Path(cfg.paths.outputs) / "reports" / f"{name}.html"), page=page)


def _read_runs(cfg: DictConfig, store: Store, run_ids: Sequence[str]) -> list[RunData]:
    """Read runs for a comparison. Raises ConfigError if they do not share table and split."""
    runs: list[RunData] = []
    for label, run_id in zip(RUN_LABELS, run_ids, strict=False):
        run = run_data.read(cfg, store, run_id, label)
        first = runs[0] if runs else run
        for name, fingerprint, expected in (
            ("tables", run.table.fingerprint, first.table.fingerprint),
            ("splits", run.parts.fingerprint(), first.parts.fingerprint()),
        ):
            if fingerprint != expected:
                raise ConfigError(
                    f"Runs {first.id} and {run.id} have different {name}, so their errors cannot be compared."
                    " Compare runs of the same table and split."
                )
        runs.append(run)
    return runs
