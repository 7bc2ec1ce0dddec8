"""One MLflow store: its client, runs, registry and artifacts."""

import functools

from omegaconf import DictConfig

from housing.tracking.artifacts import Artifacts
from housing.tracking.client import Client
from housing.tracking.registry import Registry
from housing.tracking.runs import Runs


class Store:
    """An MLflow store that answered when this object was constructed.

    While it is unavailable later, calls are repeated for `retry_seconds`, with a message each time; then StoreError is raised.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | None, ui: str, retry_seconds: float = 0.0) -> None:
        self.client = Client(tracking_uri, artifact_root, ui, retry_seconds)
        self.runs = Runs(self.client)
        self.registry = Registry(self.client)
        self.artifacts = Artifacts(self.client)


@functools.lru_cache
def _connect(tracking_uri: str, artifact_root: str | None, ui: str, retry_seconds: float) -> Store:
    return Store(tracking_uri, artifact_root, ui, retry_seconds)


def connect(cfg: DictConfig) -> Store:
    """Return the store that the config group `mlflow` names, one object for each process.

    Raises
    ------
    StoreError
        If it is unavailable.
    """
    return _connect(cfg.tracking_uri, cfg.artifacts, cfg.ui, cfg.retry_seconds)
