"""Reproduction: a finished run fitted again from its own config, and compared with the original."""

import tempfile
from pathlib import Path

from omegaconf import DictConfig

from housing.runs.comparison import Comparison
from housing.runs.past_run import PastRun
from housing.runs.run import Job, run
from housing.runs.run_key import provenance
from housing.tracking import store as tracking_store

COMPARED_SCORES = ("rmse", "mae", "r2")


def reproduce(cfg: DictConfig) -> list[Comparison]:
    """Fit a run again and compare provenance and scores.

    Raises
    ------
    HousingError
        If the run did not finish, or its table is not on this machine.
    """
    store = tracking_store.connect(cfg.mlflow)
    original = PastRun.read(store, cfg.run_id)
    repeated_cfg = original.cfg
    repeated_cfg.data.path = str(original.locate_table(Path(cfg.data.path), Path(cfg.paths.data)))
    repeated_cfg.mlflow, repeated_cfg.experiment_name = cfg.mlflow, f"{repeated_cfg.experiment_name}-reproduced"
    repeated_cfg.n_threads, repeated_cfg.force_rerun, repeated_cfg.trial, repeated_cfg.figures = cfg.n_threads, True, None, False
    repeated_cfg.tags = {**repeated_cfg.tags, "reproduces": cfg.run_id}
    with tempfile.TemporaryDirectory(prefix="housing-") as folder:
        outcome = run(repeated_cfg, Job([f"run_id={cfg.run_id}"], Path(folder) / "run"))
    origins = [Comparison(name, original.run.tags.get(tag, "unknown"), value) for name, (tag, value) in provenance().items()]
    scores = [Comparison(name, repr(original.run.metrics[name]), repr(outcome.metrics[name])) for name in COMPARED_SCORES]
    return origins + scores
