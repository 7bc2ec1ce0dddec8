"""Artifacts of runs: texts, directories, configs, bundles."""

import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from omegaconf import DictConfig

from housing.bundle.mlflow_model import MLMODEL, bundle_directory
from housing.core.errors import StoreError
from housing.tracking.client import Client
from housing.tracking.not_found import model_not_found, require_source
from housing.tracking.stored_config import parse_stored_config
from housing.tracking.tags import NOT_FOUND


class Artifacts:
    """Files that runs left in a store."""

    def __init__(self, client: Client, trusted_targets: Collection[str]) -> None:
        self._client, self._trusted_targets = client, trusted_targets

    def read_text(self, run_id: str, name: str) -> str:
        """Return the text of an artifact. Raises StoreError if the run has no artifact of this name."""
        with self._download(f"runs:/{run_id}/{name}") as path:
            return path.read_text(encoding="utf-8")

    @contextmanager
    def directory(self, run_id: str, name: str) -> Iterator[Path]:
        """Download a directory, which exists until the block ends. Raises StoreError if the run has no such directory."""
        with self._download(f"runs:/{run_id}/{name}") as directory:
            if not directory.is_dir():  # MLflow reports success for an artifact that does not exist
                raise StoreError(f"Run {run_id} has no artifact directory {name}.")
            yield directory

    @contextmanager
    def file(self, run_id: str, name: str) -> Iterator[Path]:
        """Download a file, which exists until the block ends. Raises StoreError if the run has no such file."""
        with self._download(f"runs:/{run_id}/{name}") as path:
            yield path

    def read_config(self, run_id: str) -> DictConfig:
        """Return the config of a run. Raises UntrustedConfigError if it could run code that this machine does not trust."""
        return parse_stored_config(self.read_text(run_id, "config/config.yaml"), run_id, self._trusted_targets)

    @contextmanager
    def bundle(self, source: str) -> Iterator[Path]:
        """Download a bundle, which exists until the block ends. `source` is MLflow's address of the model.

        Raises
        ------
        StoreError
            If the artifacts cannot be downloaded.
        ConfigError
            If `source` is no such address.
        BundleError
            If the model holds no bundle.
        """
        require_source(source)
        with self._download(source) as model_directory:
            if not (model_directory / MLMODEL).is_file():  # MLflow reports success for an artifact that does not exist
                raise StoreError(f"Could not download {source} from {self._client.name}: its artifacts are missing.")
            yield bundle_directory(model_directory)

    def check_storage(self, experiment: str) -> str:
        """Write, read and delete a file in an experiment's artifact location, and return that location.

        Raises
        ------
        StoreError
            If one of the three fails.
        """
        location = self._client.api.get_experiment(self._client.experiment_id(experiment)).artifact_location
        name, content = f"doctor-{uuid.uuid4().hex}.txt", "written by the health check"
        try:
            repository: Any = get_artifact_repository(location)
            with tempfile.TemporaryDirectory(prefix="housing-") as directory:
                file = Path(directory) / name
                file.write_text(content, encoding="utf-8")
                repository.log_artifact(str(file))
                file.unlink()
                downloaded = Path(repository.download_artifacts(name, directory)).read_text(encoding="utf-8")
            repository.delete_artifacts(name)
        except Exception as error:  # pylint: disable=broad-exception-caught  # S3's, MLflow's, the operating system's
            raise StoreError(f"Could not store artifacts in {location}: {type(error).__name__}: {error}") from error
        if downloaded != content:
            raise StoreError(f"Could not store artifacts in {location}: the file that was read differs from the one written.")
        return location

    @contextmanager
    def _download(self, source: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="housing-") as directory:
            try:
                path = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=directory))
            except (MlflowException, OSError) as error:
                if isinstance(error, MlflowException) and error.error_code in NOT_FOUND:
                    raise model_not_found(self._client, source) from error
                raise StoreError(f"Could not download {source} from {self._client.name}: {error}") from error
            yield path
