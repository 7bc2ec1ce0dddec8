"""TODO docstring."""

import tempfile
from pathlib import Path

from omegaconf import DictConfig

from housing.runs.comparison import Comparison
from housing.runs.past_run import Original
from housing.runs.run import Job, run
from housing.runs.run_key import provenance
from housing.tracking import store as tracking

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
