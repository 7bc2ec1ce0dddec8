"""Entry: one page, which needs nothing else, about a run or about several side by side.

python -m housing.report run_id=ID
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from housing import console, models, report_figures, subject, tracking
from housing.config import command
from housing.drawing import SERIES, Drawn
from housing.errors import ConfigError
from housing.explain import explain
from housing.findings import Honest
from housing.honest import COVERAGE
from housing.pages import write_page
from housing.provenance import NOT_IN_KEY
from housing.run import flat
from housing.slices import rmse_of
from housing.subject import Subject
from housing.trust import RULES

PAGE = "report.html"
EXPLAINED = 1000  # test rows
CELL, ABSENT = 120, "–"  # letters of a value in a table of configs; what stands where there is none
COSTS = (("rmse", "RMSE", 1.0), ("mae", "MAE", 1.0), ("fit_seconds", "fit, s", 1.0), ("row_microseconds", "one row, µs", 1.0))
SIZE = ("model_bytes", "MB", 1e6)


@dataclass(frozen=True)
class Grid:
    """A table of the page; the first `text` columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: int = 1
    folded: str = ""  # the words to click on, for a table that only some will read


@dataclass(frozen=True)
class Section:
    """A part of the page, in the order in which its parts are shown."""

    title: str
    said: str = ""
    figures: Sequence[Drawn] = ()
    points: Sequence[str] = ()
    tables: Sequence[Grid] = ()
    raw: str = ""


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    lead: str
    links: Mapping[str, str]
    facts: Mapping[str, str]
    sections: list[Section] = field(default_factory=list)


def report(cfg: DictConfig) -> Path:
    """Write the page of a run, or of several, and give where it is.

    Raises HousingError where a run is not there, did not finish, kept no bundle, or cannot be compared with the others.
    """
    if cfg.evaluate not in (None, "honest"):
        raise ConfigError(f"evaluate is {cfg.evaluate!r}; allowed: honest, or null for what a promotion has found")
    wanted = [str(one) for one in cfg.run_id] if isinstance(cfg.run_id, ListConfig) else [str(cfg.run_id)]
    if not 1 <= len(set(wanted)) == len(wanted) <= len(SERIES):
        raise ConfigError(f"run_id is {', '.join(wanted) or 'empty'}; allowed: one to {len(SERIES)} different runs")
    store = tracking.connect(cfg.mlflow)
    page = of_run(cfg, subject.read(cfg, store, wanted[0])) if len(wanted) == 1 else of_runs(_read(cfg, store, wanted))
    name = f"{'-'.join(one[: 32 if len(wanted) == 1 else 8] for one in wanted)}.html"
    return write_page(PAGE, Path(cfg.out or Path(cfg.paths.outputs) / "reports" / name), page=page)


def _read(cfg: DictConfig, store: tracking.Store, wanted: Sequence[str]) -> list[Subject]:
    """Read runs that are to be compared. Raises ConfigError where they are of different rows."""
    found: list[Subject] = []
    for letter, run_id in zip("ABCDEFGH", wanted, strict=False):
        read = subject.read(cfg, store, run_id, letter)
        first = (found or [read])[0]
        for what, mine, other in (
            ("tables", read.table.fingerprint, first.table.fingerprint),
            ("splits", read.parts.fingerprint(), first.parts.fingerprint()),
        ):
            if mine != other:
                raise ConfigError(f"runs {first.id} and {read.id} are of different {what}; allowed: runs of the same rows")
        found.append(read)
    return found


# the page of a run


def of_run(cfg: DictConfig, one: Subject) -> Page:
    """Put the page of a run together."""
    page = Page(f"{one.cfg.data.name}: {one.label}", _which_rows(one), {f"run {one.id}": one.original.run.run.link}, _facts(one))
    page.sections.append(Section("How far predictions are off", figures=[*report_figures.errors(one), *report_figures.maps(one)]))
    page.sections.append(_calibration(one))
    page.sections.append(_explained(one))
    if cfg.learning_curve:
        page.sections.append(_learning_curve(cfg, one))
    page.sections.append(_slices(one))
    page.sections.append(_honest(one.honest, one))
    page.sections.append(
        Section("Card", tables=[Grid(("", ""), [*flat_rows(one.bundle.card)], text=2, folded="what the bundle says of itself")])
    )
    page.sections.append(Section("Config", raw=_yaml(one.cfg)))
    return page


def _which_rows(one: Subject) -> str:
    rows = (
        f"Errors on this page are of the {len(one.evidence.rows):,} validation rows, predicted by a fit on the"
        f" {len(one.parts.train):,} training rows alone."
    )
    if one.cfg.refit:
        rows += " The model in the bundle was fitted once more, on training and validation rows together; its own errors on"
        rows += " validation rows would flatter it and are not shown."
    rows += " Runs are chosen by these rows"
    rows += ", and they said how many trees there are" if one.is_stopped_early else ""
    rows += ", so new rows may fare a little worse. What is of test rows says so."
    return rows


def _facts(one: Subject) -> dict[str, str]:
    known = one.original.run.metrics
    evaluation = one.original.run.tags.get(tracking.EVALUATION, "holdout")
    where = "validation" if evaluation == "holdout" else evaluation
    facts = {f"{where} RMSE": f"{known['rmse']:.4f}", f"{where} MAE": f"{known['mae']:.4f}", f"{where} R²": f"{known['r2']:.4f}"}
    if one.honest is not None:
        facts["test RMSE (95 %)"] = f"{one.honest.scores['rmse']:.4f} ({one.honest.low:.3f} – {one.honest.high:.3f})"
        facts |= {f"{other.split} RMSE": f"{other.scores['rmse']:.4f}" for other in one.honest.elsewhere}
    elif one.decision is not None and "challenger_rmse" in one.decision.metrics:
        facts["test RMSE, by the gate"] = f"{one.decision.metrics['challenger_rmse']:.4f}"
    facts |= {"fit": f"{known['fit_seconds']:.1f} s", "one row": f"{known['row_microseconds']:,.0f} µs"}
    return facts | {"bundle": f"{known['model_bytes'] / 1e6:.3g} MB", "unit": one.table.schema.target.unit or "none"}


def _calibration(one: Subject) -> Section:
    intervals = report_figures.coverage(one)
    said = "" if intervals is not None else "This run made no intervals (interval=none), so there is no coverage to show."
    figures = [report_figures.calibration(one), *([] if intervals is None else [intervals])]
    return Section("Calibration", said, figures)


def _explained(one: Subject) -> Section:
    """Explain the bundle's model on test rows: of validation rows it may know the targets, and none are needed here."""
    matrix = one.table.matrix[one.parts.test[:EXPLAINED]]
    found = explain(one.bundle, one.evidence.native, matrix)
    said = "Of the model in the bundle, on rows that it was not fitted on: test rows without their targets."
    title = "What predictions hang on"
    if found is None:
        return Section(title, said, [report_figures.permuted(one, matrix)])
    figures = [*report_figures.contributions(found, one), report_figures.dependence(found, one)]
    return Section(title, f"{said} SHAP values of a row add up to its prediction.", figures)


def _learning_curve(cfg: DictConfig, one: Subject) -> Section:
    """Fit on fewer rows; the fit on all training rows is the run's own."""
    order = np.random.default_rng(0).permutation(one.parts.train)
    sizes, rmse, refused = [], [], []
    for share in cfg.sizes:
        if not 0 < share < 1:
            raise ConfigError(f"sizes has {share}; allowed: shares above 0 and below 1")
        rows = np.sort(order[: max(1, round(share * len(order)))])
        try:
            model = models.fit(one.cfg, one.table, rows, one.parts.valid)
        except ConfigError as error:  # too few rows for the features
            refused.append(f"{len(rows):,} rows: {error}")
            continue
        sizes.append(len(rows))
        rmse.append(rmse_of(model.predict(one.table.matrix[one.evidence.rows]) - one.actual))
    figure = report_figures.learning_curve(one, [*sizes, len(order)], [*rmse, rmse_of(one.error)])
    return Section("Would more rows help?", "", [figure], points=refused)


def _slices(one: Subject) -> Section:
    scored = report_figures.sliced(one)
    figure = report_figures.by_slice([one.label], [scored], [rmse_of(one.error)], one.rows)
    said = "Price bands cut the target itself: a model that is not perfect is too high in the lowest, too low in the highest."
    return Section("Slices of the validation rows", said, [figure], tables=[_slice_table(scored)])


def _slice_table(scored: Sequence[Any]) -> Grid:
    rows = [
        (one.kind, one.name, f"{one.rows:,}", f"{one.rmse:.4f}", f"{one.share:.2f}", f"{one.mean_error:+.4f}") for one in scored
    ]
    return Grid(("slice", "", "rows", "RMSE", "times all rows", "mean error"), rows, text=2, folded="the slices as a table")


def _honest(found: Honest | None, one: Subject) -> Section:
    title = "Honest evaluation: where the model must not be trusted"
    if found is None:
        return Section(
            title,
            "Not done for this run. It scores the test rows, so do it when the choice is made:"
            f" python -m housing.promote evaluate=honest run_id={one.id}, or evaluate=honest here.",
        )
    figure = report_figures.by_slice(["test"], [found.slices], [found.scores["rmse"]], f"{found.rows:,} test rows, by the bundle")
    elsewhere = [
        (f"{other.split} split", f"{other.train_rows:,}", f"{other.test_rows:,}", *(f"{v:.4f}" for v in other.scores.values()))
        for other in found.elsewhere
    ]
    fitted = len(one.parts.train) + (len(one.parts.valid) if one.cfg.refit else 0)
    mine = ("the run's own split", f"{fitted:,}", f"{found.rows:,}", *(f"{value:.4f}" for value in found.scores.values()))
    tables = [Grid(("", "fitted rows", "test rows", "RMSE", "MAE", "R²"), [mine, *elsewhere]), _slice_table(found.slices)]
    if found.coverage:
        covered = [(c.kind, c.name, f"{c.rows:,}", f"{c.share:.1%}", f"{c.width:.4g}") for c in found.coverage]
        tables.insert(1, Grid((f"intervals at {COVERAGE:.0%}", "", "test rows", "covered", "mean width"), covered, text=2))
    said = (
        f"The bundle on {found.rows:,} test rows; the same config fitted again on splits that hold out whole places, whole areas."
        f" 95 % of 1,000 resamples of the test rows give an RMSE between {found.low:.4f} and {found.high:.4f}. {RULES}"
    )
    points = [*found.not_to_trust, *(f"Left out: {reason}" for reason in found.left_out)]
    return Section(title, said, [figure, *report_figures.by_distance(found, one.unit)], points, tables)


# the page of several runs


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
    sized = report_figures.metrics(subjects, (*COSTS, SIZE))
    page.sections.append(Section("Figures and costs", figures=[sized], tables=[_runs(subjects), _apart(first, others)]))
    scored = [report_figures.sliced(one) for one in subjects]
    labels, overall = [one.label for one in subjects], [rmse_of(one.error) for one in subjects]
    page.sections.append(
        Section(
            "Where they err",
            figures=[
                report_figures.by_slice(labels, scored, overall, first.rows),
                report_figures.calibrations(subjects),
                *report_figures.maps_alike(subjects),
            ],
        )
    )
    apart = [
        figure
        for one, colour in zip(others, SERIES[1:], strict=False)
        for figure in report_figures.differences(first, one, colour)
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


@command("report")
def main(cfg: DictConfig) -> None:
    """Write the page and say where it is."""
    console.show_file(report(cfg))


if __name__ == "__main__":
    main()
