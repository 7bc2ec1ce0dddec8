"""TODO docstring."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf

from housing.evaluation.slices import compute_rmse
from housing.plots.svg import SERIES_COLORS
from housing.reports import comparison_figures, run_figures
from housing.reports.page import MAX_CELL_CHARS, MISSING, HtmlTable, Page, Section
from housing.reports.run_data import RunData
from housing.runs.run import flatten
from housing.runs.run_key import EXCLUDED_FROM_KEY

COMPARED_METRICS = (
    ("rmse", "RMSE", 1.0),
    ("mae", "MAE", 1.0),
    ("fit_seconds", "fit, s", 1.0),
    ("latency_us", "one row, µs", 1.0),
)


SIZE_METRIC = ("model_bytes", "MB", 1e6)


def build_comparison_page(runs: list[RunData]) -> Page:
    """Put the page of a comparison together. The others are compared with the first."""
    first, *others = runs
    page = Page(
        f"{first.cfg.data.name}: {len(runs)} runs side by side",
        f"Errors on this page are of {first.rows_description}, the same rows for each run. Runs are chosen by these rows, so new rows may"
        " fare a little worse; the more runs were compared, the more so.",
        {f"{one.label} {one.cfg.model.name} {one.cfg.features.name} {one.id[:8]}": one.past_run.run.run.link for one in runs},
        {f"RMSE of {one.label}": f"{compute_rmse(one.error):.4f}" for one in runs},
    )
    sized = comparison_figures.metric_bars(runs, (*COMPARED_METRICS, SIZE_METRIC))
    page.sections.append(
        Section("Figures and costs", figures=[sized], tables=[_runs_table(runs), _paired_differences(first, others)])
    )
    scored = [comparison_figures.score_run_slices(one) for one in runs]
    labels, overall = [one.label for one in runs], [compute_rmse(one.error) for one in runs]
    page.sections.append(
        Section(
            "Where they err",
            figures=[
                run_figures.errors_by_slice(labels, scored, overall, first.rows_description),
                comparison_figures.compare_calibration(runs),
                *comparison_figures.compare_error_maps(runs),
            ],
        )
    )
    apart = [
        figure
        for one, colour in zip(others, SERIES_COLORS[1:], strict=False)
        for figure in comparison_figures.prediction_differences(first, one, colour)
    ]
    page.sections.append(Section("Where they do not predict the same", figures=apart))
    page.sections.append(_config_diff_section(runs))
    return page


def _runs_table(runs: Sequence[RunData]) -> HtmlTable:
    head = (
        "",
        "model",
        "features",
        "run",
        *(label for _, label, _ in (*COMPARED_METRICS, SIZE_METRIC)),
        "test RMSE",
        "grouped",
        "blocks",
    )
    return HtmlTable(head, [tuple(_run_row(one)) for one in runs], n_text_columns=4)


def _run_row(run: RunData) -> Iterator[str]:
    yield from (run.label, run.cfg.model.name, run.cfg.features.name, run.id[:8])
    for name, _, divisor in (*COMPARED_METRICS, SIZE_METRIC):
        yield f"{run.past_run.run.metrics[name] / divisor:,.4g}"
    elsewhere = {other.split: other.scores["rmse"] for other in run.evaluation.harder_splits} if run.evaluation else {}
    test = run.evaluation.scores["rmse"] if run.evaluation else None
    for value in (test, elsewhere.get("grouped"), elsewhere.get("blocks")):
        yield "" if value is None else f"{value:.4f}"


def _paired_differences(first: RunData, others: Sequence[RunData]) -> HtmlTable:
    """Say whether the rows are enough to tell runs apart, by resamples of the same rows for both."""
    rows = [
        (f"{one.label} less {first.label}", *(f"{value:+.4f}" for value in paired_bootstrap(first.error, one.error)))
        for one in others
    ]
    return HtmlTable(("RMSE on the same rows", "difference", "95 % from", "to"), rows)


def paired_bootstrap(first: Any, other: Any, n_resamples: int = 1000) -> tuple[float, float, float]:
    """Give the difference of two RMSEs, and the ends between which 95 % of its resamples lie."""
    random, squares = np.random.default_rng(0), np.square(np.stack([first, other]))

    def difference(chosen: Any) -> float:
        mine, theirs = np.sqrt(squares[:, chosen].mean(axis=1))
        return float(theirs - mine)

    rows = squares.shape[1]
    low, high = np.quantile([difference(random.integers(rows, size=rows)) for _ in range(n_resamples)], (0.025, 0.975))
    return difference(slice(None)), float(low), float(high)


def _config_diff_section(runs: Sequence[RunData]) -> Section:
    rows = list(config_diff([_comparable_config(one.cfg) for one in runs]))
    said = "" if rows else "Nothing: the runs were asked for the same."
    tables = [HtmlTable(("", *(one.label for one in runs)), rows, n_text_columns=1 + len(runs))] if rows else []
    return Section("What differs between their configs", said, tables=tables)


def _comparable_config(cfg: DictConfig) -> dict[str, Any]:
    """Give a config without what makes no other model: places, tracking, what is kept and shown."""
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    del resolved["data"]["path"]
    return {name: value for name, value in resolved.items() if name not in EXCLUDED_FROM_KEY}


def config_diff(configs: Sequence[Any], name: str = "") -> Iterator[tuple[str, ...]]:
    """Give the name of each value that is not the same everywhere, and what it is in each config.

    A part that some configs do not have at all is one value.
    """
    if all(isinstance(config, Mapping) for config in configs):
        for key in dict.fromkeys(key for config in configs for key in config):
            yield from config_diff([config.get(key, MISSING) for config in configs], f"{name}.{key}" if name else str(key))
    elif any(config != configs[0] for config in configs):
        yield name, *(_truncate(config) for config in configs)


def _truncate(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_CELL_CHARS else f"{text[: MAX_CELL_CHARS - 1]}…"


def flatten_rows(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give a nested mapping as rows of two cells."""
    for name, value in flatten(content).items():
        yield name, f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _to_yaml(cfg: DictConfig) -> str:
    return str(yaml.dump(OmegaConf.to_container(cfg, resolve=True), sort_keys=False, allow_unicode=True, width=120))
