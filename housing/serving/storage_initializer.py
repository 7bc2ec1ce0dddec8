"""The storage initializer: a process that downloads and verifies one version for a model server of KServe, and ends.

    python -m housing.serving.storage_initializer mlflow://housing-california@production /mnt/models

It publishes into the folder `releases` of the given directory, which the workers read as their release directory.
"""

import logging
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from housing.core.errors import ConfigError, HousingError, StoreError
from housing.core.model_list import NAME_PATTERN, split_name
from housing.core.printable import configure_logging, hide_password, printable
from housing.serving.puller import publish_version, version_at_alias
from server.core.settings import Settings

SCHEME = "mlflow://"
RELEASES = "releases"
USAGE = "usage: python -m housing.serving.storage_initializer mlflow://MODEL@ALIAS DIRECTORY"

log = logging.getLogger("storage initializer")


def initialize(uri: str, directory: Path) -> str:
    """Publish the version at an address into a directory. Return the version.

    Raises
    ------
    BundleError
        If the version fails verification.
    ConfigError
        If the address is none.
    StoreError
        If there is no such version, or the store is unavailable.
    MlflowException, OSError
        If the version cannot be downloaded or stored.
    """
    name = uri.removeprefix(SCHEME)
    if name == uri or not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"The address must be {SCHEME}MODEL@ALIAS, as in {SCHEME}housing-california@production (got {uri!r:.200})."
        )
    model, alias = split_name(name)
    settings = replace(Settings.from_environment(), model=model, alias=alias, release_dir=directory / RELEASES)
    mlflow.set_tracking_uri(settings.tracking_uri)
    version = version_at_alias(settings, alias)
    if version is None:
        raise StoreError(f"{model} has no version at alias {alias} in {hide_password(settings.tracking_uri)}.")
    publish_version(settings, version, f"{version.version}-{version.run_id}", "")
    return str(version.version)


def main() -> None:
    """Take address and directory from the command line. On failure, exit with an error: the container is then started again."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the output is a log file
    configure_logging("storage initializer: %(message)s")
    log.setLevel(logging.INFO)
    if len(sys.argv) != 3:
        sys.exit(USAGE)
    uri, directory = sys.argv[1], Path(sys.argv[2])
    # the only folder of this container that is writable, also for the verification, which is a child process
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    try:
        version = initialize(uri, directory)
    except (HousingError, MlflowException, OSError) as error:
        sys.exit(printable(f"error: {error}"))
    log.info("Published version %s of %s", version, uri)


if __name__ == "__main__":
    main()
