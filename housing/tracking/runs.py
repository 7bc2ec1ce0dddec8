"""TODO docstring."""

import logging
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec
from mlflow.types import Schema as MlflowSchema

from housing.bundle.bundle import Bundle
from housing.schema.table_schema import Schema
from housing.tracking.tags import ARTIFACT, BATCH, ERROR, MODEL_ID, PARAM_LENGTH

if TYPE_CHECKING:
    from housing.tracking.store import Store


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracked:
    """What the store knows of a run."""

    run: "Run"
    status: str
    metrics: dict[str, float]
    tags: dict[str, str]
    begun: datetime

    @property
    def id(self) -> str:
        """MLflow's name for the run."""
        return self.run.id


@dataclass(frozen=True)
class Run:
    """A run, to log to."""

    store: "Store"
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
        error = sys.exception()
        self.end("FAILED", f"{type(error).__name__}: {error}")

    def end(self, status: str, reason: str) -> None:
        """End the run before its time, with the reason as a tag."""
        self.log(tags={ERROR: reason[:1000]})
        self.close(status)

    def close(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self.store.closed(self.id)
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
            self.store.patiently(
                Model.log,
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


def _equal(tags: Mapping[str, str]) -> list[str]:
    return [f"tags.`{name}` = '{value}'" for name, value in tags.items()]


def _signature(schema: Schema) -> ModelSignature:
    inputs: Any = [ColSpec(kind, name) for name, kind in schema.signature()]
    return ModelSignature(inputs=MlflowSchema(inputs), outputs=MlflowSchema([ColSpec("double")]))


def _cut(value: str) -> str:
    return value if len(value) <= PARAM_LENGTH else value[: PARAM_LENGTH - 3] + "..."
