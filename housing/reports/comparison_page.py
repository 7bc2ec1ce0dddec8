"""The page that compares runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from housing.evaluation.bootstrap import weigh_error
from housing.evaluation.paired_test import ComparisonSettings, paired_test
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
SIZE_METRIC = ("model_bytes", "size, MB", 1e6)
ONE_SIDED_CONFIDENCE = 0.975  # of each end of a 95 % interval
PAIRED_TEST = ComparisonSettings("rmse", ONE_SIDED_CONFIDENCE, n_resamples=1000, seed=0)


def build_comparison_page(runs: list[RunData]) -> Page:
    """Return the page that compares runs; each is compared with the first."""
    first, *others = runs
    page = Page(
        f"{first.cfg.data.name}: {len(runs)} runs side by side",
        f"Errors on this page are those of {first.rows_description}, the same rows for each run. Runs are selected on these rows,"
        " so errors on new rows may be larger; the more runs were compared, the larger.",
        {f"{run.label} {run.cfg.model.name} {run.cfg.features.name} {run.id[:8]}": run.past_run.run.run.link for run in runs},
        {f"RMSE of {run.label}": f"{run.rmse:.4f}" for run in runs},
    )
    bars = comparison_figures.metric_bars(runs, (*COMPARED_METRICS, SIZE_METRIC))
    page.sections.append(
        Section("Scores and costs", figures=[bars], tables=[_runs_table(runs), _paired_differences(first, others)])
    )
    scored = [comparison_figures.score_run_slices(run) for run in runs]
    labels, overall = [run.label for run in runs], [run.rmse for run in runs]
    page.sections.append(
        Section(
            "Errors",
            figures=[
                run_figures.errors_by_slice(labels, scored, overall, first.rows_description),
                comparison_figures.compare_calibration(runs),
                *comparison_figures.compare_error_maps(runs),
            ],
        )
    )
    differences = [
        figure
        for run, colour in zip(others, SERIES_COLORS[1:], strict=False)
        for figure in comparison_figures.prediction_differences(first, run, colour)
    ]
    page.sections.append(Section("Differences between predictions", figures=differences))
    page.sections.append(_config_diff_section(runs))
    return page


def _runs_table(runs: Sequence[RunData]) -> HtmlTable:
    header = (
        "",
        "model",
        "features",
        "run",
        *(label for _, label, _ in (*COMPARED_METRICS, SIZE_METRIC)),
        "test RMSE",
        "RMSE, grouped split",
        "RMSE, blocks split",
    )
    return HtmlTable(header, [tuple(_run_row(run)) for run in runs], n_text_columns=4)


def _run_row(run: RunData) -> Iterator[str]:
    yield from (run.label, run.cfg.model.name, run.cfg.features.name, run.id[:8])
    for name, _, divisor in (*COMPARED_METRICS, SIZE_METRIC):
        yield f"{run.past_run.run.metrics[name] / divisor:,.4g}"
    harder = {result.split: result.scores["rmse"] for result in run.evaluation.harder_splits} if run.evaluation else {}
    for value in (run.test_rmse, harder.get("grouped"), harder.get("blocks")):
        yield MISSING if value is None else f"{value:.4f}"


def _paired_differences(first: RunData, others: Sequence[RunData]) -> HtmlTable:
    """Return the difference of each run's RMSE from the first one's, with its confidence interval over the same rows."""
    rows = []
    for run in others:
        error, first_error = (weigh_error(compared.error, PAIRED_TEST.metric, first.weight) for compared in (run, first))
        paired = paired_test(PAIRED_TEST, error, first_error, first.parts.units_of(first.holdout.rows))
        values = (paired.difference, paired.lower, paired.upper)
        bounds = (MISSING if value is None else f"{value:+.4f}" for value in values)
        rows.append((f"{run.label} minus {first.label}", f"{paired.units:,} {paired.unit_name}", *bounds))
    return HtmlTable(("RMSE on the same rows", "compared by", "difference", "95 % interval from", "to"), rows, n_text_columns=2)


def _config_diff_section(runs: Sequence[RunData]) -> Section:
    rows = list(config_diff([_comparable_config(run.cfg) for run in runs]))
    text = "" if rows else "The configs are equal."
    tables = [HtmlTable(("", *(run.label for run in runs)), rows, n_text_columns=1 + len(runs))] if rows else []
    return Section("Differences between configs", text, tables=tables)


def _comparable_config(cfg: DictConfig) -> dict[str, Any]:
    """Return a config without paths, tracking and output options, which do not change the model."""
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    del resolved["data"]["path"]
    return {name: value for name, value in resolved.items() if name not in EXCLUDED_FROM_KEY}


def config_diff(configs: Sequence[Any], name: str = "") -> Iterator[tuple[str, ...]]:
    """Yield the name of each value that differs, and its value in each config.

    A group that some configs do not have counts as one value.
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
    """Yield the values of a nested mapping as rows of name and value."""
    for name, value in flatten(content).items():
        yield name, f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)
