"""TODO docstring."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError, StoreError
from housing.core.files import atomic_write
from housing.core.validators import BOOLEAN, NON_NEGATIVE, POSITIVE, Validator, choice, integer, optional, validate
from housing.data import table as data
from housing.data.split import Split, split
from housing.data.table import Table
from housing.evaluation import evaluate
from housing.evaluation.slices import make_slices
from housing.promotion import challenger, champion, decision_log, gate
from housing.promotion.challenger import Challenger
from housing.promotion.champion import Champion
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check, Decision
from housing.runs.run import BUNDLE, HOLDOUT, log_bundle
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store
from housing.training.build import build
from housing.training.holdout import HoldoutPredictions
from housing.training.metrics import measure_cost, require_ranking_metric, score
from server.rehearsal import run_smoke_test

ALIAS_PATTERN = re.compile(r"(?!(latest|v\d+)$)[\w-]+", re.ASCII | re.IGNORECASE)  # what MLflow takes for none of its own words


QUICK, FULL = "quick", "full"  # how much is found out about a challenger


FRACTION = Validator("a number from 0 to 1", lambda value: NON_NEGATIVE.is_valid(value) and value <= 1)


ALLOWED = {
    "evaluate": optional(choice(QUICK, FULL)),
    "force": BOOLEAN,
    "max_rows": optional(integer(1)),
    "gate.confidence": Validator("a number from 0.5 to below 1", lambda value: FRACTION.is_valid(value) and 0.5 <= value < 1),
    "gate.n_resamples": integer(1),
    "gate.seed": integer(0),
    "gate.slices.max_regression": NON_NEGATIVE,
    "gate.slices.min_rows": integer(1),
    "gate.coverage.nominal": Validator("a number above 0 and below 1", lambda value: FRACTION.is_valid(value) and 0 < value < 1),
    "gate.coverage.min": FRACTION,
    "gate.coverage.max": FRACTION,
    "gate.latency_us": optional(POSITIVE),
    "gate.model_bytes": optional(POSITIVE),
    "gate.smoke_test_seconds": optional(POSITIVE),
    "serve.wait_seconds": NON_NEGATIVE,
}


def promote(cfg: DictConfig) -> Decision:
    """Judge a run, or the version at the alias before, against the champion; move the alias to it where it is better.

    The decision is recorded as a run of its own, whatever it is. Raises StoreError where there is nothing to judge.
    """
    _validate(cfg)
    store = tracking_store.connect(cfg.mlflow)
    with decision_log.exclusive(cfg, store):
        table = data.load(cfg.data, cfg.max_rows)
        parts = split(table, cfg.split)
        found = challenger.find_challenger(cfg, store, table, parts)
        tags = {
            tracking_tags.RUN_TYPE: "decision",
            tracking_tags.DATA: table.fingerprint,
            tracking_tags.SPLIT: parts.fingerprint(),
        }
        tags |= {tracking_tags.CHALLENGER: found.run.id}
        with store.runs.start(cfg.decisions_experiment, f"{cfg.alias} {found.run.id[:8]}", tags) as record:
            decision = decide(cfg, store, table, parts, found)
            _apply(cfg, store, record, found, decision)
        if decision.moves:
            decision_log.wait_for_server(cfg, store, record, decision)
    return decision


def _validate(cfg: DictConfig) -> None:
    """Raise ConfigError for values that make no sense, before anything is asked of the store."""
    require_ranking_metric(cfg.metric)
    if not ALIAS_PATTERN.fullmatch(str(cfg.alias)):
        raise ConfigError(f"alias is {cfg.alias!r}; allowed: letters, digits, - and _, but neither latest nor v and a number")
    validate({name: OmegaConf.select(cfg, name) for name in ALLOWED}, ALLOWED)
    if cfg.gate.coverage.min > cfg.gate.coverage.max:
        raise ConfigError(f"gate.coverage.min is {cfg.gate.coverage.min}; allowed: up to max, {cfg.gate.coverage.max}")
    if cfg.force and not str(cfg.force_reason or "").strip():
        raise ConfigError('force=true wants a reason, which is kept with the decision: force=true force_reason="..."')
    if cfg.force_reason and not cfg.force:
        raise ConfigError("force_reason is given without force=true; the gate gives its own reasons")


def _apply(cfg: DictConfig, store: Store, record: Run, candidate: Challenger, decision: Decision) -> None:
    if decision.evaluation is not None:
        record.log_text(tracking_tags.EVALUATION_FILE, decision.evaluation.to_json())
        record.log(metrics=decision.evaluation.metrics(), tags={tracking_tags.EVALUATED: FULL})
    if decision.moves:
        decision.version = candidate.version or _get_or_register(cfg, store, decision.run_id)
        decision_log.apply_decision(cfg, store, record, decision)
    else:
        decision_log.save_decision(record, decision)


def _get_or_register(cfg: DictConfig, store: Store, run_id: str) -> str:
    """Give the version of a run's bundle: the one that it is already, as after a promotion that was cut off, or a new one."""
    return store.registry.version_of_run(cfg.registered_model, run_id) or store.registry.register(cfg.registered_model, run_id)


def decide(cfg: DictConfig, store: Store, table: Table, parts: Split, candidate: Challenger) -> Decision:
    """Score challenger and champion on the same test rows, check the challenger, and say what follows.

    With an honest evaluation more is found out about the challenger; the verdict does not hang on it.
    """
    before = store.registry.version_at(cfg.registered_model, cfg.alias)
    decision = Decision(
        candidate.run.id, cfg.alias, decision_log.current_user(cfg), before, version=before, test_rows=len(parts.test)
    )
    try:
        with _challenger_bundle(cfg, store, table, parts, candidate, decision) as (bundle, folder):
            _require_same_columns(bundle, table, candidate)
            against = champion.find_champion(cfg, store, table, parts, decision)
            _judge_challenger(cfg, table, parts, decision, bundle, against)
            if decision.difference is not None:  # it is not the champion itself
                _downgrade_to_hold(decision, [against.unreadable_reason, _rollback_concern(cfg, store, candidate, before)])
                _apply_force(cfg, decision)
            if cfg.evaluate == FULL or (cfg.evaluate is None and cfg.alias in cfg.promotes_from):
                decision.evaluation = evaluate.evaluate(cfg, store.artifacts.read_config(candidate.run.id), table, parts, bundle)
            if decision.moves and cfg.gate.smoke_test_seconds is not None:
                run_smoke_test(cfg.serve, bundle, folder, cfg.gate.smoke_test_seconds)
                decision.checks.append(Check("smoke test", "a server answers its golden rows", "what the bundle says", True))
    except BundleError as error:  # no server could use it, so force does not help either
        decision.verdict, decision.force_reason = REJECT, ""
        decision.reasons.append(str(error))
    return decision


def _judge_challenger(
    cfg: DictConfig, table: Table, parts: Split, decision: Decision, bundle: Bundle, current_champion: Champion
) -> None:
    matrix, actual = table.matrix[parts.test], table.target[parts.test]
    predicted = bundle.predict(matrix)
    decision.champion = current_champion.name
    decision.challenger_metrics = score(predicted[current_champion.predictable], actual[current_champion.predictable])
    decision.champion_metrics = score(current_champion.predictions, actual[current_champion.predictable])
    if current_champion.run_id == decision.run_id:
        decision.reasons.append(f"this run is {current_champion.name} at {cfg.alias} already")
        return
    mine, theirs = (
        (predicted - actual)[current_champion.predictable],
        current_champion.predictions - actual[current_champion.predictable],
    )
    decision.difference = gate.compare_overall(cfg.gate, cfg.metric, mine, theirs)
    decision.checks += [
        *gate.columns_check(bundle.schema, current_champion.schema),
        *gate.coverage_check(cfg.gate, bundle, matrix, actual),
        *gate.cost_checks(cfg.gate, measure_cost(bundle, matrix)),
    ]
    if current_champion.run_id is not None:  # the mean is good where targets are near it, and nowhere else
        groups = make_slices(table, parts.test[current_champion.predictable], cfg.data)
        decision.checks += gate.slice_checks(cfg.gate, cfg.metric, groups, mine, theirs)
    decision.verdict = gate.decide_verdict(decision.difference, decision.checks)
    decision.reasons += [f"{one.name}: {one.actual}; allowed: {one.limit}" for one in decision.checks if not one.passed]
    decision.reasons.append(gate.describe(decision.difference, cfg.metric, current_champion.name, cfg.gate.confidence))


def _downgrade_to_hold(decision: Decision, concerns: list[str]) -> None:
    """Leave to a person what the figures cannot say."""
    told = [doubt for doubt in concerns if doubt]
    decision.reasons += told
    if told and decision.verdict == PROMOTE:
        decision.verdict = HOLD


def _rollback_concern(cfg: DictConfig, store: Store, candidate: Challenger, current_version: str | None) -> str:
    """Say that the challenger was at the alias and was rolled back, where that is so."""
    version = candidate.version or store.registry.version_of_run(cfg.registered_model, candidate.run.id)
    past = decision_log.list_decisions(store, cfg.decisions_experiment, cfg.alias)
    then = decision_log.find_rollback(past, version, current_version or "") if version else None
    return (
        f"version {version} was rolled back by {then.actor} ({then.decided_at:%Y-%m-%d %H:%M}): {then.reason or 'no reason'}"
        if then
        else ""
    )


def _apply_force(cfg: DictConfig, decision: Decision) -> None:
    if cfg.force:
        decision.reasons.append(f"forced, and the gate says {decision.verdict}: {cfg.force_reason}")
        decision.verdict, decision.force_reason = PROMOTE, str(cfg.force_reason)


@contextmanager
def _challenger_bundle(
    cfg: DictConfig, store: Store, table: Table, parts: Split, candidate: Challenger, decision: Decision
) -> Iterator[tuple[Bundle, Path]]:
    """Give the challenger's bundle, proven, and where it lies for as long as the block lasts."""
    run = candidate.run
    if candidate.version is None and tracking_tags.MODEL_ID not in run.tags:
        decision.reasons.append("the run kept no bundle: it was fitted again from its config")
        _refit(store, table, parts, run)
        run = store.runs.get(run.id)
    source = f"{cfg.registered_model}/{candidate.version}" if candidate.version else run.tags[tracking_tags.MODEL_ID]
    with store.artifacts.bundle(f"models:/{source}") as folder:
        yield Bundle.read(folder), folder


def _refit(store: Store, table: Table, parts: Split, run: RunRecord) -> None:
    left: list[HoldoutPredictions] = []
    bundle, metrics = build(store.artifacts.read_config(run.id), table, parts, run.id, on_fit=left.append)
    off = abs(metrics["rmse"] - run.metrics["rmse"])
    if off > 1e-3 * run.metrics["rmse"]:
        raise BundleError(
            f"fitted again, run {run.id} gives a validation rmse of {metrics['rmse']:.6f}; it had {run.metrics['rmse']:.6f}"
        )
    with tempfile.TemporaryDirectory(prefix="housing-") as place:
        bundle.write(Path(place) / BUNDLE)
        left[0].write(Path(place) / HOLDOUT)
        log_bundle(run.run, Path(place), table.schema)
    run.run.log(tags={"housing.refitted": "true"})


def _require_same_columns(bundle: Bundle, table: Table, candidate: Challenger) -> None:
    if bundle.schema.interface() != table.schema.interface():
        differ = [*bundle.schema.breaking_changes(table.schema), *table.schema.breaking_changes(bundle.schema)]
        raise StoreError(
            f"run {candidate.run.id} was fitted on other columns than table {table.schema.name} has now ({'; '.join(differ)});"
            " train again, or call promote with the data of the run"
        )


def write_decision(decision: Decision, path: Path) -> None:
    """Write a decision as a file, for programs."""
    with atomic_write(path) as partial:
        partial.write_text(decision.to_json(), encoding="utf-8")
