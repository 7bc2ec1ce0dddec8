"""Descriptions of registered models and their versions in MLflow's pages, made from runs and decisions."""

from datetime import UTC, datetime

from housing.promotion.decision import ROLLBACK, Decision
from housing.schema.column import Column
from housing.tracking import tags
from housing.tracking.runs import RunRecord

UNKNOWN = "unknown"


def describe_model(table: str, target: Column) -> str:
    """Return what the versions of a registered model have in common."""
    return (
        f"Predicts `{target.name}`{_unit(target)} of the table `{table}`. Each version is the bundle of a run; its description"
        " says when it moved to which alias. `python -m housing.history` lists all decisions."
    )


def describe_version(run: RunRecord, target: Column) -> str:
    """Return what a version is, on which data it was fitted, and how good it is on validation rows."""
    param, tag = run.params.get, run.tags.get
    dirty = " with uncommitted changes" if tag("housing.dirty") == "true" else ""
    score = f"{run.metrics['rmse']:.4g}" if "rmse" in run.metrics else UNKNOWN
    return (
        f"**{param('model.name', UNKNOWN)}** on features `{param('features.name', UNKNOWN)}`, fitted {run.started_at:%Y-%m-%d} on"
        f" table `{param('data.name', UNKNOWN)}` (fingerprint `{tag(tags.DATA, UNKNOWN)[:12]}`), split"
        f" `{param('split._target_', UNKNOWN).rpartition('.')[2]}`. Validation RMSE {score}{_unit(target)}. Commit"
        f" `{tag('mlflow.source.git.commit', UNKNOWN)[:12]}`{dirty}."
    )


def describe_move(decision: Decision) -> str:
    """Return when the version moved to an alias, what it replaced, and its score on the test rows."""
    what = f"back at `{decision.alias}`" if decision.verdict == ROLLBACK else f"at `{decision.alias}`"
    before = f"replaced version {decision.previous_version}" if decision.previous_version else "the first version there"
    scores = ""
    if "rmse" in decision.challenger_metrics:
        champion = decision.champion_metrics.get("rmse")
        against = "" if champion is None else f", against {champion:.4g} of {decision.champion}"
        scores = f" Test RMSE {decision.challenger_metrics['rmse']:.4g} on {decision.test_rows:,} rows{against}."
    request = f", requested by {decision.requested_by}" if decision.requested_by else ""
    forced = f" Forced: {decision.force_reason}." if decision.force_reason else ""
    return f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {what}, {before}, moved by {decision.actor}{request}.{scores}{forced}"


def _unit(target: Column) -> str:
    return f" ({target.unit_label})" if target.unit_label else ""
