"""Addresses of artifacts in an SQLite store, which must follow the store when its folder is copied or moved.

MLflow stores absolute addresses: it resolves a relative `artifact_location` while it creates an experiment. Whoever opens a copy
would write into the folder of the original, so the addresses are rewritten once.
"""

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from housing.core.errors import StoreError
from housing.core.files import short_path
from housing.core.locks import store_file

DEFAULT_EXPERIMENT = 0  # made by MLflow itself, and used by no command
TIMEOUT_SECONDS = 60.0  # to wait while another process writes to the store
# Columns of MLflow's tables that hold addresses below the location of their experiment.
ADDRESSES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
OF_EXPERIMENT = """
    SELECT artifact_uri FROM runs WHERE experiment_id = :id
    UNION SELECT artifact_location FROM logged_models WHERE experiment_id = :id
"""


@dataclass(frozen=True)
class LocalAddresses:
    """The addresses in an SQLite store whose artifacts are in a folder of this machine.

    Attributes
    ----------
    database
        The file of the store.
    root
        The folder of the artifacts of all experiments (`mlflow.artifacts`).
    """

    database: Path
    root: Path

    @classmethod
    def of_store(cls, tracking_uri: str, artifact_root: str | None) -> Self | None:
        """Return the addresses of a store, or None if it is a server, or if its artifacts are not in a folder."""
        file = store_file(tracking_uri)
        if file is None or not artifact_root or "://" in artifact_root:
            return None
        return cls(file.absolute(), Path(artifact_root).absolute())

    def follow(self) -> str | None:
        """Rewrite the addresses of a store that was copied or moved together with its artifacts.

        An experiment is left as it is while its old folder has artifacts that are missing below `root`.

        Returns
        -------
        str or None
            What was rewritten, or None if every address was right.

        Raises
        ------
        StoreError
            If the store cannot be written to.
        """
        try:
            with self._connected() as connection:
                moved = [
                    (number, location)
                    for number, _, location in self._outside(connection)
                    if not self._missing(connection, number, location)
                ]
                for number, location in moved:
                    self._rewrite(connection, number, location)
                connection.commit()
        except sqlite3.Error as error:
            raise StoreError(
                f"Could not read or rewrite the addresses of artifacts in {short_path(self.database)}: {error}."
                " A store that was copied or moved must be writable once."
            ) from error
        if not moved:
            return None
        places = ", ".join(sorted({str(_path(location).parent) for _, location in moved}))
        return (
            f"This store was copied or moved: the artifacts of {len(moved)} experiments are now read and written in"
            f" {short_path(self.root)} (before: {places})."
        )

    def outside(self) -> list[str]:
        """Return a sentence for each experiment whose artifacts are neither below `root` nor in the folder of the store."""
        with self._connected() as connection:
            return [self._describe(connection, *row) for row in self._outside(connection)]

    def require_inside(self, experiment_id: str) -> None:
        """Raise StoreError if the artifacts of an experiment are elsewhere."""
        with self._connected() as connection:
            for number, name, location in self._outside(connection):
                if str(number) == experiment_id:
                    raise StoreError(self._describe(connection, number, name, location))

    def _connected(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self.database, timeout=TIMEOUT_SECONDS))

    def _outside(self, connection: sqlite3.Connection) -> Iterator[tuple[int, str, str]]:
        """Yield number, name and location of the experiments whose artifacts are elsewhere on this machine."""
        query = "SELECT experiment_id, name, artifact_location FROM experiments WHERE experiment_id != ?"
        for number, name, location in connection.execute(query, (DEFAULT_EXPERIMENT,)).fetchall():
            if urlsplit(location or "").scheme in ("", "file") and not self._is_inside(_path(location or "")):
                yield number, name, location

    def _is_inside(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) or _is_same(path, folder) for folder in (self.root, self.database.parent))

    def _missing(self, connection: sqlite3.Connection, number: int, location: str) -> list[str]:
        """Return the folders of an experiment that exist at the old location only."""
        addresses = [address for (address,) in connection.execute(OF_EXPERIMENT, {"id": number})]
        parts = [address.removeprefix(location) for address in addresses if address.startswith(f"{location}/")]
        old, new = _path(location), self._new(location)
        return [part for part in parts if os.path.exists(f"{old}{part}") and not os.path.exists(f"{new}{part}")]

    def _rewrite(self, connection: sqlite3.Connection, number: int, location: str) -> None:
        names = {"old": location, "new": self._new(location).as_uri(), "id": number}
        for table, column in ADDRESSES:
            update = (
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1)"  # nosec B608  # names of ADDRESSES
                f" WHERE substr({column}, 1, length(:old) + 1) = :old || '/'"
            )
            connection.execute(update, names)
        connection.execute("UPDATE experiments SET artifact_location = :new WHERE experiment_id = :id", names)

    def _new(self, location: str) -> Path:
        return self.root / _path(location).name

    def _describe(self, connection: sqlite3.Connection, number: int, name: str, location: str) -> str:
        old, new, n_missing = _path(location), self._new(location), len(self._missing(connection, number, location))
        return (
            f"Experiment {name} has its artifacts in {old}, outside of {short_path(self.root)} (mlflow.artifacts), where"
            f" {n_missing} of its folders are missing. If this project is a copy, copy them as well:"
            f" {shlex.join(['cp', '-rn', f'{old}/.', str(new)])}. If they belong there: mlflow.artifacts={old.parent}"
        )


def _path(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))


def _is_same(path: Path, folder: Path) -> bool:
    """Return whether the parent of an experiment's folder is `folder` under another name, such as a link."""
    try:
        return os.path.samefile(path.parent, folder)
    except OSError:
        return False
