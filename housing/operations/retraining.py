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
from housing.core.validators import NON_NEGATIVE, Validator, integer, validate
from housing.data import dvc
from housing.data import table as data
from housing.data.download import fetch_table
from housing.operations.retraining_summary import NO_NEW_LABELS, UP_TO_DATE, RetrainingSummary
from housing.promotion import decision_log
from housing.promotion.decision import PROMOTE
from housing.runs.outcome import Outcome
from housing.runs.run_key import retraining_key
from housing.sweeps.sweep import JOBS_FILE
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store

TAG_PREFIX = "housing."  # begins the name of each tag


KEY_TAG, STARTED_BY_TAG, ROWS_TAG, NEW_ROWS_TAG, RETRAINED_TAG = (
    f"{TAG_PREFIX}{name}" for name in ("retraining", "started_by", "rows", "new_rows", "retrained")
)


RESERVED_OVERRIDES = ("run_id=", "sweep=", "metrics_files=", "alias=")  # follow from the sweep and `alias`


OVERRIDE_LIST = Validator(
    "a list of texts", lambda value: isinstance(value, ListConfig) and all(isinstance(one, str) for one in value)
)


RETRAIN_TAGS = {tracking_tags.RUN_TYPE: "sweep", STARTED_BY_TAG: "retrain"}


NEWEST_FIRST = "attributes.start_time DESC"


PROMOTE_OVERRIDES = Validator(
    f"{OVERRIDE_LIST.description} that begin with none of {' '.join(RESERVED_OVERRIDES)}",
    lambda value: OVERRIDE_LIST.is_valid(value) and not any(one.startswith(RESERVED_OVERRIDES) for one in value),
)


ALLOWED = {
    "sweep_overrides": OVERRIDE_LIST,
    "promote_overrides": PROMOTE_OVERRIDES,
    "min_new_rows": integer(0),
    "lock_timeout": NON_NEGATIVE,
}


FORWARDED = re.compile(r"\+*(data|mlflow|paths|experiment_name)[.=]|hydra\.searchpath=")  # what each step is told too


GATE_FORWARDED = re.compile(
    r"\+*(registered_model|decisions_experiment|actor|serve)[.=]"
)  # of the command line, what the gate is told too


def retrain(cfg: DictConfig) -> RetrainingSummary:
    """Do what is not done yet for the present version of the table, with the present config and code.

    Each step leaves its mark in the store, so what was cut off goes on where it was, and what is done is not done again.
    """
    validate(cfg, ALLOWED)
    with _exclusive(cfg):
        return _retrain(cfg)


def _retrain(cfg: DictConfig) -> RetrainingSummary:
    print(fetch_table(cfg.data), flush=True)
    table = data.load(cfg.data)
    store = tracking_store.connect(cfg.mlflow)
    key = compute_key(cfg, table.fingerprint)
    sweep = _find_sweep(store, cfg, {KEY_TAG: key})
    result = RetrainingSummary(
        cfg.data.name, table.fingerprint, len(table), len(table) - _rows_at_last_retraining(store, cfg), cfg.alias
    )
    idle = _idle_verdict(cfg, sweep, result.new_rows)
    if idle is None:
        return _finish(cfg, store, sweep or _run_sweep(cfg, store, key, result), result)
    result.verdict, reason = idle
    result.reasons.append(reason)
    result.append_to_files(Path(cfg.summary_file), Path(cfg.output_file))
    return result


def compute_key(cfg: DictConfig, fingerprint: str) -> str:
    """Give what a retraining of a config on a version of the table is known by."""
    declared: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return retraining_key(fingerprint, declared, cfg.sweep_overrides)


def _idle_verdict(cfg: DictConfig, sweep: RunRecord | None, new_rows: int) -> tuple[str, str] | None:
    """Say what there is instead of a retraining, and why; None where there is something to do, or to go on with."""
    if sweep is not None and RETRAINED_TAG not in sweep.tags:
        return None
    if cfg.min_new_rows > 0 and new_rows < cfg.min_new_rows:  # a table may lose rows, and is learned from all the same
        return NO_NEW_LABELS, f"a retraining takes {cfg.min_new_rows:,} new labelled rows"
    if sweep is not None:
        return UP_TO_DATE, "this table was swept and judged already, with the same config, code and libraries"
    return None


def _finish(cfg: DictConfig, store: Store, sweep: RunRecord, result: RetrainingSummary) -> RetrainingSummary:
    """Do what comes after the sweep; its last mark says that all is done."""
    decision = _run_gate(cfg, store, sweep, result.fingerprint)
    _push_table(Path(cfg.data.path))
    version = store.registry.version_at(cfg.registered_model, cfg.alias)
    result = replace(
        result,
        new_rows=int(sweep.tags[NEW_ROWS_TAG]),
        verdict=decision.tags[tracking_tags.VERDICT],
        reasons=json.loads(store.artifacts.read_text(decision.id, decision_log.DECISION_FILE))["reasons"],
        version=version or "",
        moved=version is not None and _was_moved(cfg, store, sweep, version),
        sweep=sweep.id,
        jobs=[Outcome(**job) for job in json.loads(store.artifacts.read_text(sweep.id, JOBS_FILE))],
        gate_metrics=decision.metrics,
    )
    result.append_to_files(Path(cfg.summary_file), Path(cfg.output_file))
    sweep.run.log(tags={RETRAINED_TAG: result.verdict})
    return result


def _find_sweep(store: Store, cfg: DictConfig, tags: dict[str, str]) -> RunRecord | None:
    """Give the newest finished sweep of a retraining with these tags."""
    return store.runs.find_first(cfg.experiment_name, {**RETRAIN_TAGS, **tags}, NEWEST_FIRST)


def _rows_at_last_retraining(store: Store, cfg: DictConfig) -> int:
    """Give how many rows the last retraining learned from that came to its end; 0 where there was none."""
    sweeps = store.runs.find_latest(cfg.experiment_name, RETRAIN_TAGS, decision_log.HISTORY_LIMIT)
    return next((int(sweep.tags[ROWS_TAG]) for sweep in sweeps if RETRAINED_TAG in sweep.tags), 0)


def _run_sweep(cfg: DictConfig, store: Store, key: str, result: RetrainingSummary) -> RunRecord:
    """Sweep, and give the finished sweep. The tags are quoted, so that digits stay a text."""
    tags = {STARTED_BY_TAG: RETRAIN_TAGS[STARTED_BY_TAG], KEY_TAG: key, tracking_tags.DATA: result.fingerprint}
    tags |= {ROWS_TAG: str(result.rows), NEW_ROWS_TAG: str(result.new_rows)}
    quoted = (f"+tags.{name.removeprefix(TAG_PREFIX)}='{value}'" for name, value in tags.items())
    _run_command("housing.train", "-m", *cfg.sweep_overrides, *quoted)
    sweep = _find_sweep(store, cfg, {KEY_TAG: key})
    if sweep is None:
        raise HousingError("the sweep is not finished; it says above why. The same command goes on from here")
    return sweep


def _run_gate(cfg: DictConfig, store: Store, sweep: RunRecord, fingerprint: str) -> RunRecord:
    """Ask the gate about the best run of a sweep, and give its decision."""
    best = sweep.tags[tracking_tags.BEST_RUN]
    about = {
        tracking_tags.RUN_TYPE: "decision",
        tracking_tags.CHALLENGER: best,
        tracking_tags.DATA: fingerprint,
        tracking_tags.ALIAS: cfg.alias,
    }
    before = store.runs.find_first(cfg.decisions_experiment, about, NEWEST_FIRST)
    _run_command(
        "housing.promote", f"run_id={best}", f"alias={cfg.alias}", *_forwarded_overrides(GATE_FORWARDED), *cfg.promote_overrides
    )  # its exit code is 1 for a REJECT and for an error
    decision = store.runs.find_first(cfg.decisions_experiment, about, NEWEST_FIRST)
    if decision is None or (before is not None and decision.id == before.id):
        raise StoreError("the gate came to no decision; it says above why. The same command asks it again")
    return decision


def _was_moved(cfg: DictConfig, store: Store, sweep: RunRecord, version: str) -> bool:
    """Whether the alias came to a version of this sweep since that began; the promotion may have been cut off afterwards."""
    past = decision_log.list_decisions(store, cfg.decisions_experiment, cfg.alias)
    promoted = any(one.verdict == PROMOTE and one.version == version and one.decided_at >= sweep.started_at for one in past)
    return promoted and store.registry.run_of_version(cfg.registered_model, version) == sweep.tags[tracking_tags.BEST_RUN]


def _run_command(module: str, *arguments: str) -> None:
    """Run a command of the project, with what all share of this command line. What came of it is in the store."""
    sources = HydraConfig.get().runtime.config_sources
    folders = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
    asked = [module, *folders, *arguments, *_forwarded_overrides(FORWARDED)]  # -m comes before all overrides
    print(f"\n$ python -m {' '.join(asked)}", flush=True)
    with subprocess.Popen([sys.executable, "-m", *asked], cwd=PROJECT) as process:
        try:
            process.wait()
        except BaseException:  # told to stop: the step closes what it has open
            process.terminate()
            raise


def _forwarded_overrides(pattern: re.Pattern[str]) -> list[str]:
    told = HydraConfig.get().overrides
    return [override for override in (*told.hydra, *told.task) if pattern.match(override)]


def _push_table(path: Path) -> None:
    """See that others can have the version that was learned from."""
    if dvc.tracked_version(path) is None:
        print(f"\nthe table is not under DVC, so nobody else has this version; to keep it: dvc add {path}", flush=True)
        return
    dvc.add(path)  # what came from the public source is not in the cache yet
    dvc.push(path)
    print(f"\n{path.name} is in DVC's remote", flush=True)


@contextmanager
def _exclusive(cfg: DictConfig) -> Iterator[None]:
    """Keep others from retraining in this clone. Raises HousingError where one takes longer than `patience` seconds."""
    Path(cfg.lock).parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cfg.lock, timeout=cfg.lock_timeout):
            yield
    except Timeout as error:
        raise HousingError(
            f"another process has been retraining on table {cfg.data.name} for {cfg.lock_timeout} s; try again when it is through"
        ) from error
