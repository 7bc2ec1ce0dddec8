"""TODO docstring."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf

from housing.evaluation.slices import rmse_of
from housing.plots.svg import SERIES
from housing.reports import comparison_figures, run_figures
from housing.reports.page import ABSENT, CELL, Grid, Page, Section
from housing.reports.run_data import Subject
from housing.runs.run import flat
from housing.runs.run_key import NOT_IN_KEY

COSTS = (("rmse", "RMSE", 1.0), ("mae", "MAE", 1.0), ("fit_seconds", "fit, s", 1.0), ("row_microseconds", "one row, µs", 1.0))


SIZE = ("model_bytes", "MB", 1e6)


def of_runs(subjects: list[Subject]) -> Page:
    """Put the page of a comparison together. The others are compared with the first."""
    first, *others = subjects
    page = Page(
        f"{first.cfg.data.name}: {len(subjects)} runs side by side",
        f"Errors on this page are of {first.rows}, the same rows for each run. Runs are chosen by these rows, so new rows may"
        " fare a little worse; the more runs were compared, the more so.",
        {f"{one.label} {one.cfg.model.name} {one.cfg.features.name} {one.id[:8]}": one.original.run.run.link for one in subjects},
        {f"RMSE of {one.label}": f"{rmse_of(one.error):.4f}" for one in subjects},
    )
    sized = comparison_figures.metrics(subjects, (*COSTS, SIZE))
    page.sections.append(Section("Figures and costs", figures=[sized], tables=[_runs(subjects), _apart(first, others)]))
    scored = [comparison_figures.sliced(one) for one in subjects]
    labels, overall = [one.label for one in subjects], [rmse_of(one.error) for one in subjects]
    page.sections.append(
        Section(
            "Where they err",
            figures=[
                run_figures.by_slice(labels, scored, overall, first.rows),
                comparison_figures.calibrations(subjects),
                *comparison_figures.maps_alike(subjects),
            ],
        )
    )
    apart = [
        figure
        for one, colour in zip(others, SERIES[1:], strict=False)
        for figure in comparison_figures.differences(first, one, colour)
    ]
    page.sections.append(Section("Where they do not predict the same", figures=apart))
    page.sections.append(_config_differences(subjects))
    return page


def _runs(subjects: Sequence[Subject]) -> Grid:
    head = ("", "model", "features", "run", *(label for _, label, _ in (*COSTS, SIZE)), "test RMSE", "grouped", "blocks")
    return Grid(head, [tuple(_run_row(one)) for one in subjects], text=4)


def _run_row(one: Subject) -> Iterator[str]:
    yield from (one.label, one.cfg.model.name, one.cfg.features.name, one.id[:8])
    for name, _, divisor in (*COSTS, SIZE):
        yield f"{one.original.run.metrics[name] / divisor:,.4g}"
    elsewhere = {other.split: other.scores["rmse"] for other in one.honest.elsewhere} if one.honest else {}
    test = one.honest.scores["rmse"] if one.honest else None
    for value in (test, elsewhere.get("grouped"), elsewhere.get("blocks")):
        yield "" if value is None else f"{value:.4f}"


def _apart(first: Subject, others: Sequence[Subject]) -> Grid:
    """Say whether the rows are enough to tell runs apart, by resamples of the same rows for both."""
    rows = [(f"{one.label} less {first.label}", *(f"{value:+.4f}" for value in paired(first.error, one.error))) for one in others]
    return Grid(("RMSE on the same rows", "difference", "95 % from", "to"), rows)


def paired(first: Any, other: Any, resamples: int = 1000) -> tuple[float, float, float]:
    """Give the difference of two RMSEs, and the ends between which 95 % of its resamples lie."""
    random, squares = np.random.default_rng(0), np.square(np.stack([first, other]))

    def difference(chosen: Any) -> float:
        mine, theirs = np.sqrt(squares[:, chosen].mean(axis=1))
        return float(theirs - mine)

    rows = squares.shape[1]
    low, high = np.quantile([difference(random.integers(rows, size=rows)) for _ in range(resamples)], (0.025, 0.975))
    return difference(slice(None)), float(low), float(high)


def _config_differences(subjects: Sequence[Subject]) -> Section:
    rows = list(differences([_comparable(one.cfg) for one in subjects]))
    said = "" if rows else "Nothing: the runs were asked for the same."
    tables = [Grid(("", *(one.label for one in subjects)), rows, text=1 + len(subjects))] if rows else []
    return Section("What differs between their configs", said, tables=tables)


def _comparable(cfg: DictConfig) -> dict[str, Any]:
    """Give a config without what makes no other model: places, tracking, what is kept and shown."""
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    del resolved["data"]["path"]
    return {name: value for name, value in resolved.items() if name not in NOT_IN_KEY}


def differences(configs: Sequence[Any], name: str = "") -> Iterator[tuple[str, ...]]:
    """Give the name of each value that is not the same everywhere, and what it is in each config.

    A part that some configs do not have at all is one value.
    """
    if all(isinstance(config, Mapping) for config in configs):
        for key in dict.fromkeys(key for config in configs for key in config):
            yield from differences([config.get(key, ABSENT) for config in configs], f"{name}.{key}" if name else str(key))
    elif any(config != configs[0] for config in configs):
        yield name, *(_short(config) for config in configs)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= CELL else f"{text[: CELL - 1]}…"


def flat_rows(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give a nested mapping as rows of two cells."""
    for name, value in flat(content).items():
        yield name, f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _yaml(cfg: DictConfig) -> str:
    return str(yaml.dump(OmegaConf.to_container(cfg, resolve=True), sort_keys=False, allow_unicode=True, width=120))
