"""The connection to an MLflow store: retries, translation of errors, experiments."""

import functools
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from housing.core.errors import StoreError
from housing.core.locks import LockTimeout, require_url_path, store_lock
from housing.core.printable import hide_password
from housing.tracking.local_addresses import LocalAddresses

MAX_WAIT_SECONDS = 10.0  # between two tries

log = logging.getLogger(__name__)


class Client:
    """A connection to one MLflow store, which exists and answers once this object is constructed.

    Attributes
    ----------
    api
        MLflow's own client. Each of its calls is repeated while the store is unavailable, for `retry_seconds` at most.
    uri, artifact_root, ui
        Addresses of the store, of the artifacts of new experiments (None: the store decides), and of MLflow's pages.
    name
        The address of the store without a password, for messages.
    addresses
        The addresses of the artifacts, if both the store and the artifacts are files of this machine, or None.
    """

    def __init__(self, uri: str, artifact_root: str | None, ui: str, retry_seconds: float) -> None:
        # MLflow's own defaults (7 retries of 120 s) look like a hang if the server is down.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs what it also raises
        self.uri, self.artifact_root, self.ui, self._retry_seconds = uri, artifact_root, ui, retry_seconds
        self.name = hide_password(uri)
        self.make_current()
        self.addresses = LocalAddresses.of_store(uri, artifact_root)
        self._experiment_ids: dict[str, str] = {}
        try:
            with self.translate_errors(), store_lock(uri):  # MLflow creates the store in its client's constructor
                self.api = cast(MlflowClient, _RetryingClient(self.call_with_retry(MlflowClient, uri), self))
                self.api.search_experiments(max_results=1)
                if self.addresses and (message := self.addresses.follow()):
                    log.warning(message)
        except (SQLAlchemyError, ImportError, OSError) as error:  # another file, no database, no driver, or no folder
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise StoreError(
                f"Could not open the MLflow store {self.name}: {reason}. Set mlflow.tracking_uri to an MLflow store, such as"
                " sqlite:////folder/mlflow.db or http://127.0.0.1:5000."
            ) from error

    def make_current(self) -> None:
        """Make this store the one of the process: MLflow looks for models:/ and runs:/ in the store that was set last."""
        mlflow.set_tracking_uri(self.uri)

    def call_with_retry(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call MLflow, and repeat the call while the store is unavailable. Raises StoreError when the time is up."""
        end, wait = time.monotonic() + self._retry_seconds, 1.0
        while True:
            try:
                return call(*arguments, **named)
            except MlflowException as error:
                if not is_unavailable(error):
                    raise
                reason = hide_password(cause_of(error))
                if time.monotonic() + wait > end:
                    raise StoreError(f"The MLflow store {self.name} is unavailable: {reason}") from error
                log.warning("The MLflow store %s is unavailable (%s); retrying in %.0f s.", self.name, reason, wait)
            time.sleep(wait)
            wait = min(2 * wait, MAX_WAIT_SECONDS)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise MLflow's errors, and a lock that is never released, as StoreError."""
        try:
            yield
        except LockTimeout as error:
            raise StoreError(f"The MLflow store {self.name} is locked by another process: {error.path}") from error
        except MlflowException as error:
            raise StoreError(f"The MLflow store {self.name} failed: {hide_password(str(error))}") from error

    def experiment_id(self, name: str) -> str:
        """Return the id of an experiment, which is created if it does not exist."""
        name = str(name)  # experiment_name=123 on a command line is a number
        if name not in self._experiment_ids:
            with self.translate_errors(), store_lock(self.uri):
                experiment_id = self._find_or_create(name)
            if self.addresses:
                self.addresses.require_inside(experiment_id)
            self._experiment_ids[name] = experiment_id
        return self._experiment_ids[name]

    def _find_or_create(self, name: str) -> str:
        experiment = self.api.get_experiment_by_name(name)
        if experiment is None:
            try:
                return self.api.create_experiment(name, artifact_location=self._artifact_location(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return self._find_or_create(name)  # another process created it first
        if experiment.lifecycle_stage == "deleted":
            raise StoreError(
                f"Experiment {name} is deleted. To restore it: mlflow experiments restore -x {experiment.experiment_id}"
            )
        return experiment.experiment_id

    def _artifact_location(self, experiment: str) -> str | None:
        if not self.artifact_root:
            return None
        if "://" in self.artifact_root:
            return f"{self.artifact_root}/{_directory_name(experiment)}"
        require_url_path(self.artifact_root)
        return (Path(self.artifact_root).absolute() / _directory_name(experiment)).as_uri()


def _directory_name(experiment: str) -> str:
    """Return the name of an experiment's directory, which never leads elsewhere: other characters than in names are replaced."""
    if re.fullmatch(r"\w[\w.-]*", experiment, re.ASCII):
        return experiment
    return f"{re.sub(r'[^0-9A-Za-z_-]+', '_', experiment)[:50]}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"


class _RetryingClient:
    """MLflow's client with each call repeated while the store is unavailable."""

    def __init__(self, api: MlflowClient, client: Client) -> None:
        self._api, self._client = api, client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._client.call_with_retry, getattr(self._api, name))


def is_unavailable(error: MlflowException) -> bool:
    """Return whether MLflow could not reach a server or a file; it has no error class for an unreachable server."""
    no_answer = error.error_code == "INTERNAL_ERROR" and "API request to" in str(error)
    return no_answer or error.error_code == "TEMPORARILY_UNAVAILABLE"


def cause_of(error: MlflowException) -> str:
    """Return the line of a long message that names the cause: the database's own error, if there is one."""
    lines = str(error).splitlines()
    return next((line for line in lines if "Error)" in line), lines[0])[:200]
