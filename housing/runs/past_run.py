"""A run that is finished, with the config and the table that it was made from."""

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


@dataclass(frozen=True)
class PastRun:
    """The run, and its config."""

    run: RunRecord
    cfg: DictConfig

    @classmethod
    def read(cls, store: Store, run_id: str) -> Self:
        """Read a run. Raises HousingError where it is not there, is no run of `housing.train`, or did not finish."""
        run = store.runs.get(run_id)
        kind = run.tags.get(tags.RUN_TYPE, "run of something else")
        if kind != "run":
            raise HousingError(f"run {run_id} is a {kind}; allowed: a run of housing.train")
        if run.status != "FINISHED":
            raise HousingError(f"run {run_id} is {run.status}; allowed: a FINISHED one")
        return cls(run, store.artifacts.read_config(run_id))

    def locate_table(self, folder: Path) -> Path:
        """Find the table that the run was fitted on, by its fingerprint, among the tables of this machine."""
        fingerprint_of_run = self.run.tags[tags.DATA].partition("[")[0]  # of the whole file, where the run took its first rows
        here = [Path(self.cfg.data.path), *sorted(folder.glob("*.csv"))]
        fingerprints = {path: sha256(path) for path in here if path.is_file()}
        for path, fingerprint in fingerprints.items():
            if fingerprint == fingerprint_of_run:
                return path
        listing = "".join(f"\n  {path}: {fingerprint}" for path, fingerprint in fingerprints.items()) or " nothing"
        raise HousingError(
            f"the table of run {self.run.id} is not here. Its fingerprint: {fingerprint_of_run}; found:{listing}{self._recovery_hint(folder)}"
        )

    def _recovery_hint(self, folder: Path) -> str:
        """Say how DVC brings an older version of the table back, where the table is under DVC."""
        place = dvc_file(folder / Path(self.cfg.data.path).name)
        if not place.is_file():
            return ""
        commit = self.run.tags.get(environment.COMMIT_TAG, "COMMIT")
        return (
            f"\nthe table is under DVC; this brings the version at the run's commit (git log -- {place} lists all):"
            f"\n  git checkout {commit} -- {place} && dvc checkout {place}"
            f"\nand this the present one again:\n  git checkout HEAD -- {place} && dvc checkout {place}"
        )
