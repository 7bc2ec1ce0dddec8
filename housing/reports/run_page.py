"""TODO docstring."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig

from housing.core.errors import ConfigError
from housing.evaluation.contributions import explain
from housing.evaluation.evaluate import NOMINAL_COVERAGE
from housing.evaluation.limitations import RULES
from housing.evaluation.results import Evaluation
from housing.evaluation.slices import compute_rmse
from housing.reports import comparison_figures, map_figures, run_data, run_figures
from housing.reports.comparison_page import _to_yaml, flatten_rows
from housing.reports.page import HtmlTable, Page, Section
from housing.reports.run_data import RunData
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.training import fitting

N_EXPLAINED_ROWS = 1000  # test rows


def _read_runs(cfg: DictConfig, store: tracking_store.Store, run_ids: Sequence[str]) -> list[RunData]:
    """Read runs that are to be compared. Raises ConfigError where they are of different rows."""
    found: list[RunData] = []
    for letter, run_id in zip("ABCDEFGH", run_ids, strict=False):
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


def build_run_page(cfg: DictConfig, run: RunData) -> Page:
    """Put the page of a run together."""
    page = Page(
        f"{run.cfg.data.name}: {run.label}", _describe_rows(run), {f"run {run.id}": run.past_run.run.run.link}, _facts(run)
    )
    page.sections.append(
        Section("How far predictions are off", figures=[*run_figures.error_figures(run), *map_figures.error_maps(run)])
    )
    page.sections.append(_calibration_section(run))
    page.sections.append(_explanation_section(run))
    if cfg.learning_curve:
        page.sections.append(_learning_curve_section(cfg, run))
    page.sections.append(_slices_section(run))
    page.sections.append(_evaluation_section(run.evaluation, run))
    page.sections.append(
        Section(
            "Card",
            tables=[
                HtmlTable(("", ""), [*flatten_rows(run.bundle.card)], n_text_columns=2, summary="what the bundle says of itself")
            ],
        )
    )
    page.sections.append(Section("Config", code=_to_yaml(run.cfg)))
    return page


def _describe_rows(run: RunData) -> str:
    rows = (
        f"Errors on this page are of the {len(run.holdout.rows):,} validation rows, predicted by a fit on the"
        f" {len(run.parts.train):,} training rows alone."
    )
    if run.cfg.refit:
        rows += " The model in the bundle was fitted once more, on training and validation rows together; its own errors on"
        rows += " validation rows would flatter it and are not shown."
    rows += " Runs are chosen by these rows"
    rows += ", and they said how many trees there are" if run.uses_early_stopping else ""
    rows += ", so new rows may fare a little worse. What is of test rows says so."
    return rows


def _facts(run: RunData) -> dict[str, str]:
    known = run.past_run.run.metrics
    evaluation = run.past_run.run.tags.get(tags.EVALUATION, "holdout")
    where = "validation" if evaluation == "holdout" else evaluation
    facts = {f"{where} RMSE": f"{known['rmse']:.4f}", f"{where} MAE": f"{known['mae']:.4f}", f"{where} R²": f"{known['r2']:.4f}"}
    if run.evaluation is not None:
        facts["test RMSE (95 %)"] = (
            f"{run.evaluation.scores['rmse']:.4f} ({run.evaluation.rmse_lower:.3f} – {run.evaluation.rmse_upper:.3f})"
        )
        facts |= {f"{other.split} RMSE": f"{other.scores['rmse']:.4f}" for other in run.evaluation.harder_splits}
    elif run.decision is not None and "challenger_rmse" in run.decision.metrics:
        facts["test RMSE, by the gate"] = f"{run.decision.metrics['challenger_rmse']:.4f}"
    facts |= {"fit": f"{known['fit_seconds']:.1f} s", "one row": f"{known['latency_us']:,.0f} µs"}
    return facts | {"bundle": f"{known['model_bytes'] / 1e6:.3g} MB", "unit": run.table.schema.target.unit or "none"}


def _calibration_section(run: RunData) -> Section:
    intervals = run_figures.interval_coverage(run)
    said = "" if intervals is not None else "This run made no intervals (interval=none), so there is no coverage to show."
    figures = [run_figures.calibration(run), *([] if intervals is None else [intervals])]
    return Section("Calibration", said, figures)


def _explanation_section(run: RunData) -> Section:
    """Explain the bundle's model on test rows: of validation rows it may know the targets, and none are needed here."""
    matrix = run.table.matrix[run.parts.test[:N_EXPLAINED_ROWS]]
    found = explain(run.bundle, run.holdout.boosters, matrix)
    said = "Of the model in the bundle, on rows that it was not fitted on: test rows without their targets."
    title = "What predictions hang on"
    if found is None:
        return Section(title, said, [run_figures.permutation_importance(run, matrix)])
    figures = [*run_figures.shap_figures(found, run), run_figures.shap_dependence(found, run)]
    return Section(title, f"{said} SHAP values of a row add up to its prediction.", figures)


def _learning_curve_section(cfg: DictConfig, run: RunData) -> Section:
    """Fit on fewer rows; the fit on all training rows is the run's own."""
    order = np.random.default_rng(0).permutation(run.parts.train)
    sizes, rmse, refused = [], [], []
    for share in cfg.sizes:
        if not 0 < share < 1:
            raise ConfigError(f"sizes has {share}; allowed: shares above 0 and below 1")
        rows = np.sort(order[: max(1, round(share * len(order)))])
        try:
            model = fitting.fit(run.cfg, run.table, rows, run.parts.valid)
        except ConfigError as error:  # too few rows for the features
            refused.append(f"{len(rows):,} rows: {error}")
            continue
        sizes.append(len(rows))
        rmse.append(compute_rmse(model.predict(run.table.matrix[run.holdout.rows]) - run.actual))
    figure = run_figures.learning_curve(run, [*sizes, len(order)], [*rmse, compute_rmse(run.error)])
    return Section("Would more rows help?", "", [figure], bullets=refused)


def _slices_section(run: RunData) -> Section:
    scored = comparison_figures.score_run_slices(run)
    figure = run_figures.errors_by_slice([run.label], [scored], [compute_rmse(run.error)], run.rows_description)
    said = "Price bands cut the target itself: a model that is not perfect is too high in the lowest, too low in the highest."
    return Section("Slices of the validation rows", said, [figure], tables=[_slice_table(scored)])


def _slice_table(scored: Sequence[Any]) -> HtmlTable:
    rows = [
        (one.kind, one.name, f"{one.rows:,}", f"{one.rmse:.4f}", f"{one.share:.2f}", f"{one.mean_error:+.4f}") for one in scored
    ]
    return HtmlTable(
        ("slice", "", "rows", "RMSE", "times all rows", "mean error"), rows, n_text_columns=2, summary="the slices as a table"
    )


def _evaluation_section(evaluation: Evaluation | None, run: RunData) -> Section:
    title = "Honest evaluation: where the model must not be trusted"
    if evaluation is None:
        return Section(
            title,
            "Not done for this run. It scores the test rows, so do it when the choice is made:"
            f" python -m housing.promote evaluate=full run_id={run.id}, or evaluate=full here.",
        )
    figure = run_figures.errors_by_slice(
        ["test"], [evaluation.slices], [evaluation.scores["rmse"]], f"{evaluation.rows:,} test rows, by the bundle"
    )
    elsewhere = [
        (f"{other.split} split", f"{other.train_rows:,}", f"{other.test_rows:,}", *(f"{v:.4f}" for v in other.scores.values()))
        for other in evaluation.harder_splits
    ]
    fitted = len(run.parts.train) + (len(run.parts.valid) if run.cfg.refit else 0)
    mine = (
        "the run's own split",
        f"{fitted:,}",
        f"{evaluation.rows:,}",
        *(f"{value:.4f}" for value in evaluation.scores.values()),
    )
    tables = [
        HtmlTable(("", "fitted rows", "test rows", "RMSE", "MAE", "R²"), [mine, *elsewhere]),
        _slice_table(evaluation.slices),
    ]
    if evaluation.coverage:
        covered = [(c.kind, c.name, f"{c.rows:,}", f"{c.coverage:.1%}", f"{c.mean_width:.4g}") for c in evaluation.coverage]
        tables.insert(
            1,
            HtmlTable(
                (f"intervals at {NOMINAL_COVERAGE:.0%}", "", "test rows", "covered", "mean width"), covered, n_text_columns=2
            ),
        )
    said = (
        f"The bundle on {evaluation.rows:,} test rows; the same config fitted again on splits that hold out whole places, whole areas."
        f" 95 % of 1,000 resamples of the test rows give an RMSE between {evaluation.rmse_lower:.4f} and {evaluation.rmse_upper:.4f}. {RULES}"
    )
    points = [*evaluation.limitations, *(f"Left out: {reason}" for reason in evaluation.skipped)]
    return Section(title, said, [figure, *run_figures.errors_by_distance(evaluation, run.target_label)], points, tables)
