"""Metrics about training for Prometheus, in a text file that node exporter's textfile collector reads."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from housing.core.errors import HousingError
from housing.core.files import atomic_write
from housing.data import table as tables
from housing.operations.retraining import RETRAIN_TAGS, RETRAINED_TAG
from housing.promotion import decision_log
from housing.scoring.metrics import HIGHER_IS_BETTER, SCORES
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import SYSTEM, RunRecord
from housing.tracking.store import Store

MAX_RUNS = 50_000  # of one request to MLflow
STATUSES = ("FINISHED", "FAILED", "KILLED", "RUNNING")
QUANTILES = (0.5, 0.9, 1.0)  # of the durations of finished runs
N_MEASURED_RUNS = 100  # the newest runs, whose durations and memory are shown
METRICS = {
    "housing_training_runs": ("status", "Runs in MLflow by status."),
    "housing_training_last_run_timestamp_seconds": ("status", "End of the newest run by status, in seconds since 1970."),
    "housing_training_run_seconds": ("quantile", f"Durations of the newest {N_MEASURED_RUNS} finished runs."),
    "housing_training_peak_memory_bytes": ("", f"Largest memory of a process in the newest {N_MEASURED_RUNS} finished runs."),
    "housing_training_best_score": ("metric", "Best score of the finished runs on the rows of the newest one."),
    "housing_training_pending": ("", "1 if no run is finished on the present version of the table, else 0."),
    "housing_table_rows": ("", "Rows of the table."),
    "housing_table_info": ("fingerprint", "1, with the fingerprint of the table."),
    "housing_table_changed_timestamp_seconds": (
        "",
        "When the present version of the table was first seen, in seconds since 1970.",
    ),
    "housing_retraining_timestamp_seconds": ("verdict", "End of the newest finished retraining, with the verdict of its gate."),
    "housing_alias_version": ("alias", "The version at an alias."),
    "housing_alias_moved_timestamp_seconds": ("alias", "When the decision was made that moved the alias to its version."),
    "housing_alias_trained_timestamp_seconds": ("alias", "When the run of the version at an alias began."),
    "housing_metrics_exported_timestamp_seconds": ("", "When this file was written."),
}  # each has the label `table`, then the one named here, if any
CHANGED, INFO = "housing_table_changed_timestamp_seconds", "housing_table_info"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportedMetrics:
    """The written file, and some of what is in it.

    Attributes
    ----------
    path
        The file.
    runs
        The number of runs by status.
    is_pending
        Whether no run is finished on the present version of the table.
    """

    path: Path
    table: str
    fingerprint: str
    runs: dict[str, int]
    is_pending: bool


class _Exposition:
    """Metrics of a table, one value for each value of their label."""

    def __init__(self, table: str) -> None:
        self._registry, self._table = CollectorRegistry(), table

    def add(self, name: str, values: Mapping[str, float]) -> None:
        """Add a metric with a label. Without values, it is left out."""
        label, meaning = METRICS[name]
        gauge = Gauge(name, meaning, ["table", *([label] if label else [])], registry=self._registry)
        for key, value in values.items():
            gauge.labels(self._table, *([key] if label else [])).set(value)

    def add_one(self, name: str, value: float) -> None:
        """Add a metric without a label of its own."""
        self.add(name, {"": value})

    def write(self, path: Path) -> None:
        """Write all metrics, so that a reader sees the old file or the new one."""
        with atomic_write(path) as partial:
            partial.write_bytes(generate_latest(self._registry))


def export_metrics(cfg: DictConfig) -> ExportedMetrics:
    """Write the file `metrics_file`.

    Raises
    ------
    HousingError
        If the table or the store is missing, or the file cannot be written.
    """
    path, store, table = Path(cfg.metrics_file), tracking.connect(cfg.mlflow), tables.load(cfg.data)
    records = store.runs.find_latest(cfg.experiment_name, {tags.RUN_TYPE: "run"}, MAX_RUNS)
    finished = [record for record in records if record.status == "FINISHED"]
    is_pending = all(record.tags.get(tags.DATA) != table.fingerprint for record in finished)
    n_runs = {status: sum(record.status == status for record in records) for status in STATUSES}
    exposition = _Exposition(cfg.data.name)
    exposition.add("housing_training_runs", n_runs)
    exposition.add("housing_training_last_run_timestamp_seconds", _last_ends(records))
    _add_finished_runs(exposition, finished)
    exposition.add_one("housing_training_pending", float(is_pending))
    exposition.add_one("housing_table_rows", len(table))
    exposition.add(INFO, {table.fingerprint: 1})
    exposition.add_one(CHANGED, _changed_at(path, cfg.data.name, table.fingerprint, Path(cfg.data.path)))
    _add_retraining(exposition, store, cfg.experiment_name)
    _add_aliases(exposition, store, cfg)
    exposition.add_one("housing_metrics_exported_timestamp_seconds", time.time())
    exposition.write(path)
    return ExportedMetrics(path, cfg.data.name, table.fingerprint, n_runs, is_pending)


def export_after_retraining(cfg: DictConfig) -> None:
    """Write the file `metrics_file`, if the config names one. If that fails, say so and go on."""
    if cfg.metrics_file is None:
        return
    try:
        export_metrics(cfg)
    except (HousingError, OSError) as error:
        log.warning("The metrics about training were not written: %s", error)


def _last_ends(newest_first: Sequence[RunRecord]) -> dict[str, float]:
    ends = {record.status: _end(record) for record in reversed(newest_first)}
    return {status: end for status, end in ends.items() if status != "RUNNING"}


def _end(record: RunRecord) -> float:
    return record.started_at.timestamp() + record.seconds


def _add_finished_runs(exposition: _Exposition, newest_first: Sequence[RunRecord]) -> None:
    """Add durations, memory and best scores, if a run is finished."""
    if not newest_first:
        return
    measured = newest_first[:N_MEASURED_RUNS]
    durations = [record.seconds for record in measured]
    quantiles = {f"{share:g}": float(np.quantile(durations, share)) for share in QUANTILES}
    exposition.add("housing_training_run_seconds", quantiles)
    memory = max(record.system_metrics.get(f"{SYSTEM}peak_memory_megabytes", 0.0) for record in measured)
    exposition.add_one("housing_training_peak_memory_bytes", 1e6 * memory)
    exposition.add("housing_training_best_score", dict(_best_scores(newest_first)))


def _best_scores(newest_first: Sequence[RunRecord]) -> Iterator[tuple[str, float]]:
    """Yield the best value of each score of the runs that are comparable with the newest one."""
    comparable = [record for record in newest_first if _scored_rows(record) == _scored_rows(newest_first[0])]
    for name in SCORES:
        values = [record.metrics[name] for record in comparable if name in record.metrics]
        if values:
            yield name, max(values) if name in HIGHER_IS_BETTER else min(values)


def _scored_rows(record: RunRecord) -> tuple[str | None, ...]:
    return tuple(record.tags.get(name) for name in (tags.DATA, tags.SPLIT, tags.EVALUATION))


def _changed_at(path: Path, table: str, fingerprint: str, table_file: Path) -> float:
    """Return when the present version of the table was first seen.

    The previous file says so if the table has not changed since; a copy or download changes the time of the table's file only.
    """
    try:
        families = {family.name: family.samples for family in text_string_to_metric_families(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError):  # there is no previous file, or it is damaged
        families = {}
    is_known = any(sample.labels == {"table": table, "fingerprint": fingerprint} for sample in families.get(INFO, ()))
    times = [sample.value for sample in families.get(CHANGED, ()) if sample.labels["table"] == table]
    return times[0] if is_known and times else table_file.stat().st_mtime


def _add_retraining(exposition: _Exposition, store: Store, experiment: str) -> None:
    sweeps = store.runs.find_latest(experiment, RETRAIN_TAGS, decision_log.HISTORY_LIMIT)
    newest = next((sweep for sweep in sweeps if RETRAINED_TAG in sweep.tags), None)
    values = {} if newest is None else {newest.tags[RETRAINED_TAG]: _end(newest)}
    exposition.add("housing_retraining_timestamp_seconds", values)


def _add_aliases(exposition: _Exposition, store: Store, cfg: DictConfig) -> None:
    """Add version, move and age of each declared alias that is set."""
    found = {str(alias): store.registry.version_at(cfg.registered_model, str(alias)) for alias in cfg.aliases}
    versions = {alias: version for alias, version in found.items() if version is not None}
    moved, trained = dict[str, float](), dict[str, float]()
    for alias, version in versions.items():
        decisions = decision_log.list_decisions(store, cfg.decisions_experiment, alias)
        last_move = decision_log.find_last_move(decisions, version)
        if last_move is not None:  # not by hand
            moved[alias] = last_move.decided_at.timestamp()
        run = store.runs.get(store.registry.run_of_version(cfg.registered_model, version))
        trained[alias] = run.started_at.timestamp()
    exposition.add("housing_alias_version", {alias: float(version) for alias, version in versions.items()})
    exposition.add("housing_alias_moved_timestamp_seconds", moved)
    exposition.add("housing_alias_trained_timestamp_seconds", trained)
