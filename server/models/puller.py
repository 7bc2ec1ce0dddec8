"""The puller: its own process, which follows the alias and publishes each new version once it is proven.

Workers read what it published; MLflow being slow, wrong or away reaches no request.
"""

import logging
import math
import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from prometheus_client import Counter, Gauge

from housing.bundle.bundle import Bundle
from housing.bundle.mlflow_model import bundle_directory
from housing.core.errors import BundleError
from housing.core.locks import store_file, store_lock
from server.core import releases
from server.core.settings import Settings
from server.metrics import mmap_files
from server.models.verification import verify

RELEASE_NAME = re.compile(r"[0-9]+-[0-9a-zA-Z]+")


MAX_BACKOFF = 60.0  # seconds before a version that could not be had is tried again


NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


log = logging.getLogger("puller")


class Puller:
    """Follows the alias. A version that cannot be proven is not tried again until another one has been at the alias."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failed_release = ""  # the version that could not be published
        self._backoff, self._retry_at = 0.0, 0.0  # before it is tried again, and when that is
        self._last_message = ""
        self._published_total = Counter(
            "housing_versions_published_total", "Versions that the puller proved and gave to the workers."
        )
        self._rejected_total = Counter(
            "housing_versions_rejected_total", "Versions that could not be had or proven; the one before stays in use."
        )
        self._is_rejected = Gauge(
            "housing_version_rejected",
            "Whether the version at the alias could not be had or proven.",
            multiprocess_mode="mostrecent",
        )

    def run(self) -> None:
        """Look at the alias again and again; what fails is logged once, and the version in use stays."""
        remove_damaged(self._settings.release_dir)
        while True:
            try:
                news = self.poll_once()
            except Exception as error:  # pylint: disable=broad-exception-caught  # no store and no bundle may end this process
                news = f"refused, the version in use stays: {type(error).__name__}: {error}"
            if news and news != self._last_message:
                log.info("%s", news)
                self._last_message = news
            time.sleep(self._settings.poll_seconds)

    def poll_once(self) -> str:
        """Publish the version at the alias where it is not the one in use; give what there is to say, or nothing.

        Raises BundleError for a version that cannot be proven, MlflowException or OSError where the store is away.
        """
        settings = self._settings
        version = _version_at_alias(settings)
        if version is None:
            self._clear_failure()
            return f"waiting: {settings.model} has no version at alias {settings.alias} in {settings.tracking_uri}"
        name = f"{version.version}-{version.run_id}"  # the number alone comes again in a new store
        if name == self._failed_release and time.monotonic() < self._retry_at:
            return ""
        news = ""
        if releases.current_release(settings.release_dir) != settings.release_dir / name:
            try:
                _publish(settings, version, name)
            except Exception as error:
                self._record_failure(name, is_final=isinstance(error, BundleError))
                raise
            self._published_total.inc()
            news = f"published {settings.model} version {version.version}"
        self._clear_failure()
        return news

    def _clear_failure(self) -> None:
        """Forget what failed: it is not at the alias any more, or is published."""
        self._failed_release, self._backoff = "", 0.0
        self._is_rejected.set(0.0)

    def _record_failure(self, name: str, is_final: bool) -> None:
        """Count a version that cannot be published, once however often it is tried, and say when it is tried again."""
        if name != self._failed_release:
            self._rejected_total.inc()
            self._backoff = 0.0
        pause = math.inf if is_final else min(max(2.0 * self._backoff, self._settings.poll_seconds), MAX_BACKOFF)
        if pause not in (self._backoff, math.inf):
            log.info("%s is tried again every %g s" if pause == MAX_BACKOFF else "%s is tried again in %g s", name, pause)
        self._failed_release, self._backoff, self._retry_at = name, pause, time.monotonic() + pause
        self._is_rejected.set(1.0)


def _publish(settings: Settings, version: ModelVersion, name: str) -> None:
    """Raises BundleError for a version that will never do, and whatever the store raises."""
    if not RELEASE_NAME.fullmatch(name):
        raise BundleError(f"version {version.version} names the run {version.run_id!r}, which no MLflow has made")
    remove_damaged(settings.release_dir)  # what its callers send could not be read
    used = releases.current_release(settings.release_dir)
    with tempfile.TemporaryDirectory(prefix="housing-") as place:
        source = f"models:/{settings.model}/{version.version}"
        model = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=place))
        bundle = bundle_directory(model)
        before = used / releases.BUNDLE if used and settings.forbid_breaking_columns else None
        verify(bundle, before, settings.verify_memory, settings.verify_seconds, settings.max_rows)
        served = {"model": settings.model, "version": str(version.version), "alias": settings.alias, "mlflow": mlflow.__version__}
        releases.publish(settings.release_dir, name, bundle, served)


def remove_damaged(folder: Path) -> None:
    """Remove what is published where it was damaged since: what is at the alias is pulled in its place."""
    used = releases.current_release(folder)
    if used is None:
        return
    try:
        Bundle.read(used / releases.BUNDLE)
    except BundleError as error:
        log.warning("what is published is damaged, and is removed: %s", error)
        shutil.rmtree(used, ignore_errors=True)


def _version_at_alias(settings: Settings) -> ModelVersion | None:
    file = store_file(settings.tracking_uri)
    if file is not None and not file.exists():
        return None
    with store_lock(settings.tracking_uri):
        try:
            return MlflowClient(settings.tracking_uri).get_model_version_by_alias(settings.model, settings.alias)
        except MlflowException as error:
            if error.error_code not in NOT_FOUND_CODES:
                raise
            return None


def main() -> None:
    """Follow the alias that the environment names."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a log is no terminal
    logging.basicConfig(format="puller: %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    settings = Settings.from_environment()
    mmap_files.use_process_name("puller")
    mlflow.set_tracking_uri(settings.tracking_uri)
    with suppress(KeyboardInterrupt):  # this is how a puller in a terminal ends
        Puller(settings).run()


if __name__ == "__main__":
    main()
