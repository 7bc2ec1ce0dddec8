"""The page of one run."""

import numpy as np
from omegaconf import DictConfig, OmegaConf

from housing.command_line.next_command import next_command
from housing.core.config import to_yaml
from housing.core.errors import ConfigError
from housing.evaluation.contributions import explain
from housing.evaluation.evaluate import NOMINAL_COVERAGE
from housing.evaluation.limitations import RULES
from housing.evaluation.results import Evaluation
from housing.evaluation.slices import compute_rmse
from housing.fitting import fitting
from housing.fitting.encoding_choice import choose_encoding
from housing.fitting.fitting import FitSettings
from housing.reports import comparison_figures, map_figures, run_figures
from housing.reports.comparison_page import flatten_rows
from housing.reports.page import HtmlTable, Page, Section
from housing.reports.run_data import RunData
from housing.reports.slice_tables import GROUPS_TEXT, group_tables, slice_table
from housing.scoring.ranking_metric import RankingMetric
from housing.tracking import tags

FOLDED = "Show the slices as a table"

N_EXPLAINED_ROWS = 1000  # test rows


def build_run_page(cfg: DictConfig, run: RunData) -> Page:
    """Return the page of a run."""
    page = Page(
        f"{run.cfg.data.name}: {run.label}", _describe_rows(run), {f"run {run.id}": run.past_run.run.run.link}, _facts(run)
    )
    page.sections.append(Section("Errors", figures=[*run_figures.error_figures(run), *map_figures.error_maps(run)]))
    page.sections.append(_calibration_section(run))
    page.sections.append(_explanation_section(run))
    if cfg.learning_curve:
        page.sections.append(_learning_curve_section(cfg, run))
    page.sections.append(_slices_section(run))
    page.sections.append(_evaluation_section(run.evaluation, run))
    page.sections.append(
        Section(
            "Card",
            tables=[HtmlTable(("", ""), [*flatten_rows(run.bundle.card)], n_text_columns=2, summary="Show the model card")],
        )
    )
    page.sections.append(Section("Config", code=to_yaml(OmegaConf.to_container(run.cfg, resolve=True))))
    return page


def _describe_rows(run: RunData) -> str:
    rows = (
        f"Errors on this page are those of the {len(run.holdout.rows):,} validation rows, predicted by a model that was fitted on"
        f" the {len(run.parts.train):,} training rows only."
    )
    if run.cfg.refit:
        rows += " The model in the bundle was refitted on training and validation rows, so its own validation errors would be"
        rows += " optimistic and are not shown."
    selection = "Runs are selected, and the number of trees is chosen," if run.uses_early_stopping else "Runs are selected"
    rows += f" {selection} on these rows, so errors on new rows may be slightly larger."
    return f"{rows} Figures of test rows are marked as such."


def _facts(run: RunData) -> dict[str, str]:
    metrics = run.past_run.run.metrics
    evaluation = run.past_run.run.tags.get(tags.EVALUATION, "holdout")
    rows = "validation" if evaluation == "holdout" else evaluation
    facts = {
        f"{rows} RMSE": f"{metrics['rmse']:.4f}",
        f"{rows} MAE": f"{metrics['mae']:.4f}",
        f"{rows} R²": f"{metrics['r2']:.4f}",
    }
    if run.evaluation is not None:
        facts["test RMSE (95 % interval)"] = f"{run.evaluation.scores['rmse']:.4f} ({_interval(run.evaluation, 3)})"
        facts |= {f"RMSE, {result.split} split": f"{result.scores['rmse']:.4f}" for result in run.evaluation.harder_splits}
    elif run.decision is not None and "challenger_rmse" in run.decision.metrics:
        facts["test RMSE (gate)"] = f"{run.decision.metrics['challenger_rmse']:.4f}"
    facts |= {"fit time": f"{metrics['fit_seconds']:.1f} s", "latency, one row": f"{metrics['latency_us']:,.0f} µs"}
    return facts | {"bundle size": f"{metrics['model_bytes'] / 1e6:.3g} MB", "unit": run.table.schema.target.unit_label or "none"}


def _calibration_section(run: RunData) -> Section:
    intervals = run_figures.interval_coverage(run)
    text = "" if intervals is not None else "This run has no prediction intervals (interval=none)."
    figures = [run_figures.calibration(run), *([] if intervals is None else [intervals])]
    return Section("Calibration", text, figures=figures)


def _explanation_section(run: RunData) -> Section:
    """Explain the bundle's model on test rows, without their targets: it may have been fitted on the validation rows."""
    explained = run.table.take(run.parts.test[:N_EXPLAINED_ROWS])
    shap = explain(run.bundle, run.holdout.boosters, explained.matrix, explained.weight)
    text = "Explains the model in the bundle on test rows, which it was not fitted on. Their targets are not used."
    title = "Feature importance"
    if shap is None:
        return Section(title, text, figures=[run_figures.permutation_importance(run, explained.matrix, explained.weight)])
    total = "its prediction" if run.bundle.ensemble.transform is None else "the logarithm of its prediction"
    figures = [*run_figures.shap_figures(shap, run), run_figures.shap_dependence(shap, run)]
    return Section(title, f"{text} The SHAP values of a row add up to {total}.", figures=figures)


def _learning_curve_section(cfg: DictConfig, run: RunData) -> Section:
    """Fit on subsets of the training rows; the fit on all of them is the run's own."""
    order = np.random.default_rng(0).permutation(run.parts.train)
    metric = RankingMetric.from_config(run.cfg)
    settings = choose_encoding(FitSettings.from_config(run.cfg), run.table, run.parts, metric).settings
    sizes, rmse, skipped = [], [], []
    for share in cfg.sizes:
        if not 0 < share < 1:
            raise ConfigError(f"sizes must be fractions between 0 and 1 (got {share}).")
        rows = np.sort(order[: max(1, round(share * len(order)))])
        try:
            model = fitting.fit(settings, run.table, rows, run.parts.valid)
        except ConfigError as error:  # too few rows for the features
            skipped.append(f"{len(rows):,} rows: {error}")
            continue
        sizes.append(len(rows))
        rmse.append(compute_rmse(model.predict(run.table.matrix[run.holdout.rows]) - run.actual, run.weight))
    figure = run_figures.learning_curve(run, [*sizes, len(order)], [*rmse, run.rmse])
    return Section("Learning curve", figures=[figure], bullets=skipped)


def _slices_section(run: RunData) -> Section:
    scored = comparison_figures.score_run_slices(run)
    figure = run_figures.errors_by_slice([run.label], [scored], [run.rmse], run.rows_description)
    text = "Bands of the target: any imperfect model predicts too high in the lowest band and too low in the highest."
    groups = group_tables(scored)
    if groups:
        text = f"{text} {GROUPS_TEXT}"
    return Section("Errors by slice", text, figures=[figure], tables=[*groups, slice_table(scored, FOLDED)])


def _evaluation_section(evaluation: Evaluation | None, run: RunData) -> Section:
    title = "Full evaluation and limitations"
    if evaluation is None:
        return Section(
            title,
            "Not available for this run. It scores the test rows, so run it after the model is selected:"
            f" {next_command('promote', 'evaluate=full', f'run_id={run.id}', table=run.cfg.data.name)},"
            " or add evaluate=full to this command.",
        )
    figure = run_figures.errors_by_slice(
        ["test"], [evaluation.slices], [evaluation.scores["rmse"]], f"{evaluation.rows:,} test rows, predicted by the bundle"
    )
    text = (
        f"The bundle on {evaluation.rows:,} test rows, and the same config refitted on splits that hold out whole locations"
        " and areas."
        f" 95 % bootstrap interval of the test RMSE: {_interval(evaluation, 4)}. {RULES}"
    )
    points = [*evaluation.limitations, *(f"Skipped: {reason}" for reason in evaluation.skipped)]
    tables = [_splits_table(evaluation, run), *_coverage_tables(evaluation), *group_tables(evaluation.slices)]
    tables.append(slice_table(evaluation.slices, FOLDED))
    figures = [figure, *run_figures.errors_by_distance(evaluation, run.target_label)]
    return Section(title, text, bullets=points, tables=tables, figures=figures)


def _splits_table(evaluation: Evaluation, run: RunData) -> HtmlTable:
    """Return the scores on the run's own split and on the harder ones."""
    n_fitted = len(run.parts.train) + (len(run.parts.valid) if run.cfg.refit else 0)
    splits = [("the run's own split", n_fitted, evaluation.rows, evaluation.scores)]
    splits += [
        (f"{result.split} split", result.train_rows, result.test_rows, result.scores) for result in evaluation.harder_splits
    ]
    rows = [(name, f"{fitted:,}", f"{test:,}", *(f"{v:.4f}" for v in scores.values())) for name, fitted, test, scores in splits]
    return HtmlTable(("", "fitted rows", "test rows", "RMSE", "MAE", "R²"), rows)


def _coverage_tables(evaluation: Evaluation) -> list[HtmlTable]:
    """Return a table of the coverage of intervals, or nothing if the model has none."""
    if not evaluation.coverage:
        return []
    rows = [(c.kind, c.name, f"{c.rows:,}", f"{c.coverage:.1%}", f"{c.mean_width:.4g}") for c in evaluation.coverage]
    header = (f"intervals at {NOMINAL_COVERAGE:.0%}", "", "test rows", "covered", "mean width")
    return [HtmlTable(header, rows, n_text_columns=2)]


def _interval(evaluation: Evaluation, digits: int) -> str:
    if evaluation.rmse_lower is None or evaluation.rmse_upper is None:
        return "too few test rows"
    return f"{evaluation.rmse_lower:.{digits}f} – {evaluation.rmse_upper:.{digits}f}"
