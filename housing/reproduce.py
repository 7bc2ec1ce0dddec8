"""Entry: fit a run again from its own config, and tell whether it comes out the same.

python -m housing.reproduce run_id=ID
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from housing import console, tracking
from housing.config import command
from housing.errors import HousingError
from housing.files import sha256
from housing.provenance import provenance
from housing.records import Comparison
from housing.run import Job, run
from housing.tracking import Tracked

SCORES = ("rmse", "mae", "r2")


@dataclass(frozen=True)
class Original:
    """The run to repeat, with the config it was made from."""

    run: Tracked
    cfg: DictConfig


def reproduce(cfg: DictConfig) -> list[Comparison]:
    """Fit a run again and compare: what it was made with, then what came of it.

    Raises HousingError where the run did not finish or its data is not here.
    """
    store = tracking.connect(cfg.mlflow)
    original = Original(store.get(cfg.run_id), store.config(cfg.run_id))
    if original.run.status != "FINISHED":
        raise HousingError(f"run {cfg.run_id} is {original.run.status}; allowed: a FINISHED one")
    again = original.cfg
    again.data.path = str(_find_table(original, Path(cfg.paths.data)))
    again.mlflow, again.experiment_name = cfg.mlflow, f"{again.experiment_name}-reproduced"
    again.threads, again.rerun, again.trial, again.figures = cfg.threads, True, None, False
    again.tags = {**again.tags, "reproduces": cfg.run_id}
    with tempfile.TemporaryDirectory(prefix="housing-") as folder:
        outcome = run(again, Job([f"run_id={cfg.run_id}"], Path(folder) / "run"))
    made_with = [Comparison(what, original.run.tags.get(tag, "unknown"), now) for what, (tag, now) in provenance().items()]
    scores = [Comparison(name, repr(original.run.metrics[name]), repr(outcome.metrics[name])) for name in SCORES]
    return made_with + scores


def _find_table(original: Original, folder: Path) -> Path:
    """Find the table that a run was fitted on, by its fingerprint, among the tables of this machine."""
    wanted = original.run.tags[tracking.DATA].partition("[")[0]  # of the whole file, where the run took its first rows
    here = [Path(original.cfg.data.path), *sorted(folder.glob("*.csv"))]
    found = {path: sha256(path) for path in here if path.is_file()}
    for path, fingerprint in found.items():
        if fingerprint == wanted:
            return path
    seen = "".join(f"\n  {path}: {fingerprint}" for path, fingerprint in found.items()) or " nothing"
    raise HousingError(f"the table of run {original.run.id} is not here. Its fingerprint: {wanted}; found:{seen}")


@command("reproduce")
def main(cfg: DictConfig) -> None:
    """Print what is the same and what is not; exit code 1 where a score differs."""
    compared = reproduce(cfg)
    console.show_comparison(compared, cfg.run_id)
    if not all(row.same for row in compared if row.what in SCORES):
        sys.exit(1)


if __name__ == "__main__":
    main()
