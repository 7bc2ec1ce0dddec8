"""The puller: a process that follows the alias of each served model and publishes each new version once it is verified.

Workers read only releases on disk, so an MLflow store that is slow, wrong or unavailable affects no request.
"""

import logging
import math
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from prometheus_client import Counter, Gauge

from housing.bundle.bundle import Bundle
from housing.bundle.mlflow_model import bundle_directory
from housing.core.canary import Canary, canary_alias, canary_tag
from housing.core.errors import BundleError, ConfigError, StoreError, UntrustedError
from housing.core.locks import store_file, store_lock
from housing.core.model_list import NAME_PATTERN, ModelList, split_name
from housing.core.printable import configure_logging, hide_password
from housing.server_files import metric_files, releases
from housing.server_files.signatures import TAG_PREFIX
from housing.serving import publishing
from housing.serving.verification import verify
from housing.serving.webhook import WebhookListener, read_secret
from server.core.settings import Settings
from server.metrics.model_metrics import files_mark

RELEASE_NAME = re.compile(r"[0-9]+-[0-9a-zA-Z]+")
NICENESS = 19  # of the puller of a candidate, whose verification must not take time from callers
MAX_BACKOFF = 60.0  # seconds between two attempts at a version that could not be downloaded
STATES = ("damaged", "untrusted")
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")

FilesState = dict[str, tuple[int, ...]]  # by path

log = logging.getLogger("puller")


class PullerMetrics:
    """Metrics of a puller. If the server has several models, whether a version is rejected is known by model."""

    def __init__(self, settings: Settings, prefix: str = "housing") -> None:
        self.published = Counter(f"{prefix}_versions_published_total", "Versions verified and published to the workers.")
        self.rejected = Counter(f"{prefix}_versions_rejected_total", "Versions that could not be downloaded or verified.")
        help_text = "Whether the version at the alias could not be downloaded or verified."
        labels = ("name",) if settings.models else ()
        self._is_rejected = Gauge(f"{prefix}_version_rejected", help_text, labels, multiprocess_mode="mostrecent")

    def set_rejected(self, name: str, value: float) -> None:
        """Set whether the version of a model is rejected."""
        (self._is_rejected.labels(name) if name else self._is_rejected).set(value)


@dataclass
class MessageLog:
    """Logs messages, but none that is like the one before."""

    last: str = ""

    def show(self, message: str) -> None:
        """Log a message unless it is empty or known."""
        if message and message != self.last:
            log.info("%s", message)
            self.last = message


class Puller:
    """Follows an alias. A version that fails verification is not retried until the alias has moved."""

    def __init__(self, settings: Settings, metrics: PullerMetrics, name: str = "") -> None:
        """Take the settings, with model and alias. `name` is that of the model if the server has several."""
        self._settings, self._metrics, self._name = settings, metrics, name
        self._failed_release = ""
        self._backoff, self._retry_at = 0.0, 0.0
        self._messages = MessageLog()
        self._canary = CanaryPuller(settings, name)
        self._checked_files: FilesState | None = None
        with suppress(OSError):  # poll_once meets the same error and reports it
            self._remove_if_changed()

    def step(self) -> None:
        """Look at the alias once. Log each failure once; the current version stays. Raises StoreError."""
        try:
            self._messages.show(self.poll_once())
        except StoreError:
            raise
        except Exception as error:  # pylint: disable=broad-exception-caught  # no bundle may end this process
            label = f"of {self._name} " if self._name else ""
            self._messages.show(f"Version {label}rejected; the current version stays: {type(error).__name__}: {error}")

    def poll_once(self) -> str:
        """Publish the version at the alias unless it is current. Return a log message, or "" if nothing changed.

        Raises
        ------
        BundleError
            If the version fails verification.
        StoreError
            If the store is unavailable.
        MlflowException, OSError
            If the version cannot be downloaded or stored.
        """
        settings = self._settings
        version = version_at_alias(settings, settings.alias)
        if version is None:
            self._clear_failure()
            return f"Waiting: {settings.model} has no version at alias {settings.alias} in {hide_password(settings.tracking_uri)}"
        name = f"{version.version}-{version.run_id}"  # a new store starts again at version 1
        attempt = f"{name} {hash(tuple(_signatures(version)))}"  # a signature that is added later makes it another attempt
        if attempt == self._failed_release and time.monotonic() < self._retry_at:
            return ""
        message = ""
        self._remove_if_changed()
        if releases.current_release(settings.release_dir) != settings.release_dir / name:
            try:
                publish_version(settings, version, name, self._name)
            except Exception as error:
                self._record_failure(name, attempt, is_final=isinstance(error, BundleError))
                raise
            self._metrics.published.inc()
            message = f"Published {self._name or settings.model} version {version.version}"
        self._clear_failure()
        self._canary.follow(version)
        return message

    def _remove_if_changed(self) -> None:
        """Check the published releases if a file of them has changed since the last check, and remove damaged ones.

        Workers that are running keep their model in memory, but a new one could not start.
        """
        state = _files_state(self._settings.release_dir)
        if state != self._checked_files:
            self._messages.last = ""  # a version that is published again is logged again
            remove_damaged(self._settings)
            self._checked_files = state  # from before the check: a change in the meantime is found at the next poll

    def _clear_failure(self) -> None:
        """Forget the failed release: it is published now, or the alias has moved."""
        self._failed_release, self._backoff = "", 0.0
        self._metrics.set_rejected(self._name, 0.0)

    def _record_failure(self, name: str, attempt: str, is_final: bool) -> None:
        """Count a failed release once, however often it is retried, and schedule the next attempt."""
        if attempt != self._failed_release:
            self._metrics.rejected.inc()
            self._backoff = 0.0
        pause = math.inf if is_final else min(max(2.0 * self._backoff, self._settings.poll_seconds), MAX_BACKOFF)
        if pause not in (self._backoff, math.inf):
            log.info("Retrying %s every %g s" if pause == MAX_BACKOFF else "Retrying %s in %g s", name, pause)
        self._failed_release, self._backoff, self._retry_at = attempt, pause, time.monotonic() + pause
        self._metrics.set_rejected(self._name, 1.0)


class CanaryPuller:
    """Follows the canary beside an alias. One that fails verification is not retried until it ends; other failures are."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._failed: tuple[Canary, list[str]] | None = None
        self._messages = MessageLog()

    def follow(self, current: ModelVersion) -> None:
        """Publish the canary beside the current version, or remove one that is over. Raises StoreError."""
        settings, folder = self._settings, self._settings.release_dir
        version = version_at_alias(settings, canary_alias(settings.alias))
        tag = None if version is None else version.tags.get(canary_tag(settings.alias))
        canary = None if version is None else Canary.parse(str(version.version), str(current.version), tag)
        published = releases.canary_release(folder)
        if version is None or canary is None:
            self._failed = None
            if published is not None:
                publishing.remove_canary(folder)
                log.info("The canary of %s is over", self._name or settings.model)
            return
        name = f"{version.version}-{version.run_id}"
        attempt = canary, _signatures(version)
        if attempt == self._failed or published == (folder / name, canary.share):
            return
        try:
            publish_version(settings, version, name, self._name, canary.share)
        except Exception as error:  # pylint: disable=broad-exception-caught  # no bundle may end this process
            self._failed = attempt if isinstance(error, BundleError) else None
            self._messages.show(f"Canary version {canary.version} rejected: {type(error).__name__}: {error}")
        else:
            log.info("Version %s answers %g of the requests of %s", canary.version, canary.share, self._name or settings.model)


@dataclass
class Pullers:
    """Follows the alias of each listed model, one after the other."""

    settings: Settings
    metrics: PullerMetrics
    models: ModelList
    pullers: dict[str, Puller] = field(default_factory=dict)
    messages: MessageLog = field(default_factory=MessageLog)
    port_messages: MessageLog = field(default_factory=MessageLog)
    hint: threading.Event = field(default_factory=threading.Event)  # that an alias has moved

    def run(self) -> None:
        """Follow the list and all aliases forever: at each poll, and at once after a hint.

        While the port for hints is in use by another program, the puller polls at least each minute.
        """
        secret = read_secret(self.settings) if self.settings.webhook_port else b""
        listener: WebhookListener | None = None
        while True:
            self.hint.clear()
            listener = listener or self._listen(secret)
            self.step()
            hears = listener is not None or not self.settings.webhook_port
            self.hint.wait(self.settings.poll_seconds if hears else min(self.settings.poll_seconds, MAX_BACKOFF))

    def _listen(self, secret: bytes) -> WebhookListener | None:
        """Return the listener for hints, or None if there is no port for them, or if it cannot be used now."""
        host, port = self.settings.host, self.settings.webhook_port
        if not port:
            return None
        try:
            listener = WebhookListener(host, port, secret, self.hint)
        except OSError as error:
            self.port_messages.show(
                f"Cannot listen for webhooks on {host} port {port} (serve.webhook_port): {error.strerror or error}."
                " Polling goes on, and the port is tried again at each poll."
            )
            return None
        if self.port_messages.last:
            log.info("Listening for webhooks on %s port %s", host, port)
        return listener

    def step(self) -> None:
        """Follow the list, and look at each alias once, but not at the others if the store is unavailable."""
        try:
            self.models.refresh()
            self._remove_unlisted()
        except (OSError, ConfigError) as error:
            self.messages.show(f"The served models stay as they are: {error}")
        for name, folder in self.models.folders.items():
            if name not in self.pullers:
                model, alias = split_name(name)
                settings = replace(self.settings, model=model, alias=alias, release_dir=folder)
                self.pullers[name] = Puller(settings, self.metrics, name if self.settings.models else "")
        try:
            for puller in self.pullers.values():
                puller.step()
        except StoreError as error:
            self.messages.show(f"{error} The current version stays.")

    def _remove_unlisted(self) -> None:
        """Remove what this server has of models that are no longer listed, from this list or an earlier one."""
        if not self.settings.models or not self.settings.release_dir.exists():
            return
        for folder in releases.release_dirs(self.settings.release_dir):
            name = folder.name
            if NAME_PATTERN.fullmatch(name) and name not in self.models.folders:
                shutil.rmtree(folder)
                for path in Path(os.environ[metric_files.METRICS_DIR_VARIABLE]).glob(f"*{files_mark(name)}*.db"):
                    path.unlink(missing_ok=True)
                if self.pullers.pop(name, None):
                    self.metrics.set_rejected(name, 0.0)
                log.info("Removed %s", name)


def publish_version(settings: Settings, version: ModelVersion, name: str, served_name: str, share: float = 0.0) -> None:
    """Download, verify and publish a version, as a canary if it has a share of the requests.

    Raises BundleError if it is invalid, and the store's own errors.
    """
    if not RELEASE_NAME.fullmatch(name):
        raise BundleError(f"Version {version.version} has the run ID {version.run_id!r}, which is not an MLflow run ID.")
    remove_damaged(settings)  # its schema could not be read for the comparison of columns
    current = releases.current_release(settings.release_dir)
    with tempfile.TemporaryDirectory(prefix="housing-") as scratch:
        source = f"models:/{settings.model}/{version.version}"
        bundle = bundle_directory(Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=scratch)))
        signature = settings.trusted_keys.verify(bundle, _signatures(version), settings.model, str(version.version))
        compatible_with = current / releases.BUNDLE if current and settings.forbid_breaking_columns else None
        verify(bundle, compatible_with, settings.verify_memory_mb, settings.verify_seconds, settings.max_rows)
        info = {"model": settings.model, "version": str(version.version), "alias": settings.alias, "mlflow": mlflow.__version__}
        info = {**info, "name": served_name} if served_name else info
        if share:
            publishing.publish_canary(settings.release_dir, name, bundle, info, share, signature)
        else:
            publishing.publish(settings.release_dir, name, bundle, info, signature)


def remove_damaged(settings: Settings) -> None:
    """Remove the current release and the canary if they are damaged or not trusted. They are then pulled again."""
    current, canary = releases.current_release(settings.release_dir), releases.canary_release(settings.release_dir)
    if canary is not None and _is_removed(settings, canary[0]):
        publishing.remove_canary(settings.release_dir)
    if current is not None:
        _is_removed(settings, current)


def _files_state(folder: Path) -> FilesState:
    """Return what identifies the content of each file of the current release and of the canary, without reading it."""
    current, canary = releases.current_release(folder), releases.canary_release(folder)
    roots = [release for release in (current, canary and canary[0]) if release]
    paths = [f"{directory}/{name}" for root in roots for directory, _, names in os.walk(root) for name in ("", *names)]
    state: FilesState = {}
    for path in paths:
        with suppress(FileNotFoundError):  # it has just been removed
            status = os.lstat(path)
            state[path] = status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return state


def _is_removed(settings: Settings, release: Path) -> bool:
    """Return whether a release was damaged or not trusted, so that it was removed."""
    try:
        with settings.trusted_keys.verified(release, settings.model) as verified:
            Bundle.read(verified / releases.BUNDLE)
            releases.release_info(verified)
    except (BundleError, FileNotFoundError, ValueError) as error:
        log.warning("Removing the %s release %s: %s", STATES[isinstance(error, UntrustedError)], release.name, error)
        shutil.rmtree(release, ignore_errors=True)
        return True
    return False


def _signatures(version: ModelVersion) -> list[str]:
    return [value for tag, value in sorted(version.tags.items()) if tag.startswith(TAG_PREFIX)]


def version_at_alias(settings: Settings, alias: str) -> ModelVersion | None:
    """Return the version at an alias of the model, or None if there is none. Raises StoreError if the store is unavailable."""
    file = store_file(settings.tracking_uri)
    if file is not None and not file.exists():
        return None
    try:
        with store_lock(settings.tracking_uri):
            client = MlflowClient(settings.tracking_uri)
            try:
                return client.get_model_version_by_alias(settings.model, alias)
            except MlflowException as error:
                if error.error_code not in NOT_FOUND_CODES:
                    raise
                return None
    except Exception as error:  # of MLflow, a database driver or the network
        uri, cause = hide_password(settings.tracking_uri), hide_password(f"{type(error).__name__}: {error}".splitlines()[0])
        raise StoreError(f"Could not read the MLflow store {uri} (serve.tracking_uri): {cause}") from error


def main() -> None:
    """Run the puller with the settings of the environment; with the argument `shadow`, as the puller of a shadow's candidate."""
    name, prefix = ("shadow puller", "housing_shadow") if sys.argv[1:] == ["shadow"] else ("puller", "housing")
    if name != "puller":
        os.nice(NICENESS)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the output is a log file
    configure_logging(f"{name}: %(message)s")
    log.setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would repeat at each poll what the puller reports once
    settings = Settings.from_environment()
    metric_files.use_process_name(name.replace(" ", "-"))
    mlflow.set_tracking_uri(settings.tracking_uri)
    with suppress(KeyboardInterrupt):  # Ctrl-C in a terminal
        Pullers(settings, PullerMetrics(settings, prefix), settings.list_models()).run()


if __name__ == "__main__":
    main()
