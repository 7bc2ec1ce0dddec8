"""MLflow, and all that this project asks of it: the store, runs, bundles, the registry."""

import functools
import logging
import os
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import yaml
from filelock import Timeout
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec
from mlflow.types import Schema as MlflowSchema
from omegaconf import DictConfig, OmegaConf

from housing.bundle import Bundle
from housing.errors import BundleError, StoreError
from housing.schema import Schema
from housing.store_file import store_lock

KEY, KIND, DATA, SPLIT, MODEL_ID = (f"housing.{name}" for name in ("run_key", "kind", "data", "split", "model_id"))
ARTIFACT = "bundle"
PARAM_LENGTH = 6000  # MLflow's own limits
BATCH = 100
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class Store:
    """One MLflow store, which is there and ready once this object is."""

    def __init__(self, tracking_uri: str, artifacts: str | None, ui: str) -> None:
        # MLflow's own defaults (7 retries of 120 s) look like a hang where the server is away.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        for name in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.uri, self.artifacts, self.ui = tracking_uri, artifacts, ui
        mlflow.set_tracking_uri(tracking_uri)
        self._experiments: dict[str, str] = {}
        with self._told_if_away(), store_lock(self.uri):  # a client makes the store as soon as it is made itself
            self.client = MlflowClient(tracking_uri)
            self.client.search_experiments(max_results=1)

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
                place = f"{Path(self.artifacts).absolute().as_uri()}/{name}" if self.artifacts else None
                return self.client.create_experiment(name, artifact_location=place)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self._find_or_create(name)  # another process was faster
        if found.lifecycle_stage == "deleted":
            raise StoreError(
                f"experiment {name} was deleted; to bring it back: mlflow experiments restore -x {found.experiment_id}"
            )
        return found.experiment_id

    @contextmanager
    def run(self, experiment: str, name: str, tags: Mapping[str, str]) -> Iterator["Run"]:
        """Open a run. It ends FINISHED, or FAILED with the traceback as artefact, or KILLED when interrupted."""
        run = self.open_run(experiment, name, tags)
        try:
            yield run
        except Exception:
            run.fail()
            raise
        except BaseException:
            run.close("KILLED")
            raise
        run.close("FINISHED")

    def open_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> "Run":
        """Open a run that the caller closes."""
        with self._told_if_away():
            experiment_id = self.experiment(experiment)
            created = self.client.create_run(experiment_id, tags=dict(tags), run_name=name)
        return Run(self, created.info.run_id, created.info.experiment_id)

    def kill_children(self, run: "Run") -> None:
        """Close the runs of a sweep that were left RUNNING: a signal may come between any two steps of theirs."""
        condition = f"tags.`mlflow.parentRunId` = '{run.id}' and attributes.status = 'RUNNING'"
        for left in self.client.search_runs([run.experiment_id], condition):
            self.client.set_terminated(left.info.run_id, "KILLED")

    def get(self, run_id: str) -> "Tracked":
        """Give a run. Raises StoreError where the store does not know it."""
        try:
            return self._tracked(self.client.get_run(run_id))
        except MlflowException as error:
            raise StoreError(f"the MLflow store {self.uri} knows no run {run_id}") from error

    def finished(self, experiment: str, key: str) -> "Tracked | None":
        """Give the newest finished run with this run key."""
        return self.first(experiment, {KIND: "run", KEY: key}, "attributes.start_time DESC")

    def first(self, experiment: str, tags: Mapping[str, str], order: str) -> "Tracked | None":
        """Give the first finished run with these tags, in this order."""
        conditions = ["attributes.status = 'FINISHED'", *(f"tags.`{name}` = '{value}'" for name, value in tags.items())]
        where = [self.experiment(experiment)]
        with self._told_if_away():
            found = self.client.search_runs(where, " and ".join(conditions), max_results=1, order_by=[order])
        return self._tracked(found[0]) if found else None

    def _tracked(self, run: MlflowRun) -> "Tracked":
        opened = Run(self, run.info.run_id, run.info.experiment_id)
        return Tracked(opened, run.info.status, run.data.metrics, run.data.tags)

    def text(self, run_id: str, name: str) -> str:
        """Give the text of a run's artefact. Raises StoreError where the run has none of this name."""
        with self._fetched(f"runs:/{run_id}/{name}") as path:
            return path.read_text(encoding="utf-8")

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

    def point(self, name: str, alias: str, number: str) -> None:
        """Move an alias to a version."""
        with self._told_if_away():
            self.client.set_registered_model_alias(name, alias, number)


@dataclass(frozen=True)
class Tracked:
    """What the store knows of a run."""

    run: "Run"
    status: str
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def id(self) -> str:
        """MLflow's name for the run."""
        return self.run.id


@dataclass(frozen=True)
class Run:
    """A run, to log to."""

    store: Store
    id: str
    experiment_id: str

    @property
    def link(self) -> str:
        """Where MLflow's pages show the run."""
        return f"{self.store.ui.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.id}"

    def log(
        self,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in as few calls as MLflow allows."""
        client = self.store.client
        cut = [Param(name, _cut(str(value))) for name, value in (params or {}).items()]
        for start in range(0, len(cut), BATCH):
            client.log_batch(self.id, params=cut[start : start + BATCH])
        if metrics or tags:  # time and step are of no use where each metric has one value
            values = [Metric(name, value, timestamp=0, step=0) for name, value in (metrics or {}).items()]
            client.log_batch(self.id, metrics=values, tags=[RunTag(name, value) for name, value in (tags or {}).items()])

    def fail(self) -> None:
        """End the run as FAILED, with the traceback of the exception at hand as artefact."""
        self.text("traceback.txt", traceback.format_exc())
        self.close("FAILED")

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self.store.client.set_terminated(self.id, status)

    def text(self, name: str, content: str) -> None:
        """Log a text as an artefact."""
        self.store.client.log_text(self.id, content, name)

    def file(self, path: Path) -> None:
        """Log one file."""
        self.store.client.log_artifact(self.id, str(path))

    def files(self, folder: Path, name: str | None = None) -> None:
        """Log all files of a folder."""
        self.store.client.log_artifacts(self.id, str(folder), name)

    def bundle(self, folder: Path, schema: Schema) -> None:
        """Log a bundle as a model that `mlflow.pyfunc.load_model` can load where this project is installed."""
        client = self.store.client
        made = client.create_logged_model(self.experiment_id, ARTIFACT, source_run_id=self.id)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input example")  # the golden rows are the examples
            Model.log(
                artifact_path=None,
                flavor=mlflow.pyfunc,
                run_id=self.id,
                model_id=made.model_id,
                loader_module=Bundle.__module__,
                data_path=str(folder),
                signature=_signature(schema),
                pip_requirements=[f"{name}=={version(name)}" for name in ("numpy", "onnxruntime")],
            )
        client.set_tag(self.id, MODEL_ID, made.model_id)


def _signature(schema: Schema) -> ModelSignature:
    inputs: Any = [ColSpec(kind, name) for name, kind in schema.signature()]
    return ModelSignature(inputs=MlflowSchema(inputs), outputs=MlflowSchema([ColSpec("double")]))


def _cut(value: str) -> str:
    return value if len(value) <= PARAM_LENGTH else value[: PARAM_LENGTH - 3] + "..."


@functools.lru_cache
def _connect(tracking_uri: str, artifacts: str | None, ui: str) -> Store:
    return Store(tracking_uri, artifacts, ui)


def connect(cfg: DictConfig) -> Store:
    """Give the store that a config's `mlflow` group names, one object for each process.

    Raises StoreError where it is away.
    """
    return _connect(cfg.tracking_uri, cfg.artifacts, cfg.ui)
