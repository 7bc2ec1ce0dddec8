"""Promotion: judge a challenger against the champion, and move the alias if it is significantly better."""

from pathlib import Path

from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.bundle.file_format import CHECKSUMS
from housing.command_line.next_command import next_command
from housing.core.errors import BundleError, SmokeTestTimeout, UntrustedConfigError
from housing.core.files import atomic_write, sha256
from housing.evaluation.evaluate import evaluate
from housing.evaluation.slices import make_slices, select
from housing.promotion import canary, decision_log, gate, version_text
from housing.promotion.challenger import Challenger, find_challenger, open_bundle, require_same_columns
from housing.promotion.champion import Champion, find_champion
from housing.promotion.decision import HOLD, PENDING, PROMOTE, REJECT, Check, Decision
from housing.promotion.decision_events import send_decision
from housing.promotion.settings import FULL, AliasSettings, PromotionSettings
from housing.promotion.test_set import TestSet
from housing.scoring.metrics import measure_cost, score
from housing.serving.smoke_test import run_smoke_test
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import Run
from housing.tracking.store import Store


def promote(cfg: DictConfig) -> Decision:
    """Judge a run, or the version at the source alias, and move the alias to it if the gate says so.

    If the alias requires approval, the decision is only a request, PENDING, and the alias stays. Every decision is logged as an
    MLflow run of its own.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    StoreError
        If there is nothing to judge.
    """
    settings = PromotionSettings.from_config(cfg)
    alias, store = settings.alias, tracking.connect(cfg.mlflow)
    with decision_log.exclusive(alias, store):
        if settings.canary_share:
            canary.require_possible(alias, store)
        test_set = TestSet.load(cfg)
        challenger = find_challenger(settings.challenger, alias, store, test_set)
        run_tags = {**test_set.tags(), tags.RUN_TYPE: "decision", tags.CHALLENGER: challenger.run.id}
        with store.runs.start(alias.experiment, f"{alias.name} {challenger.run.id[:8]}", run_tags) as record:
            decision = decide(settings, store, test_set, challenger)
            _apply(settings, store, record, test_set, challenger, decision)
        if decision.moves:
            decision_log.wait_for_server(alias, store, record, decision)
    send_decision(alias.events, alias.registered_model, decision, record.id)
    return decision


def _apply(
    settings: PromotionSettings, store: Store, record: Run, test_set: TestSet, challenger: Challenger, decision: Decision
) -> None:
    alias = settings.alias
    if decision.evaluation is not None:
        record.log_text(tags.EVALUATION_FILE, decision.evaluation.to_json())
        record.log(metrics=decision.evaluation.metrics(), tags={tags.EVALUATED: FULL})
    if decision.moves:
        version = challenger.version or _get_or_register(alias, store, test_set, decision.run_id)
        if alias.needs_approval:
            _request_approval(alias, decision, version)
            decision_log.save_decision(record, decision)
        elif settings.canary_share:
            canary.start(alias, store, record, decision, version, settings.canary_share)
        else:
            decision.version = version
            decision_log.apply_decision(alias, store, record, decision)
    else:
        _sign_present_version(alias, store, decision)
        decision_log.save_decision(record, decision)


def _sign_present_version(alias: AliasSettings, store: Store, decision: Decision) -> None:
    """Sign the version that is at the alias already, if the same run is judged again with a key."""
    present = decision.version
    is_same = decision.verdict == HOLD and present is not None and alias.signer is not None
    if is_same and store.registry.run_of_version(alias.registered_model, str(present)) == decision.run_id:
        decision_log.sign_version(alias, store, decision, str(present))


def _request_approval(alias: AliasSettings, decision: Decision, version: str) -> None:
    """Make a request of a decision to promote: the alias stays, until another person approves the version."""
    decision.verdict, decision.requested_version = PENDING, version
    decision.needs_signature = alias.signer is not None
    decision.reasons.append(
        f"{decision.alias} moves to version {version} once another person than {decision.actor} has approved it"
    )
    signing = ["signing_key=FILE"] if decision.needs_signature else []  # with the key of the person who approves
    decision.next_command = next_command("approve", f"alias={decision.alias}", f"version={version}", *signing)


def _get_or_register(alias: AliasSettings, store: Store, test_set: TestSet, run_id: str) -> str:
    """Return the version of a run's bundle. It already has one after a promotion that was interrupted."""
    model = alias.registered_model
    version = store.registry.version_of_run(model, run_id)
    if version is None:
        schema, run = test_set.table.schema, store.runs.get(run_id)  # with the tag of a bundle that promotion has fitted again
        texts = version_text.describe_model(schema.name, schema.target), version_text.describe_version(run, schema.target)
        version = store.registry.register(model, run_id, *texts)
    return version


def decide(settings: PromotionSettings, store: Store, test_set: TestSet, challenger: Challenger) -> Decision:
    """Score challenger and champion on the same test rows, check the challenger, and return the decision.

    A full evaluation says more about the challenger; it does not change the verdict.
    """
    alias = settings.alias
    current = store.registry.version_at(alias.registered_model, alias.name)
    decision = Decision(challenger.run.id, alias.name, alias.actor, current, version=current, test_rows=len(test_set))
    try:
        with open_bundle(challenger, alias.registered_model, store, test_set, decision.reasons) as (bundle, directory):
            decision.bundle_sha256 = sha256(directory / CHECKSUMS)
            require_same_columns(bundle, challenger, test_set)
            champion = find_champion(alias, current, store, test_set, decision.reasons)
            _judge(settings, test_set, bundle, champion, decision)
            if decision.difference is not None:  # the challenger is not the champion itself
                concerns = [champion.unreadable_reason, _rollback_concern(alias, store, challenger, current)]
                _downgrade_to_hold(decision, concerns)
                _apply_force(settings, decision)
            if settings.is_full_evaluation:
                run_cfg = store.artifacts.read_config(challenger.run.id)
                decision.evaluation = evaluate(settings.evaluation, run_cfg, test_set.table, test_set.parts, bundle)
            if decision.moves and settings.gate.smoke_test_seconds is not None:
                run_smoke_test(settings.serve, bundle, directory, settings.gate.smoke_test_seconds)
                decision.checks.append(Check("smoke test", "a server predicts the golden rows", "equal to the bundle", True))
    except (BundleError, UntrustedConfigError) as error:  # no server could use the bundle, so `force` does not apply
        decision.verdict, decision.force_reason = REJECT, ""
        decision.reasons.append(str(error))
    except SmokeTestTimeout as error:  # says nothing about the model
        decision.verdict, decision.force_reason = HOLD, ""
        decision.reasons.append(str(error))
    return decision


def _judge(settings: PromotionSettings, test_set: TestSet, bundle: Bundle, champion: Champion, decision: Decision) -> None:
    """Compare bundle and champion, and add scores, checks, verdict and reasons to the decision."""
    matrix, actual, predictable = test_set.matrix_for(bundle.schema), test_set.actual, champion.predictable
    predicted = bundle.predict(matrix)
    decision.champion = champion.name
    weight = select(test_set.weight, predictable)
    decision.challenger_metrics = score(predicted[predictable], actual[predictable], weight)
    decision.champion_metrics = score(champion.predictions, actual[predictable], weight)
    if champion.run_id == decision.run_id:
        decision.reasons.append(f"this run is already {champion.name} at {decision.alias}")
        return
    challenger_error, champion_error = (predicted - actual)[predictable], champion.predictions - actual[predictable]
    units = None if test_set.units is None else test_set.units.take(predictable)
    decision.difference = gate.compare_overall(settings.gate, challenger_error, champion_error, units, weight)
    decision.checks += [
        *gate.columns_check(bundle.schema, champion.schema),
        *gate.coverage_check(settings.gate, bundle, matrix, actual, test_set.units, test_set.weight),
        *gate.cost_checks(settings.gate, measure_cost(bundle, matrix)),
    ]
    if champion.run_id is not None:  # the baseline is hard to beat on slices near the mean, so it is no fair reference there
        slices = make_slices(test_set.table, test_set.parts.test[predictable], settings.evaluation.slices)
        decision.checks += gate.slice_checks(settings.gate, slices, challenger_error, champion_error, units, weight)
    decision.verdict = gate.decide_verdict(decision.difference, decision.checks)
    decision.reasons += [
        f"{check.name} check failed: {check.actual} (limit: {check.limit})" for check in decision.checks if not check.passed
    ]
    decision.reasons.append(gate.describe(settings.gate, decision.difference, champion.name))
    notes = (gate.describe_units(decision.difference), gate.describe_concentration(decision.difference))
    decision.reasons += [note for note in notes if note]


def _downgrade_to_hold(decision: Decision, concerns: list[str]) -> None:
    """Leave the decision to a person if there are concerns that scores cannot settle."""
    present = [concern for concern in concerns if concern]
    decision.reasons += present
    if present and decision.verdict == PROMOTE:
        decision.verdict = HOLD


def _rollback_concern(alias: AliasSettings, store: Store, challenger: Challenger, current: str | None) -> str:
    """Return a sentence if the challenger was rolled back from this alias, else ""."""
    version = challenger.version or store.registry.version_of_run(alias.registered_model, challenger.run.id)
    if version is None:
        return ""
    decisions = decision_log.list_decisions(store, alias.experiment, alias.name)
    rollback = decision_log.find_rollback(decisions, version, current or "")
    if rollback is None:
        return ""
    reason = rollback.reason or "no reason given"
    return f"version {version} was rolled back by {rollback.actor} ({rollback.decided_at:%Y-%m-%d %H:%M}): {reason}"


def _apply_force(settings: PromotionSettings, decision: Decision) -> None:
    """Promote against the verdict if the user says so. For a HOLD, name the command that would."""
    if settings.force_reason:
        decision.reasons.append(f"forced against the verdict {decision.verdict}: {settings.force_reason}")
        decision.verdict, decision.force_reason = PROMOTE, settings.force_reason
    elif decision.verdict == HOLD:
        selector = [] if settings.challenger.source_alias else [f"run_id={decision.run_id}"]
        canary_share = [f"canary={settings.canary_share:g}"] if settings.canary_share else []
        overrides = (f"alias={decision.alias}", *selector, *canary_share, "force=true", "force_reason=REASON")
        decision.next_command = next_command("promote", *overrides)


def write_decision(decision: Decision, path: Path) -> None:
    """Write a decision as a JSON file."""
    with atomic_write(path) as partial:
        partial.write_text(decision.to_json(), encoding="utf-8")
