"""One MLflow store: its client, runs, registry and artifacts."""

import functools
from collections.abc import Collection

from omegaconf import DictConfig

from housing.command_line.next_command import next_command
from housing.core.errors import StoreError
from housing.core.locks import store_file
from housing.tracking.artifacts import Artifacts
from housing.tracking.client import Client
from housing.tracking.registry import Registry
from housing.tracking.runs import Runs


class Store:
    """An MLflow store that answered when this object was constructed.

    While it is unavailable later, calls are repeated for `retry_seconds`, with a message each time; then StoreError is raised.
    The configs of its runs may name `trusted_targets` besides those of this machine's config files.
    """

    def __init__(
        self,
        tracking_uri: str,
        artifact_root: str | None,
        ui: str,
        retry_seconds: float = 0.0,
        trusted_targets: Collection[str] = (),
    ) -> None:
        self.client = Client(tracking_uri, artifact_root, ui, retry_seconds)
        self.runs = Runs(self.client)
        self.registry = Registry(self.client)
        self.artifacts = Artifacts(self.client, trusted_targets)


@functools.lru_cache
def _connect(
    tracking_uri: str, artifact_root: str | None, ui: str, retry_seconds: float, trusted_targets: tuple[str, ...]
) -> Store:
    return Store(tracking_uri, artifact_root, ui, retry_seconds, trusted_targets)


def connect(cfg: DictConfig, *, create: bool = False) -> Store:
    """Return the store that the config group `mlflow` names, one object for each process.

    An SQLite store that does not exist is created only by what fills it (`create`): a command that needs runs would otherwise
    leave an empty store in a wrong folder.

    Raises
    ------
    StoreError
        If it is unavailable, or does not exist and is not to be created.
    """
    file = None if create else store_file(cfg.tracking_uri)
    if file is not None and not file.is_file():
        raise StoreError(
            f"There is no MLflow store at {file.absolute()}. Run this command in the folder of a project that has one,"
            f" run the pipeline again (dvc repro --force), or train a model first: {next_command('train')}"
        )
    store = _connect(cfg.tracking_uri, cfg.artifacts, cfg.ui, cfg.retry_seconds, tuple(cfg.trusted_targets))
    store.client.make_current()
    return store
