"""TODO docstring."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from housing.core.environment import PROJECT
from housing.core.errors import HousingError, StoreError
from housing.core.validators import NOT_NEGATIVE, Allowed, require, whole
from housing.data import dvc
from housing.data import table as data
from housing.data.download import fetch
from housing.operations.retraining_summary import NO_NEW_TRUTH, NOTHING_NEW, Retraining
from housing.promotion import decision_log
from housing.promotion.decision import PROMOTE
from housing.runs.outcome import Outcome
from housing.runs.run_key import retraining_key
from housing.sweeps.sweep import LIST
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store

OF_PROJECT = "housing."  # begins the name of each tag


KEY, STARTED_BY, ROWS, NEW_ROWS, RETRAINED = (
    f"{OF_PROJECT}{name}" for name in ("retraining", "started_by", "rows", "new_rows", "retrained")
)


GIVEN = ("run_id=", "sweep=", "candidates=", "to=")  # follow from the sweep and `alias`


OVERRIDES = Allowed("a list of texts", lambda value: isinstance(value, ListConfig) and all(isinstance(one, str) for one in value))


OURS = {tracking_tags.RUN_TYPE: "sweep", STARTED_BY: "retrain"}


NEWEST = "attributes.start_time DESC"


GATE = Allowed(
    f"{OVERRIDES.words} that begin with none of {' '.join(GIVEN)}",
    lambda value: OVERRIDES.holds(value) and not any(one.startswith(GIVEN) for one in value),
)


ALLOWED = {"sweep": OVERRIDES, "gate": GATE, "min_new_rows": whole(0), "patience": NOT_NEGATIVE}


SHARED = re.compile(r"\+*(data|mlflow|paths|experiment_name)[.=]|hydra\.searchpath=")  # what each step is told too


OF_GATE = re.compile(r"\+*(registered_model|decisions|by|serve)[.=]")  # of the command line, what the gate is told too


def retrain(cfg: DictConfig) -> Retraining:
    """Do what is not done yet for the present version of the table, with the present config and code.

    Each step leaves its mark in the store, so what was cut off goes on where it was, and what is done is not done again.
    """
    require(cfg, ALLOWED)
    with _alone(cfg):
        return _retrain(cfg)


def _retrain(cfg: DictConfig) -> Retraining:
    print(fetch(cfg.data), flush=True)
    table = data.load(cfg.data)
    store = tracking_store.connect(cfg.mlflow)
    key = key_of(cfg, table.fingerprint)
    sweep = _find(store, cfg, {KEY: key})
    result = Retraining(cfg.data.name, table.fingerprint, len(table), len(table) - _rows_before(store, cfg), cfg.alias)
    idle = _nothing_to_do(cfg, sweep, result.new_rows)
    if idle is None:
        return _do(cfg, store, sweep or _swept(cfg, store, key, result), result)
    result.verdict, reason = idle
    result.reasons.append(reason)
    result.publish(Path(cfg.summary), Path(cfg.outputs))
    return result


def key_of(cfg: DictConfig, fingerprint: str) -> str:
    """Give what a retraining of a config on a version of the table is known by."""
    declared: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return retraining_key(fingerprint, declared, cfg.sweep)


def _nothing_to_do(cfg: DictConfig, sweep: RunRecord | None, new_rows: int) -> tuple[str, str] | None:
    """Say what there is instead of a retraining, and why; None where there is something to do, or to go on with."""
    if sweep is not None and RETRAINED not in sweep.tags:
        return None
    if 0 < cfg.min_new_rows and new_rows < cfg.min_new_rows:  # a table may lose rows, and is learned from all the same
        return NO_NEW_TRUTH, f"a retraining takes {cfg.min_new_rows:,} new labelled rows"
    if sweep is not None:
        return NOTHING_NEW, "this table was swept and judged already, with the same config, code and libraries"
    return None


def _do(cfg: DictConfig, store: Store, sweep: RunRecord, result: Retraining) -> Retraining:
    """Do what comes after the sweep; its last mark says that all is done."""
    decision = _judged(cfg, store, sweep, result.fingerprint)
    _push(Path(cfg.data.path))
    version = store.registry.version_at(cfg.registered_model, cfg.alias)
    result = replace(
        result,
        new_rows=int(sweep.tags[NEW_ROWS]),
        verdict=decision.tags[tracking_tags.VERDICT],
        reasons=json.loads(store.artifacts.read_text(decision.id, decision_log.FIGURES))["reasons"],
        version=version or "",
        moved=version is not None and _was_moved(cfg, store, sweep, version),
        sweep=sweep.id,
        jobs=[Outcome(**job) for job in json.loads(store.artifacts.read_text(sweep.id, LIST))],
        tested=decision.metrics,
    )
    result.publish(Path(cfg.summary), Path(cfg.outputs))
    sweep.run.log(tags={RETRAINED: result.verdict})
    return result


def _find(store: Store, cfg: DictConfig, tags: dict[str, str]) -> RunRecord | None:
    """Give the newest finished sweep of a retraining with these tags."""
    return store.runs.find_first(cfg.experiment_name, {**OURS, **tags}, NEWEST)


def _rows_before(store: Store, cfg: DictConfig) -> int:
    """Give how many rows the last retraining learned from that came to its end; 0 where there was none."""
    sweeps = store.runs.find_latest(cfg.experiment_name, OURS, decision_log.MANY)
    return next((int(sweep.tags[ROWS]) for sweep in sweeps if RETRAINED in sweep.tags), 0)


def _swept(cfg: DictConfig, store: Store, key: str, result: Retraining) -> RunRecord:
    """Sweep, and give the finished sweep. The tags are quoted, so that digits stay a text."""
    tags = {STARTED_BY: OURS[STARTED_BY], KEY: key, tracking_tags.DATA: result.fingerprint}
    tags |= {ROWS: str(result.rows), NEW_ROWS: str(result.new_rows)}
    quoted = (f"+tags.{name.removeprefix(OF_PROJECT)}='{value}'" for name, value in tags.items())
    _run("housing.train", "-m", *cfg.sweep, *quoted)
    sweep = _find(store, cfg, {KEY: key})
    if sweep is None:
        raise HousingError("the sweep is not finished; it says above why. The same command goes on from here")
    return sweep


def _judged(cfg: DictConfig, store: Store, sweep: RunRecord, fingerprint: str) -> RunRecord:
    """Ask the gate about the best run of a sweep, and give its decision."""
    best = sweep.tags[tracking_tags.BEST_RUN]
    about = {
        tracking_tags.RUN_TYPE: "decision",
        tracking_tags.CHALLENGER: best,
        tracking_tags.DATA: fingerprint,
        tracking_tags.ALIAS: cfg.alias,
    }
    before = store.runs.find_first(cfg.decisions, about, NEWEST)
    _run(
        "housing.promote", f"run_id={best}", f"to={cfg.alias}", *_of_command_line(OF_GATE), *cfg.gate
    )  # its exit code is 1 for a REJECT and for an error
    decision = store.runs.find_first(cfg.decisions, about, NEWEST)
    if decision is None or (before is not None and decision.id == before.id):
        raise StoreError("the gate came to no decision; it says above why. The same command asks it again")
    return decision


def _was_moved(cfg: DictConfig, store: Store, sweep: RunRecord, version: str) -> bool:
    """Whether the alias came to a version of this sweep since that began; the promotion may have been cut off afterwards."""
    past = decision_log.past(store, cfg.decisions, cfg.alias)
    promoted = any(one.verdict == PROMOTE and one.version == version and one.at >= sweep.started_at for one in past)
    return promoted and store.registry.run_of_version(cfg.registered_model, version) == sweep.tags[tracking_tags.BEST_RUN]


def _run(module: str, *arguments: str) -> None:
    """Run a command of the project, with what all share of this command line. What came of it is in the store."""
    sources = HydraConfig.get().runtime.config_sources
    folders = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
    asked = [module, *folders, *arguments, *_of_command_line(SHARED)]  # -m comes before all overrides
    print(f"\n$ python -m {' '.join(asked)}", flush=True)
    with subprocess.Popen([sys.executable, "-m", *asked], cwd=PROJECT) as process:
        try:
            process.wait()
        except BaseException:  # told to stop: the step closes what it has open
            process.terminate()
            raise


def _of_command_line(which: re.Pattern[str]) -> list[str]:
    told = HydraConfig.get().overrides
    return [override for override in (*told.hydra, *told.task) if which.match(override)]


def _push(path: Path) -> None:
    """See that others can have the version that was learned from."""
    if dvc.named(path) is None:
        print(f"\nthe table is not under DVC, so nobody else has this version; to keep it: dvc add {path}", flush=True)
        return
    dvc.save(path)  # what came from the public source is not in the cache yet
    dvc.push(path)
    print(f"\n{path.name} is in DVC's remote", flush=True)


@contextmanager
def _alone(cfg: DictConfig) -> Iterator[None]:
    """Keep others from retraining in this clone. Raises HousingError where one takes longer than `patience` seconds."""
    Path(cfg.lock).parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cfg.lock, timeout=cfg.patience):
            yield
    except Timeout as error:
        raise HousingError(
            f"another process has been retraining on table {cfg.data.name} for {cfg.patience} s; try again when it is through"
        ) from error
