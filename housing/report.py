"""Entry: one page, which needs nothing else, about a run or about several side by side.

python -m housing.report run_id=ID
"""

from pathlib import Path

from omegaconf import DictConfig, ListConfig

from housing.core import console
from housing.core.command import command
from housing.core.errors import ConfigError
from housing.plots.html import write_page
from housing.plots.svg import SERIES_COLORS
from housing.reports import run_data
from housing.reports.comparison_page import build_comparison_page
from housing.reports.page import TEMPLATE
from housing.reports.run_page import _read_runs, build_run_page
from housing.tracking import store as tracking


def report(cfg: DictConfig) -> Path:
    """Write the page of a run, or of several, and give where it is.

    Raises HousingError where a run is not there, did not finish, kept no bundle, or cannot be compared with the others.
    """
    if cfg.evaluate not in (None, "full"):
        raise ConfigError(f"evaluate is {cfg.evaluate!r}; allowed: full, or null for what a promotion has found")
    wanted = [str(one) for one in cfg.run_id] if isinstance(cfg.run_id, ListConfig) else [str(cfg.run_id)]
    if not 1 <= len(set(wanted)) == len(wanted) <= len(SERIES_COLORS):
        raise ConfigError(f"run_id is {', '.join(wanted) or 'empty'}; allowed: one to {len(SERIES_COLORS)} different runs")
    store = tracking.connect(cfg.mlflow)
    page = (
        build_run_page(cfg, run_data.read(cfg, store, wanted[0]))
        if len(wanted) == 1
        else build_comparison_page(_read_runs(cfg, store, wanted))
    )
    name = f"{'-'.join(one[: 32 if len(wanted) == 1 else 8] for one in wanted)}.html"
    return write_page(TEMPLATE, Path(cfg.out or Path(cfg.paths.outputs) / "reports" / name), page=page)


@command("report")
def main(cfg: DictConfig) -> None:
    """Write the page and say where it is."""
    console.show_file(report(cfg))


if __name__ == "__main__":
    main()
