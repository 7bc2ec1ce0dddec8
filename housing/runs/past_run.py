"""A finished run with its config and the table that it was fitted on."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from omegaconf import DictConfig

from housing.core import environment
from housing.core.errors import HousingError
from housing.core.files import sha256
from housing.data.dvc import dvc_file
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store

COMMIT = re.compile("[0-9a-f]{7,64}")


@dataclass(frozen=True)
class PastRun:
    """A finished run of housing.train and its config."""

    run: RunRecord
    cfg: DictConfig

    @classmethod
    def read(cls, store: Store, run_id: str) -> Self:
        """Read a run from the store.

        Raises
        ------
        HousingError
            If the run does not exist, did not finish, or is not a run of housing.train of this version.
        """
        run = store.runs.get(run_id)
        run_type = run.tags.get(tags.RUN_TYPE, "run of another program")
        if run_type != "run":
            raise HousingError(f"Run {run_id} is a {run_type}; expected a run of housing.train.")
        if run.status != "FINISHED":
            raise HousingError(f"Run {run_id} is {run.status}; expected a FINISHED run.")
        return cls(run, store.artifacts.read_config(run_id))

    def locate_table(self, configured: Path, folder: Path) -> Path:
        """Return the file of the table that the run was fitted on, found by its fingerprint.

        The path in the stored config is not read: it could be any file of this machine.

        Raises
        ------
        HousingError
            If neither the `configured` path nor a CSV file in `folder` has that fingerprint.
        """
        expected = self.run.tags[tags.DATA].partition("[")[0]  # "[:n]" marks a run on the first n rows of the file
        candidates = [configured, *sorted(folder.glob("*.csv*"))]
        fingerprints = {path: sha256(path) for path in candidates if path.is_file()}
        for path, fingerprint in fingerprints.items():
            if fingerprint == expected:
                return path
        listing = "".join(f"\n  {path}: {fingerprint}" for path, fingerprint in fingerprints.items()) or " none"
        raise HousingError(
            f"The table of run {self.run.id} was not found. Expected fingerprint: {expected}. Tables on this machine:"
            f"{listing}\nIf it is in another folder, name its file: data.path=FILE{self._recovery_hint(folder)}"
        )

    def _recovery_hint(self, folder: Path) -> str:
        """Return the commands that restore an older version of the table with DVC, or "" if the table is not under DVC."""
        pointer = dvc_file(folder / Path(self.cfg.data.path).name)
        if not pointer.is_file():
            return ""
        tag = self.run.tags.get(environment.COMMIT_TAG, "")
        commit = tag if COMMIT.fullmatch(tag) else "COMMIT"  # a tag is text that anyone may have written, not a shell word
        return (
            f"\nThe table is under DVC. To restore its version at the run's commit (git log -- {pointer} lists all versions):"
            f"\n  git checkout {commit} -- {pointer} && dvc checkout {pointer}"
            f"\nTo return to the current version:\n  git checkout HEAD -- {pointer} && dvc checkout {pointer}"
        )
