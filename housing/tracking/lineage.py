"""Lineage of a run in MLflow's pages: the dataset that it was fitted on, and rows that its model takes."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec
from mlflow.types import Schema as MlflowSchema

from housing.schema.table_schema import Schema

CONTEXT = "mlflow.data.context"  # the name is defined by MLflow
DIGEST_LENGTH = 36  # MLflow's own limit
EXAMPLE_FILE = "input_example.json"
N_EXAMPLES = 5  # rows
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class DatasetVersion:
    """A version of a table, and how a run used it.

    Attributes
    ----------
    fingerprint
        The SHA-256 checksum of the table's file.
    dvc_version
        The MD5 checksum by which DVC names this version; None if the table is not under DVC, or differs from its version.
    split
        The name of the function that splits.
    rows
        The number of rows by part of the split.
    """

    name: str
    fingerprint: str
    path: str
    dvc_version: str | None
    split: str
    split_fingerprint: str
    rows: Mapping[str, int]
    schema: Schema

    def to_input(self) -> DatasetInput:
        """Return the dataset as MLflow's pages show it: name, digest, columns, number of rows, and the split as context."""
        target = [(self.schema.target.name, "double", True)]
        columns = [ColSpec(kind, name, required).to_dict() for name, kind, required in [*self.schema.signature(), *target]]
        parts = ", ".join(f"{rows:,} {part}" for part, rows in self.rows.items())
        tags = {
            CONTEXT: f"{self.split}: {parts}",
            "fingerprint": self.fingerprint,
            "split_fingerprint": self.split_fingerprint,
            **({} if self.dvc_version is None else {"dvc_version": self.dvc_version}),
        }
        dataset = Dataset(
            name=self.name,
            digest=self.fingerprint[:DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": self.path, "dvc_version": self.dvc_version}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": sum(self.rows.values())}),
        )
        return DatasetInput(dataset, [InputTag(name, value) for name, value in tags.items()])


class BundleFlavor:
    """Saves a bundle as an MLflow model with rows as its input example.

    MLflow's own way to save an example loads the model and predicts the rows, which the bundle's golden rows do already.
    """

    __name__ = "housing"

    @staticmethod
    def save_model(path: str, mlflow_model: Model, example: Rows, signature: ModelSignature, **named: Any) -> None:
        """Save the model as `mlflow.pyfunc` does, and the example beside it."""
        mlflow_model.saved_input_example_info = {
            "artifact_path": EXAMPLE_FILE,
            "type": "dataframe",
            "pandas_orient": "split",
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input example")  # it is written below
            mlflow.pyfunc.save_model(path=path, mlflow_model=mlflow_model, signature=signature, **named)
        names = [column.name for column in signature.inputs]
        frame = pd.DataFrame([{name: row.get(name) for name in names} for row in example[:N_EXAMPLES]])
        frame.to_json(Path(path) / EXAMPLE_FILE, orient="split", index=False)


def signature_of(schema: Schema) -> ModelSignature:
    """Return the signature of a model that takes a schema's features."""
    inputs: Any = [ColSpec(kind, name, required) for name, kind, required in schema.signature()]
    return ModelSignature(inputs=MlflowSchema(inputs), outputs=MlflowSchema([ColSpec("double")]))
