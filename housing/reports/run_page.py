"""TODO docstring."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig

from housing.core.errors import ConfigError
from housing.evaluation.contributions import explain
from housing.evaluation.evaluate import COVERAGE
from housing.evaluation.limitations import RULES
from housing.evaluation.results import Honest
from housing.evaluation.slices import rmse_of
from housing.reports import comparison_figures, map_figures, run_data, run_figures
from housing.reports.comparison_page import _yaml, flat_rows
from housing.reports.page import Grid, Page, Section
from housing.reports.run_data import Subject
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.training import fitting

EXPLAINED = 1000  # test rows


def _read(cfg: DictConfig, store: tracking_store.Store, wanted: Sequence[str]) -> list[Subject]:
    """Read runs that are to be compared. Raises ConfigError where they are of different rows."""
    found: list[Subject] = []
    for letter, run_id in zip("ABCDEFGH", wanted, strict=False):
        read = run_data.read(cfg, store, run_id, letter)
        first = (found or [read])[0]
        for what, mine, other in (
            ("tables", read.table.fingerprint, first.table.fingerprint),
            ("splits", read.parts.fingerprint(), first.parts.fingerprint()),
        ):
            if mine != other:
                raise ConfigError(f"runs {first.id} and {read.id} are of different {what}; allowed: runs of the same rows")
        found.append(read)
    return found


def of_run(cfg: DictConfig, one: Subject) -> Page:
    """Put the page of a run together."""
    page = Page(f"{one.cfg.data.name}: {one.label}", _which_rows(one), {f"run {one.id}": one.original.run.run.link}, _facts(one))
    page.sections.append(Section("How far predictions are off", figures=[*run_figures.errors(one), *map_figures.maps(one)]))
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
    evaluation = one.original.run.tags.get(tags.EVALUATION, "holdout")
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
    intervals = run_figures.coverage(one)
    said = "" if intervals is not None else "This run made no intervals (interval=none), so there is no coverage to show."
    figures = [run_figures.calibration(one), *([] if intervals is None else [intervals])]
    return Section("Calibration", said, figures)


def _explained(one: Subject) -> Section:
    """Explain the bundle's model on test rows: of validation rows it may know the targets, and none are needed here."""
    matrix = one.table.matrix[one.parts.test[:EXPLAINED]]
    found = explain(one.bundle, one.evidence.native, matrix)
    said = "Of the model in the bundle, on rows that it was not fitted on: test rows without their targets."
    title = "What predictions hang on"
    if found is None:
        return Section(title, said, [run_figures.permuted(one, matrix)])
    figures = [*run_figures.contributions(found, one), run_figures.dependence(found, one)]
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
            model = fitting.fit(one.cfg, one.table, rows, one.parts.valid)
        except ConfigError as error:  # too few rows for the features
            refused.append(f"{len(rows):,} rows: {error}")
            continue
        sizes.append(len(rows))
        rmse.append(rmse_of(model.predict(one.table.matrix[one.evidence.rows]) - one.actual))
    figure = run_figures.learning_curve(one, [*sizes, len(order)], [*rmse, rmse_of(one.error)])
    return Section("Would more rows help?", "", [figure], points=refused)


def _slices(one: Subject) -> Section:
    scored = comparison_figures.sliced(one)
    figure = run_figures.by_slice([one.label], [scored], [rmse_of(one.error)], one.rows)
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
    figure = run_figures.by_slice(["test"], [found.slices], [found.scores["rmse"]], f"{found.rows:,} test rows, by the bundle")
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
    return Section(title, said, [figure, *run_figures.by_distance(found, one.unit)], points, tables)
