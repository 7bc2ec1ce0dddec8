"""TODO docstring."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError, StoreError
from housing.core.files import written_whole
from housing.core.validators import FLAG, NOT_NEGATIVE, POSITIVE, Allowed, one_of, or_null, require, whole
from housing.data import table as data
from housing.data.split import Split, split
from housing.data.table import Table
from housing.evaluation import evaluate
from housing.evaluation.slices import groups_of
from housing.promotion import challenger, champion, decision_log, gate
from housing.promotion.challenger import Challenger
from housing.promotion.champion import Champion
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check, Decision
from housing.runs.run import BUNDLE, EVIDENCE, keep
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store
from housing.training.build import build
from housing.training.holdout import Evidence
from housing.training.metrics import cost, require_comparable, score
from server.rehearsal import rehearse

ALIAS = re.compile(r"(?!(latest|v\d+)$)[\w-]+", re.ASCII | re.IGNORECASE)  # what MLflow takes for none of its own words


QUICK, HONEST = "quick", "honest"  # how much is found out about a challenger


SHARE = Allowed("a number from 0 to 1", lambda value: NOT_NEGATIVE.holds(value) and value <= 1)


ALLOWED = {
    "evaluate": or_null(one_of(QUICK, HONEST)),
    "force": FLAG,
    "limit": or_null(whole(1)),
    "gate.certainty": Allowed("a number from 0.5 to below 1", lambda value: SHARE.holds(value) and 0.5 <= value < 1),
    "gate.resamples": whole(1),
    "gate.seed": whole(0),
    "gate.slices.margin": NOT_NEGATIVE,
    "gate.slices.rows": whole(1),
    "gate.coverage.asked": Allowed("a number above 0 and below 1", lambda value: SHARE.holds(value) and 0 < value < 1),
    "gate.coverage.least": SHARE,
    "gate.coverage.most": SHARE,
    "gate.row_microseconds": or_null(POSITIVE),
    "gate.model_bytes": or_null(POSITIVE),
    "gate.rehearsal": or_null(POSITIVE),
    "serve.wait": NOT_NEGATIVE,
}


def promote(cfg: DictConfig) -> Decision:
    """Judge a run, or the version at the alias before, against the champion; move the alias to it where it is better.

    The decision is recorded as a run of its own, whatever it is. Raises StoreError where there is nothing to judge.
    """
    _check(cfg)
    store = tracking_store.connect(cfg.mlflow)
    with decision_log.one_at_a_time(cfg, store):
        table = data.load(cfg.data, cfg.limit)
        parts = split(table, cfg.split)
        found = challenger.find(cfg, store, table, parts)
        tags = {
            tracking_tags.RUN_TYPE: "decision",
            tracking_tags.DATA: table.fingerprint,
            tracking_tags.SPLIT: parts.fingerprint(),
        }
        tags |= {tracking_tags.CHALLENGER: found.run.id}
        with store.runs.start(cfg.decisions, f"{cfg.to} {found.run.id[:8]}", tags) as record:
            decision = decide(cfg, store, table, parts, found)
            _carry_out(cfg, store, record, found, decision)
        if decision.moves:
            decision_log.look_at_server(cfg, store, record, decision)
    return decision


def _check(cfg: DictConfig) -> None:
    """Raise ConfigError for values that make no sense, before anything is asked of the store."""
    require_comparable(cfg.metric)
    if not ALIAS.fullmatch(str(cfg.to)):
        raise ConfigError(f"to is {cfg.to!r}; allowed: letters, digits, - and _, but neither latest nor v and a number")
    require({name: OmegaConf.select(cfg, name) for name in ALLOWED}, ALLOWED)
    if cfg.gate.coverage.least > cfg.gate.coverage.most:
        raise ConfigError(f"gate.coverage.least is {cfg.gate.coverage.least}; allowed: up to most, {cfg.gate.coverage.most}")
    if cfg.force and not str(cfg.reason or "").strip():
        raise ConfigError('force=true wants a reason, which is kept with the decision: force=true reason="..."')
    if cfg.reason and not cfg.force:
        raise ConfigError("reason is given without force=true; the gate gives its own reasons")


def _carry_out(cfg: DictConfig, store: Store, record: Run, found: Challenger, decision: Decision) -> None:
    if decision.honest is not None:
        record.log_text(tracking_tags.EVALUATION_FILE, decision.honest.to_json())
        record.log(metrics=decision.honest.metrics(), tags={tracking_tags.EVALUATED: HONEST})
    if decision.moves:
        decision.version = found.version or _registered(cfg, store, decision.run_id)
        decision_log.carry_out(cfg, store, record, decision)
    else:
        decision_log.keep(record, decision)


def _registered(cfg: DictConfig, store: Store, run_id: str) -> str:
    """Give the version of a run's bundle: the one that it is already, as after a promotion that was cut off, or a new one."""
    return store.registry.version_of_run(cfg.registered_model, run_id) or store.registry.register(cfg.registered_model, run_id)


def decide(cfg: DictConfig, store: Store, table: Table, parts: Split, found: Challenger) -> Decision:
    """Score challenger and champion on the same test rows, check the challenger, and say what follows.

    With an honest evaluation more is found out about the challenger; the verdict does not hang on it.
    """
    before = store.registry.version_at(cfg.registered_model, cfg.to)
    decision = Decision(found.run.id, cfg.to, decision_log.who(cfg), before, version=before, test_rows=len(parts.test))
    try:
        with _challenger_bundle(cfg, store, table, parts, found, decision) as (bundle, folder):
            _require_of_table(bundle, table, found)
            against = champion.find(cfg, store, table, parts, decision)
            _judge(cfg, table, parts, decision, bundle, against)
            if decision.difference is not None:  # it is not the champion itself
                _hold(decision, [against.unread, _rolled_back(cfg, store, found, before)])
                _force(cfg, decision)
            if cfg.evaluate == HONEST or (cfg.evaluate is None and cfg.to in cfg.after):
                decision.honest = evaluate.evaluate(cfg, store.artifacts.read_config(found.run.id), table, parts, bundle)
            if decision.moves and cfg.gate.rehearsal is not None:
                rehearse(cfg.serve, bundle, folder, cfg.gate.rehearsal)
                decision.checks.append(Check("rehearsal", "a server answers its golden rows", "what the bundle says", True))
    except BundleError as error:  # no server could use it, so force does not help either
        decision.verdict, decision.forced = REJECT, ""
        decision.reasons.append(str(error))
    return decision


def _judge(cfg: DictConfig, table: Table, parts: Split, decision: Decision, bundle: Bundle, against: Champion) -> None:
    matrix, actual = table.matrix[parts.test], table.target[parts.test]
    predicted = bundle.predict(matrix)
    decision.champion = against.name
    decision.challenger_metrics = score(predicted[against.takes], actual[against.takes])
    decision.champion_metrics = score(against.predictions, actual[against.takes])
    if against.run_id == decision.run_id:
        decision.reasons.append(f"this run is {against.name} at {cfg.to} already")
        return
    mine, theirs = (predicted - actual)[against.takes], against.predictions - actual[against.takes]
    decision.difference = gate.overall(cfg.gate, cfg.metric, mine, theirs)
    decision.checks += [
        *gate.columns_check(bundle.schema, against.schema),
        *gate.coverage_check(cfg.gate, bundle, matrix, actual),
        *gate.cost_checks(cfg.gate, cost(bundle, matrix)),
    ]
    if against.run_id is not None:  # the mean is good where targets are near it, and nowhere else
        groups = groups_of(table, parts.test[against.takes], cfg.data)
        decision.checks += gate.slice_checks(cfg.gate, cfg.metric, groups, mine, theirs)
    decision.verdict = gate.verdict_of(decision.difference, decision.checks)
    decision.reasons += [f"{one.name}: {one.found}; allowed: {one.allowed}" for one in decision.checks if not one.passed]
    decision.reasons.append(gate.told(decision.difference, cfg.metric, against.name, cfg.gate.certainty))


def _hold(decision: Decision, doubts: list[str]) -> None:
    """Leave to a person what the figures cannot say."""
    told = [doubt for doubt in doubts if doubt]
    decision.reasons += told
    if told and decision.verdict == PROMOTE:
        decision.verdict = HOLD


def _rolled_back(cfg: DictConfig, store: Store, found: Challenger, before: str | None) -> str:
    """Say that the challenger was at the alias and was rolled back, where that is so."""
    version = found.version or store.registry.version_of_run(cfg.registered_model, found.run.id)
    past = decision_log.past(store, cfg.decisions, cfg.to)
    then = decision_log.rolled_back(past, version, before or "") if version else None
    return f"version {version} was rolled back by {then.by} ({then.at:%Y-%m-%d %H:%M}): {then.why or 'no reason'}" if then else ""


def _force(cfg: DictConfig, decision: Decision) -> None:
    if cfg.force:
        decision.reasons.append(f"forced, and the gate says {decision.verdict}: {cfg.reason}")
        decision.verdict, decision.forced = PROMOTE, str(cfg.reason)


@contextmanager
def _challenger_bundle(
    cfg: DictConfig, store: Store, table: Table, parts: Split, found: Challenger, decision: Decision
) -> Iterator[tuple[Bundle, Path]]:
    """Give the challenger's bundle, proven, and where it lies for as long as the block lasts."""
    run = found.run
    if found.version is None and tracking_tags.MODEL_ID not in run.tags:
        decision.reasons.append("the run kept no bundle: it was fitted again from its config")
        _refit(store, table, parts, run)
        run = store.runs.get(run.id)
    source = f"{cfg.registered_model}/{found.version}" if found.version else run.tags[tracking_tags.MODEL_ID]
    with store.artifacts.bundle(f"models:/{source}") as folder:
        yield Bundle.read(folder), folder


def _refit(store: Store, table: Table, parts: Split, run: RunRecord) -> None:
    left: list[Evidence] = []
    bundle, metrics = build(store.artifacts.read_config(run.id), table, parts, run.id, after_fit=left.append)
    off = abs(metrics["rmse"] - run.metrics["rmse"])
    if off > 1e-3 * run.metrics["rmse"]:
        raise BundleError(
            f"fitted again, run {run.id} gives a validation rmse of {metrics['rmse']:.6f}; it had {run.metrics['rmse']:.6f}"
        )
    with tempfile.TemporaryDirectory(prefix="housing-") as place:
        bundle.write(Path(place) / BUNDLE)
        left[0].write(Path(place) / EVIDENCE)
        keep(run.run, Path(place), table.schema)
    run.run.log(tags={"housing.refitted": "true"})


def _require_of_table(bundle: Bundle, table: Table, found: Challenger) -> None:
    if bundle.schema.interface() != table.schema.interface():
        differ = [*bundle.schema.broken_for(table.schema), *table.schema.broken_for(bundle.schema)]
        raise StoreError(
            f"run {found.run.id} was fitted on other columns than table {table.schema.name} has now ({'; '.join(differ)});"
            " train again, or call promote with the data of the run"
        )


def leave(decision: Decision, out: Path) -> None:
    """Write a decision as a file, for programs."""
    with written_whole(out) as partial:
        partial.write_text(decision.to_json(), encoding="utf-8")
