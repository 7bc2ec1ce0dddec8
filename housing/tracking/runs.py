"""Runs: open, log to, close and find them."""

import logging
import math
import random
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from housing.core import processes
from housing.core.errors import TrialPruned
from housing.core.locks import store_file
from housing.core.resource_usage import ResourceMeter
from housing.schema.table_schema import Schema
from housing.tracking.client import Client
from housing.tracking.heartbeat import Heartbeat
from housing.tracking.lineage import BundleFlavor, DatasetVersion, Rows, signature_of
from housing.tracking.not_found import run_not_found
from housing.tracking.tags import (
    ARTIFACT,
    BATCH,
    CRASH_MESSAGE,
    ERROR,
    FORMAT,
    MODEL_ID,
    PARAM_LENGTH,
    PARENT,
    TAG_FORMAT,
    key_tag,
    require_current_format,
)

CLAIM_POLL_SECONDS = 1.0  # between two looks at a run that another process has open
MAX_CLAIMS = 100  # runs with the same key that are looked at, newest first
WITHDRAWAL_SECONDS = (0.1, 2.0)  # bounds of the random time after which a process that withdrew tries again
LOADER_MODULE = "housing.bundle"  # MLflow calls its `_load_pyfunc`
SYSTEM = "system/"  # begins the name of a metric about the machine; MLflow's pages show these apart

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRecord:
    """A run as the store has it. `seconds` is its duration, NaN until it ends.

    `metrics` are about the model, `system_metrics` about the machine. Two equal runs differ in the latter.
    """

    run: "Run"
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    system_metrics: dict[str, float]
    tags: dict[str, str]
    started_at: datetime
    seconds: float

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return self.run.id


@dataclass(frozen=True)
class Run:
    """A run to log to."""

    client: Client
    heartbeat: Heartbeat
    id: str
    experiment_id: str
    artifact_uri: str

    @property
    def link(self) -> str:
        """Address of the run in MLflow's pages."""
        return f"{self.client.ui.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.id}"

    def log(
        self,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        """Log in as few calls as MLflow allows. `resources` are what the run has used so far."""
        api = self.client.api
        shortened = [Param(name, _truncate(str(value))) for name, value in (params or {}).items()]
        for start in range(0, len(shortened), BATCH):
            api.log_batch(self.id, params=shortened[start : start + BATCH])
        if metrics or tags:  # time and step say nothing if each metric has one value
            values = [Metric(name, value, timestamp=0, step=0) for name, value in (metrics or {}).items()]
            values += _current_metrics({f"{SYSTEM}{name}": value for name, value in (resources or {}).items()})
            api.log_batch(self.id, metrics=values, tags=[RunTag(name, value) for name, value in (tags or {}).items()])

    def log_current_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics that can be measured again later: MLflow shows the latest values, and keeps the previous ones."""
        self.client.api.log_batch(self.id, metrics=_current_metrics(metrics))

    @contextmanager
    def measuring_resources(self) -> Iterator[None]:
        """Log the resources that the block uses, unless it fails."""
        meter = ResourceMeter()
        yield
        self.log_current_metrics({f"{SYSTEM}{name}": value for name, value in meter.read().items()})

    def fail(self) -> None:
        """End the run as FAILED, with the traceback of the current exception as an artifact."""
        self.log_text("traceback.txt", traceback.format_exc())
        error = sys.exception()
        self.end("FAILED", f"{type(error).__name__}: {error}")

    def end(self, status: str, reason: str) -> None:
        """End the run early, with the reason as a tag."""
        self.log(tags={ERROR: reason[:1000]})
        self.close(status)

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self.heartbeat.stop(self.id)
        self.client.api.set_terminated(self.id, status)

    def log_text(self, name: str, content: str) -> None:
        """Log a text as an artifact."""
        self.client.api.log_text(self.id, content, name)

    def log_file(self, path: Path) -> None:
        """Log one file."""
        self.client.api.log_artifact(self.id, str(path))

    def log_directory(self, directory: Path, name: str | None = None) -> None:
        """Log all files of a directory. MLflow's client would first read the whole run, to learn its address."""
        repository = get_artifact_repository(self.artifact_uri, tracking_uri=self.client.uri)
        self.client.call_with_retry(repository.log_artifacts, str(directory), name)

    def log_dataset(self, dataset: DatasetVersion) -> None:
        """Log the dataset that the run uses."""
        inputs = [dataset.to_input()]
        try:
            self.client.api.log_inputs(self.id, inputs)
        except MlflowException:  # another process has added the same dataset in between: the second call finds it
            self.client.api.log_inputs(self.id, inputs)

    def log_bundle(self, directory: Path, schema: Schema, example: Rows) -> None:
        """Log a bundle as a model that `mlflow.pyfunc.load_model` can load where this project is installed.

        `example` has rows that the model takes.
        """
        api = self.client.api
        model = api.create_logged_model(self.experiment_id, ARTIFACT, source_run_id=self.id)
        self.client.call_with_retry(
            Model.log,
            artifact_path=None,
            flavor=BundleFlavor(),
            run_id=self.id,
            model_id=model.model_id,
            example=example,
            loader_module=LOADER_MODULE,
            data_path=str(directory),
            signature=signature_of(schema),
            pip_requirements=[f"{name}=={version(name)}" for name in ("numpy", "onnxruntime")],
        )
        api.set_tag(self.id, MODEL_ID, model.model_id)


def _current_metrics(metrics: Mapping[str, float]) -> list[Metric]:
    now = time.time_ns() // 1_000_000
    return [Metric(name, value, now, step=0) for name, value in metrics.items()]


@contextmanager
def closing(run: Run) -> Iterator[Run]:
    """End an open run after the block: FINISHED, FAILED with the traceback as an artifact, or KILLED if interrupted."""
    try:
        yield run
    except TrialPruned as reason:
        run.end("KILLED", str(reason))
        raise
    except Exception:
        run.fail()
        raise
    except BaseException:
        run.close("KILLED")
        raise
    run.close("FINISHED")


class Runs:
    """The runs of a store."""

    def __init__(self, client: Client) -> None:
        self._client, self._heartbeat = client, Heartbeat(client.uri)

    @contextmanager
    def start(self, experiment: str, name: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Open a run. It ends as FINISHED, as FAILED with the traceback as an artifact, or as KILLED if interrupted."""
        with closing(self.open(experiment, name, tags)) as run:
            yield run

    def claim(self, experiment: str, name: str, tags: Mapping[str, str], key: str, *, reuse: bool) -> Run | RunRecord:
        """Open the run of a key, so that no other process on any machine has it open too.

        While a living process has it open, wait. With `reuse`, return the run that another process has finished meanwhile.

        A store that is a server decides: this process opens its run first and searches for others then. Of two processes, the
        one that searches later sees the run of the other and withdraws. If both withdraw, their waiting times differ. In a file,
        whose processes are on one machine, a lock of the caller decides.
        """
        all_tags = {**tags, **key_tag(key)}
        while True:
            run = self.open(experiment, name, all_tags)
            if store_file(self._client.uri) is not None:
                return run
            others = [other for other in self.find_latest(experiment, key_tag(key), MAX_CLAIMS) if other.id != run.id]
            finished = [other for other in others if other.status == "FINISHED"]
            if reuse and finished:
                self._withdraw(run)
                return finished[0]
            if not any(map(_is_alive, others)):
                return run
            self._withdraw(run)
            log.warning("Another process fits the same run. Waiting for its result.")
            time.sleep(random.uniform(*WITHDRAWAL_SECONDS))
            while any(map(_is_alive, self.find_latest(experiment, key_tag(key), MAX_CLAIMS))):
                time.sleep(CLAIM_POLL_SECONDS)

    def _withdraw(self, run: Run) -> None:
        """Delete a run that was opened for nothing."""
        self._heartbeat.stop(run.id)
        with self._client.translate_errors():
            self._client.api.delete_run(run.id)

    def open(self, experiment: str, name: str, tags: Mapping[str, str]) -> Run:
        """Open a run that the caller closes. Until then this process sends its heartbeat."""
        with self._client.translate_errors():
            experiment_id = self._client.experiment_id(experiment)
            all_tags = {**tags, TAG_FORMAT: FORMAT, **processes.process_tags()}
            created = self._client.api.create_run(experiment_id, tags=all_tags, run_name=name)
        self._heartbeat.start(created.info.run_id)
        return self._run(created)

    def close_dead(self, experiment: str, parent: str | None = None) -> int:
        """Close as KILLED the runs in state RUNNING whose process has ended, and return their number.

        With `parent`, close only the jobs of that sweep, those of this process among them.
        """
        condition = "attributes.status = 'RUNNING'" + (f" and tags.`{PARENT}` = '{parent}'" if parent else "")
        with self._client.translate_errors():
            running = self._client.api.search_runs([self._client.experiment_id(experiment)], condition)
        dead = [
            run for run in running if processes.is_dead(run.data.tags) or (parent and processes.is_current_process(run.data.tags))
        ]
        for run in dead:
            self._run(run).end("KILLED", CRASH_MESSAGE)
        return len(dead)

    def get(self, run_id: str) -> RunRecord:
        """Return a run.

        Raises
        ------
        StoreError
            If the store has no run of this id, or another version of this project wrote its tags.
        """
        try:
            run = self._client.api.get_run(run_id)
        except MlflowException as error:
            raise run_not_found(self._client, run_id) from error
        require_current_format(run_id, run.data.tags)
        return self._record(run)

    def delete(self, record: RunRecord) -> None:
        """Delete a run and its bundles as MLflow does: they are hidden until MLflow's garbage collection removes them.

        Until then, the run can be restored. MLflow restores no bundles, so the run then names none, and promotion fits it again.
        """
        api = self._client.api
        with self._client.translate_errors():
            bundles = api.search_logged_models([record.run.experiment_id], f"source_run_id = '{record.id}'")
            if MODEL_ID in record.tags:
                api.delete_tag(record.id, MODEL_ID)
            for bundle in bundles:
                api.delete_logged_model(bundle.model_id)
            api.delete_run(record.id)  # last: after an interruption, the next clean-up finds the run

    def find_finished(self, experiment: str, key: str) -> RunRecord | None:
        """Return the newest finished run with this run key."""
        return self.find_first(experiment, key_tag(key), "attributes.start_time DESC")

    def find_first(self, experiment: str, tags: Mapping[str, str], order: str) -> RunRecord | None:
        """Return the first finished run with these tags, in this order."""
        records = self._search(experiment, ["attributes.status = 'FINISHED'", *_conditions(tags)], order, 1)
        return records[0] if records else None

    def find_latest(self, experiment: str, tags: Mapping[str, str], limit: int, condition: str = "") -> list[RunRecord]:
        """Return the newest runs with these tags, in any state, that meet a condition in MLflow's filter language."""
        conditions = [*_conditions(tags), *([condition] if condition else [])]
        return self._search(experiment, conditions, "attributes.start_time DESC", limit)

    def _search(self, experiment: str, conditions: list[str], order: str, limit: int) -> list[RunRecord]:
        with self._client.translate_errors():
            runs = self._client.api.search_runs(
                [self._client.experiment_id(experiment)], " and ".join(conditions), max_results=limit, order_by=[order]
            )
        return [self._record(run) for run in runs]

    def _run(self, run: MlflowRun) -> Run:
        return Run(self._client, self._heartbeat, run.info.run_id, run.info.experiment_id, run.info.artifact_uri)

    def _record(self, run: MlflowRun) -> RunRecord:
        started_at, ended_at = run.info.start_time, run.info.end_time
        return RunRecord(
            run=self._run(run),
            status=run.info.status,
            params=run.data.params,
            metrics={name: value for name, value in run.data.metrics.items() if not name.startswith(SYSTEM)},
            system_metrics={name: value for name, value in run.data.metrics.items() if name.startswith(SYSTEM)},
            tags=run.data.tags,
            started_at=datetime.fromtimestamp(started_at / 1000, UTC),
            seconds=math.nan if ended_at is None else (ended_at - started_at) / 1000,
        )


def _is_alive(record: RunRecord) -> bool:
    return record.status == "RUNNING" and not processes.is_dead(record.tags)


def _conditions(tags: Mapping[str, str]) -> list[str]:
    return [f"tags.`{name}` = '{value}'" for name, value in tags.items()]


def _truncate(value: str) -> str:
    return value if len(value) <= PARAM_LENGTH else value[: PARAM_LENGTH - 3] + "..."
