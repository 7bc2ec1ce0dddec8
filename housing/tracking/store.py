"""MLflow, and all that this project asks of it: the store, runs, bundles, the registry."""

import functools
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import mlflow
import yaml
from filelock import Timeout
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from omegaconf import DictConfig, OmegaConf

from housing.core import processes
from housing.core.errors import BundleError, Pruned, StoreError
from housing.core.locks import store_lock
from housing.tracking.client import _is_away, _Patient, _reason
from housing.tracking.runs import Run, Tracked, _equal
from housing.tracking.tags import LOST_RUN, MODEL_ID, NOT_THERE, PARENT, key_tag

log = logging.getLogger(__name__)


class Store:  # pylint: disable=too-many-public-methods  # all that is asked of MLflow
    """One MLflow store, which is there and ready once this object is.

    A store that is away is tried again for `patience` seconds, with a message each time; then StoreError is raised.
    """

    def __init__(self, tracking_uri: str, artifacts: str | None, ui: str, patience: float = 0.0) -> None:
        # MLflow's own defaults (7 retries of 120 s) look like a hang where the server is away.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it logs, it raises too
        self.uri, self.artifacts, self.ui, self.patience = tracking_uri, artifacts, ui, patience
        mlflow.set_tracking_uri(tracking_uri)
        self._experiments: dict[str, str] = {}
        with self._told_if_away(), store_lock(self.uri):  # a client makes the store as soon as it is made itself
            self.client = cast(MlflowClient, _Patient(self.patiently(MlflowClient, tracking_uri), self))
            self.client.search_experiments(max_results=1)
        self._open: set[str] = set()
        self._heart: threading.Thread | None = None

    def patiently(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call MLflow; where the store is away, say so and try again. Raises StoreError when the patience is over."""
        end, wait = time.monotonic() + self.patience, 1.0
        while True:
            try:
                return call(*arguments, **named)
            except MlflowException as error:
                if not _is_away(error):
                    raise
                reason = _reason(error)
                if time.monotonic() + wait > end:
                    raise StoreError(f"the MLflow store {self.uri} cannot be used: {reason}") from error
                log.warning("the MLflow store %s is away (%s); trying again in %.0f s", self.uri, reason, wait)
            time.sleep(wait)
            wait = min(2 * wait, 10.0)

    @contextmanager
    def _told_if_away(self) -> Iterator[None]:
        try:
            yield
        except Timeout as error:
            raise StoreError(f"the MLflow store {self.uri} stays locked by another process: {error.lock_file}") from error
        except MlflowException as error:
            raise StoreError(f"the MLflow store {self.uri} cannot be used: {error}") from error

    def experiment(self, name: str) -> str:
        """Give the id of an experiment, which is made where it is not there."""
        if name not in self._experiments:
            with self._told_if_away(), store_lock(self.uri):
                self._experiments[name] = self._find_or_create(name)
        return self._experiments[name]

    def _find_or_create(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=self._place(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self._find_or_create(name)  # another process was faster
        if found.lifecycle_stage == "deleted":
            raise StoreError(
                f"experiment {name} was deleted; to bring it back: mlflow experiments restore -x {found.experiment_id}"
            )
        return found.experiment_id

    def _place(self, experiment: str) -> str | None:
        """Give the address below which an experiment's artefacts go, or None where the store says."""
        if not self.artifacts:
            return None
        root = self.artifacts if "://" in self.artifacts else Path(self.artifacts).absolute().as_uri()
        return f"{root}/{experiment}"

    @contextmanager
    def run(self, experiment: str, name: str, tags: Mapping[str, str]) -> Iterator["Run"]:
        """Open a run. It ends FINISHED, or FAILED with the traceback as artefact, or KILLED when interrupted."""
        run = self.open_run(experiment, name, tags)
        try:
            yield run
        except Pruned as reason:
            run.end("KILLED", str(reason))
            raise
        except Exception:
            run.fail()
            raise
        except BaseException:
            run.close("KILLED")
            raise
        run.close("FINISHED")

    def open_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> "Run":
        """Open a run that the caller closes. Until then this process vouches for it with a heartbeat."""
        with self._told_if_away():
            experiment_id = self.experiment(experiment)
            created = self.client.create_run(experiment_id, tags={**tags, **processes.identity()}, run_name=name)
        self._open.add(created.info.run_id)
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._heart.start()
        return Run(self, created.info.run_id, created.info.experiment_id)

    def _beat(self) -> None:
        client = MlflowClient(self.uri)  # without patience: the next beat is the next try
        while True:
            time.sleep(processes.BEAT)
            for run_id in tuple(self._open):
                try:
                    client.set_tag(run_id, processes.HEARTBEAT, processes.now())
                except MlflowException as error:
                    log.warning("no heartbeat for run %s: %s", run_id, _reason(error))

    def closed(self, run_id: str) -> None:
        """Take note that a run needs no more heartbeats."""
        self._open.discard(run_id)

    def close_dead(self, experiment: str, parent: str | None = None) -> int:
        """Close as KILLED the runs that say RUNNING although their process is gone, and give their number.

        With `parent`, only the jobs of that sweep, this process's own among them.
        """
        condition = "attributes.status = 'RUNNING'" + (f" and tags.`{PARENT}` = '{parent}'" if parent else "")
        with self._told_if_away():
            left = self.client.search_runs([self.experiment(experiment)], condition)
        dead = [run for run in left if processes.is_dead(run.data.tags) or (parent and processes.is_own(run.data.tags))]
        for run in dead:
            self._tracked(run).run.end("KILLED", LOST_RUN)
        return len(dead)

    def get(self, run_id: str) -> "Tracked":
        """Give a run. Raises StoreError where the store does not know it."""
        try:
            return self._tracked(self.client.get_run(run_id))
        except MlflowException as error:
            raise StoreError(f"the MLflow store {self.uri} knows no run {run_id}") from error

    def finished(self, experiment: str, key: str) -> "Tracked | None":
        """Give the newest finished run with this run key."""
        return self.first(experiment, key_tag(key), "attributes.start_time DESC")

    def first(self, experiment: str, tags: Mapping[str, str], order: str) -> "Tracked | None":
        """Give the first finished run with these tags, in this order."""
        found = self._search(experiment, ["attributes.status = 'FINISHED'", *_equal(tags)], order, 1)
        return found[0] if found else None

    def newest(self, experiment: str, tags: Mapping[str, str], limit: int) -> "list[Tracked]":
        """Give the newest runs with these tags, finished or not."""
        return self._search(experiment, _equal(tags), "attributes.start_time DESC", limit)

    def _search(self, experiment: str, conditions: list[str], order: str, limit: int) -> "list[Tracked]":
        where = [self.experiment(experiment)]
        with self._told_if_away():
            found = self.client.search_runs(where, " and ".join(conditions), max_results=limit, order_by=[order])
        return [self._tracked(run) for run in found]

    def _tracked(self, run: MlflowRun) -> "Tracked":
        opened = Run(self, run.info.run_id, run.info.experiment_id)
        begun = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
        return Tracked(opened, run.info.status, run.data.metrics, run.data.tags, begun)

    def text(self, run_id: str, name: str) -> str:
        """Give the text of a run's artefact. Raises StoreError where the run has none of this name."""
        with self._fetched(f"runs:/{run_id}/{name}") as path:
            return path.read_text(encoding="utf-8")

    @contextmanager
    def files(self, run_id: str, name: str) -> Iterator[Path]:
        """Give a folder of a run's artefacts, for as long as the block lasts. Raises StoreError where the run has none such."""
        with self._fetched(f"runs:/{run_id}/{name}") as folder:
            if not folder.is_dir():  # MLflow calls an artefact that is not there a success
                raise StoreError(f"run {run_id} has no {name}")
            yield folder

    def config(self, run_id: str) -> DictConfig:
        """Give the resolved config that a run was made from."""
        resolved: dict[str, Any] = yaml.safe_load(self.text(run_id, "config/config.yaml"))
        return OmegaConf.create(resolved)

    @contextmanager
    def bundle(self, source: str) -> Iterator[Path]:
        """Give the folder of a bundle, for as long as the block lasts; `source` is MLflow's address of the model."""
        with self._fetched(source) as folder:
            try:
                described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
                bundle = folder / described["flavors"]["python_function"]["data"]
            except FileNotFoundError as error:  # MLflow calls an artefact that is not there a success
                raise StoreError(f"the MLflow store {self.uri} cannot give {source}: its artefacts are not there") from error
            except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
                raise BundleError(f"{source} is no model with a bundle: {type(error).__name__}: {error}") from error
            yield bundle

    @contextmanager
    def _fetched(self, source: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="housing-") as place:
            try:
                path = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=place))
            except (MlflowException, OSError) as error:
                raise StoreError(f"the MLflow store {self.uri} cannot give {source}: {error}") from error
            yield path

    def version_at(self, name: str, alias: str) -> str | None:
        """Give the version at an alias of a registered model, or None where there is none."""
        try:
            return str(self.client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code not in NOT_THERE:
                raise StoreError(f"the MLflow store {self.uri} cannot be used: {error}") from error
            return None

    def round_trip(self, experiment: str) -> str:
        """Write a file where an experiment's artefacts go, read it back, remove it; give that place.

        Raises StoreError where one of the three cannot be done.
        """
        place = self.client.get_experiment(self.experiment(experiment)).artifact_location
        name, word = f"doctor-{uuid.uuid4().hex}.txt", "what was written"
        try:
            repository: Any = get_artifact_repository(place)
            with tempfile.TemporaryDirectory(prefix="housing-") as folder:
                file = Path(folder) / name
                file.write_text(word, encoding="utf-8")
                repository.log_artifact(str(file))
                file.unlink()
                read = Path(repository.download_artifacts(name, folder)).read_text(encoding="utf-8")
            repository.delete_artifacts(name)
        except Exception as error:  # pylint: disable=broad-exception-caught  # S3's, MLflow's, the system's
            raise StoreError(f"artefacts cannot be kept in {place}: {type(error).__name__}: {error}") from error
        if read != word:
            raise StoreError(f"artefacts cannot be kept in {place}: another text comes back than was written")
        return place

    def register(self, name: str, run_id: str) -> str:
        """Make a version of a run's bundle, and give its number."""
        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model_id = self.get(run_id).tags[MODEL_ID]
        with self._told_if_away():
            made = self.client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
        return str(made.version)

    def version_of(self, name: str, run_id: str) -> str | None:
        """Give the version that a run's bundle is already, or None where it is none."""
        source = f"models:/{self.get(run_id).tags[MODEL_ID]}"
        with self._told_if_away():
            found = self.client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        return next((str(version.version) for version in found if version.source == source), None)

    def run_of(self, name: str, number: str) -> str:
        """Give the run that a version came from. Raises StoreError where there is no such version."""
        try:
            return str(self.client.get_model_version(name, number).run_id)
        except MlflowException as error:
            raise StoreError(f"the MLflow store {self.uri} knows no version {number} of {name}") from error

    def tag_version(self, name: str, number: str, tag: str, value: str) -> None:
        """Write something on a version."""
        with self._told_if_away():
            self.client.set_model_version_tag(name, number, tag, value)

    def point(self, name: str, alias: str, number: str) -> None:
        """Move an alias to a version."""
        with self._told_if_away():
            self.client.set_registered_model_alias(name, alias, number)

    def move(self, name: str, alias: str, before: str | None, number: str) -> None:
        """Move an alias from the version where it is expected. MLflow cannot compare and set, so this looks before and after.

        Raises StoreError where somebody else has moved it.
        """
        now = self.version_at(name, alias)
        if now != before:
            raise StoreError(f"{alias} moved from version {before} to {now} while this was decided; decide again")
        self.point(name, alias, number)
        now = self.version_at(name, alias)
        if now != number:
            raise StoreError(f"{alias} was given version {number}, and somebody else gave it {now} at the same time; look again")


@functools.lru_cache
def _connect(tracking_uri: str, artifacts: str | None, ui: str, patience: float) -> Store:
    return Store(tracking_uri, artifacts, ui, patience)


def connect(cfg: DictConfig) -> Store:
    """Give the store that a config's `mlflow` group names, one object for each process.

    Raises StoreError where it is away.
    """
    return _connect(cfg.tracking_uri, cfg.artifacts, cfg.ui, cfg.patience)
