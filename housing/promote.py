"""Entry: prove the best run on the test rows, and only then give it to the servers.

python -m housing.promote data=california
"""

import json
import math
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from housing import console, data, honest, tracking
from housing.build import build
from housing.bundle import Bundle
from housing.config import command
from housing.data import Table
from housing.errors import BundleError, ConfigError, StoreError
from housing.evidence import Evidence
from housing.export import RUN_ID
from housing.records import HOLD, PROMOTE, REJECT, Decision, Outcome
from housing.run import BUNDLE, EVIDENCE, keep
from housing.schema import Vector
from housing.scores import require_comparable, score
from housing.split import Split, split
from housing.sweep import LIST, best_of
from housing.tracking import Store, Tracked

ALIAS = re.compile(r"(?!(latest|v\d+)$)[\w-]+", re.ASCII | re.IGNORECASE)  # what MLflow takes for none of its own words
QUICK, HONEST = "quick", "honest"  # how much is found out about a challenger


@dataclass(frozen=True)
class Champion:
    """What the challenger has to beat, with its predictions for the test rows."""

    name: str
    predictions: Vector
    version: str | None = None
    run_id: str | None = None


def promote(cfg: DictConfig) -> Decision:
    """Judge a run against the champion; where it is not worse, register it and move the alias.

    The decision is recorded as a run of its own, whatever it is. Raises StoreError where there is no run to judge.
    """
    require_comparable(cfg.metric)
    if not isinstance(cfg.margin, int | float) or not math.isfinite(cfg.margin):
        raise ConfigError(f"margin is {cfg.margin!r}; allowed: a finite number, in the unit of the target")
    if not ALIAS.fullmatch(str(cfg.alias)):
        raise ConfigError(f"alias is {cfg.alias!r}; allowed: letters, digits, - and _, but neither latest nor v and a number")
    evaluate = _how_thorough(cfg)
    store = tracking.connect(cfg.mlflow)
    table = data.load(cfg.data, cfg.limit)
    parts = split(table, cfg.split)
    run = challenger(cfg, store, table, parts)
    tags = {tracking.KIND: "decision", tracking.DATA: table.fingerprint, tracking.SPLIT: parts.fingerprint()}
    tags |= {tracking.CHALLENGER: run.id}
    with store.run(cfg.decisions, f"{cfg.alias} {run.id[:8]}", tags) as record:
        decision = decide(cfg, store, table, parts, run, evaluate)
        record.log({"alias": cfg.alias, "margin": cfg.margin}, _metrics(decision), {"housing.verdict": decision.verdict})
        if decision.honest is not None:
            record.text(tracking.HONEST, _as_json(decision.honest.to_dict()))
            record.log(tags={tracking.EVALUATED: HONEST})
        if decision.verdict == PROMOTE:
            _move_alias(cfg, store, decision)
        record.text("decision.json", _as_json({**asdict(decision), "honest": None}))
    return decision


def _how_thorough(cfg: DictConfig) -> str:
    if cfg.evaluate not in (None, QUICK, HONEST):
        raise ConfigError(f"evaluate is {cfg.evaluate!r}; allowed: {QUICK}, {HONEST}, or null for what the alias asks")
    return str(cfg.evaluate or (HONEST if cfg.alias == "production" else QUICK))


def _metrics(decision: Decision) -> dict[str, float]:
    metrics = {f"challenger_{name}": value for name, value in decision.challenger_metrics.items()}
    metrics |= {f"champion_{name}": value for name, value in decision.champion_metrics.items()}
    return metrics if decision.honest is None else metrics | decision.honest.metrics()


def _as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def challenger(cfg: DictConfig, store: Store, table: Table, parts: Split) -> Tracked:
    """Find the run to judge: the one asked for, or the best of a sweep, of some files, or on this table and split.

    Raises StoreError where there is none, or where it was fitted on other data or another split: rows that it was
    fitted on may then be among the test rows.
    """
    asked = [name for name in ("run_id", "sweep", "candidates") if cfg[name]]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} are given; allowed: one of them")
    if asked:
        run = _best_of_files(cfg, store) if cfg.candidates else store.get(cfg.run_id or _best_of_sweep(cfg, store))
        _require_comparable(run, table, parts)
        return run
    tags = {tracking.KIND: "run", tracking.DATA: table.fingerprint, tracking.SPLIT: parts.fingerprint()}
    tags[tracking.EVALUATION] = cfg.evaluation
    found = store.first(cfg.experiment_name, tags, f"metrics.{cfg.metric} ASC")
    if found is None:
        raise StoreError(
            f"experiment {cfg.experiment_name} has no finished run on this table and split with evaluation={cfg.evaluation};"
            " train first:"
            f" python -m housing.train -m data={cfg.data.name} model=linear,decision_tree,xgboost"
        )
    return found


def _best_of_sweep(cfg: DictConfig, store: Store) -> str:
    best = best_of([Outcome(**outcome) for outcome in json.loads(store.text(cfg.sweep, LIST))], cfg.metric)
    if best is None:
        raise StoreError(f"sweep {cfg.sweep} has no finished run")
    return str(best.run_id)


def _best_of_files(cfg: DictConfig, store: Store) -> Tracked:
    """Give the run with the least metric of those that files name. Raises StoreError where this store does not know it."""
    try:
        read = {name: json.loads(Path(name).read_text(encoding="utf-8")) for name in cfg.candidates}
        best = min(read, key=lambda name: float(read[name][cfg.metric]))
        run_id = str(read[best][RUN_ID])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"candidates={list(cfg.candidates)}: {type(error).__name__}: {error}; allowed: files that housing.train export= wrote"
        ) from error
    try:
        return store.get(run_id)
    except StoreError as error:
        raise StoreError(
            f"{error}, which {best} names: that file is from another place or time, such as DVC's cache. Fit it here"
            " (dvc repro --force), or name the store that has the run (mlflow=server)"
        ) from error


def _require_comparable(run: Tracked, table: Table, parts: Split) -> None:
    if run.status != "FINISHED" or run.tags.get(tracking.KIND) != "run":
        raise StoreError(f"run {run.id} is a {run.tags.get(tracking.KIND)} that is {run.status}; allowed: a run that is FINISHED")
    for what, tag, present in (("table", tracking.DATA, table.fingerprint), ("split", tracking.SPLIT, parts.fingerprint())):
        if run.tags.get(tag) != present:
            raise StoreError(
                f"run {run.id} was fitted on another {what} ({run.tags.get(tag)}) than the present one ({present});"
                " train again, or call promote with the data and split of the run"
            )


def decide(cfg: DictConfig, store: Store, table: Table, parts: Split, run: Tracked, evaluate: str = QUICK) -> Decision:
    """Score challenger and champion on the same test rows, and say what follows.

    With `evaluate="honest"` more is found out about the challenger; the verdict does not hang on it.
    """
    decision = Decision(run.id, cfg.alias, test_rows=len(parts.test))
    decision.version = store.version_at(cfg.registered_model, cfg.alias)
    try:
        bundle = _challenger_bundle(store, table, parts, run, decision.reasons)
    except BundleError as error:
        decision.verdict = REJECT
        decision.reasons.append(str(error))
        return decision
    champion = _champion(cfg, store, table, parts, decision)
    actual = table.target[parts.test]
    decision.champion = champion.name
    decision.challenger_metrics = score(bundle.predict(table.matrix[parts.test]), actual)
    decision.champion_metrics = score(champion.predictions, actual)
    decision.verdict, reason = _judge(cfg, decision, champion)
    decision.reasons.append(reason)
    if evaluate == HONEST:
        decision.honest = honest.evaluate(cfg, store.config(run.id), table, parts, bundle)
    return decision


def _move_alias(cfg: DictConfig, store: Store, decision: Decision) -> None:
    """Register the run and point the alias to it. MLflow cannot compare and set, so this looks once more just before."""
    registered = store.register(cfg.registered_model, decision.run_id)
    now = store.version_at(cfg.registered_model, cfg.alias)
    if now != decision.version:
        raise StoreError(f"{cfg.alias} moved to version {now} while this run was judged; promote again to be judged against it")
    store.point(cfg.registered_model, cfg.alias, registered)
    decision.version = registered


def _judge(cfg: DictConfig, decision: Decision, champion: Champion) -> tuple[str, str]:
    mine, theirs = decision.challenger_metrics[cfg.metric], decision.champion_metrics[cfg.metric]
    if champion.run_id == decision.run_id:
        return HOLD, f"this run is {champion.name} at {cfg.alias} already"
    figures = f"test {cfg.metric} {mine:.4f} against {theirs:.4f} of {champion.name}, margin {cfg.margin:g}"
    return (PROMOTE, figures) if mine <= theirs + cfg.margin else (REJECT, f"worse: {figures}")


def _challenger_bundle(store: Store, table: Table, parts: Split, run: Tracked, reasons: list[str]) -> Bundle:
    if tracking.MODEL_ID not in run.tags:
        reasons.append("the run kept no bundle: it was fitted again from its config")
        return _refit(store, table, parts, run)
    with store.bundle(f"models:/{run.tags[tracking.MODEL_ID]}") as folder:
        return Bundle.read(folder)


def _refit(store: Store, table: Table, parts: Split, run: Tracked) -> Bundle:
    left: list[Evidence] = []
    bundle, metrics = build(store.config(run.id), table, parts, run.id, after_fit=left.append)
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
    return bundle


def _champion(cfg: DictConfig, store: Store, table: Table, parts: Split, decision: Decision) -> Champion:
    """Give the version at the alias; the training mean stands in where there is none, or none that can be read."""
    version = decision.version
    mean = Champion("the training mean", np.full(len(parts.test), table.target[parts.train].mean()))
    if version is None:
        return mean
    try:
        with store.bundle(f"models:/{cfg.registered_model}/{version}") as folder:
            bundle = Bundle.read(folder)
    except BundleError as error:  # no server can load it either
        decision.reasons.append(f"version {version} at {cfg.alias} is damaged, so the training mean stands in for it: {error}")
        return mean
    if bundle.schema.interface() != table.schema.interface():
        raise StoreError(
            f"{cfg.registered_model} version {version} has other columns than table {table.schema.name}: they cannot be compared"
        )
    if (bundle.card["split"], bundle.card["data"]["fingerprint"]) != (parts.fingerprint(), table.fingerprint):
        decision.reasons.append("the champion was fitted on other data or another split: it may know some of the test rows")
    return Champion(f"version {version}", bundle.predict(table.matrix[parts.test]), version, bundle.card["run_id"])


@command("promote")
def main(cfg: DictConfig) -> None:
    """Promote, print the decision, and end with exit code 1 where the run is rejected."""
    decision = promote(cfg)
    console.show_decision(decision, cfg)
    if decision.verdict == REJECT:
        sys.exit(1)


if __name__ == "__main__":
    main()
