"""Entry: fit a run again from its own config, and tell whether it comes out the same.

python -m housing.reproduce run_id=ID
"""

import sys
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from housing import console, tracking
from housing.config import command
from housing.original import Original
from housing.provenance import provenance
from housing.records import Comparison
from housing.run import Job, run

SCORES = ("rmse", "mae", "r2")


def reproduce(cfg: DictConfig) -> list[Comparison]:
    """Fit a run again and compare: what it was made with, then what came of it.

    Raises HousingError where the run did not finish or its data is not here.
    """
    store = tracking.connect(cfg.mlflow)
    original = Original.read(store, cfg.run_id)
    again = original.cfg
    again.data.path = str(original.find_table(Path(cfg.paths.data)))
    again.mlflow, again.experiment_name = cfg.mlflow, f"{again.experiment_name}-reproduced"
    again.threads, again.rerun, again.trial, again.figures = cfg.threads, True, None, False
    again.tags = {**again.tags, "reproduces": cfg.run_id}
    with tempfile.TemporaryDirectory(prefix="housing-") as folder:
        outcome = run(again, Job([f"run_id={cfg.run_id}"], Path(folder) / "run"))
    made_with = [Comparison(what, original.run.tags.get(tag, "unknown"), now) for what, (tag, now) in provenance().items()]
    scores = [Comparison(name, repr(original.run.metrics[name]), repr(outcome.metrics[name])) for name in SCORES]
    return made_with + scores


@command("reproduce")
def main(cfg: DictConfig) -> None:
    """Print what is the same and what is not; exit code 1 where a score differs."""
    compared = reproduce(cfg)
    console.show_comparison(compared, cfg.run_id)
    if not all(row.same for row in compared if row.what in SCORES):
        sys.exit(1)


if __name__ == "__main__":
    main()
