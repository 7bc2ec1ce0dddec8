"""A run as a report looks at it: what the store has of it, its table, and the rows that its figures are of."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import HousingError, StoreError
from housing.data import table as data
from housing.data.split import Split, split
from housing.data.table import Table
from housing.evaluation.evaluate import evaluate
from housing.evaluation.results import Evaluation
from housing.evaluation.slices import SliceMask, make_slices
from housing.runs.past_run import PastRun
from housing.runs.run import HOLDOUT
from housing.schema.column import Matrix, Vector
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store
from housing.training.estimator_specs import estimator_specs
from housing.training.holdout import HoldoutPredictions


@dataclass(frozen=True)
class RunData:
    """One run. Its errors are those of the validation rows, predicted by a fit on the training rows alone."""

    label: str
    past_run: PastRun
    table: Table
    parts: Split
    bundle: Bundle
    holdout: HoldoutPredictions
    decision: RunRecord | None  # the newest about the run
    evaluation: Evaluation | None

    @property
    def id(self) -> str:
        """MLflow's name for the run."""
        return self.past_run.run.id

    @property
    def cfg(self) -> DictConfig:
        """The config that the run was made from."""
        return self.past_run.cfg

    @property
    def predictions(self) -> Vector:
        """What is predicted for the validation rows."""
        return self.holdout.predicted

    @property
    def actual(self) -> Vector:
        """Their targets."""
        return self.table.target[self.holdout.rows]

    @property
    def error(self) -> Vector:
        """By how much predictions are too high."""
        return self.predictions - self.actual

    @property
    def coordinates(self) -> Matrix | None:
        """Latitude and longitude of the validation rows, where the table has them."""
        coordinates = self.table.schema.coordinates()
        return None if coordinates is None else self.table.matrix[self.holdout.rows][:, coordinates]

    @cached_property
    def slices(self) -> list[SliceMask]:
        """The slices of the validation rows."""
        return make_slices(self.table, self.holdout.rows, self.cfg.data)

    @property
    def target_label(self) -> str:
        """The target with its unit."""
        target = self.table.schema.target
        return f"{target.name} ({target.unit})" if target.unit else target.name

    @property
    def rows_description(self) -> str:
        """Say which rows figures of errors are of."""
        return f"{len(self.holdout.rows):,} validation rows, by a fit on the {len(self.parts.train):,} training rows alone"

    @property
    def uses_early_stopping(self) -> bool:
        """Whether the validation rows said how many trees there are."""
        return any(one.early_stopping_rounds for one in estimator_specs(self.cfg))


def read(cfg: DictConfig, store: Store, run_id: str, label: str = "") -> RunData:
    """Read all that a report needs of a run. Raises HousingError where something is missing, and says what makes it."""
    original = PastRun.read(store, run_id)
    if tags.MODEL_ID not in original.run.tags:
        raise HousingError(
            f"run {run_id} kept no bundle (log_model=best keeps that of the best run of a sweep alone);"
            f" this fits it again: python -m housing.promote data={original.cfg.data.name} run_id={run_id}"
        )
    original.cfg.data.path = str(original.locate_table(Path(cfg.paths.data)))
    cfg = _with_data(cfg, original.cfg)
    table = data.load(original.cfg.data, original.cfg.max_rows)
    parts = split(table, original.cfg.split)
    with store.artifacts.bundle(f"models:/{original.run.tags[tags.MODEL_ID]}") as folder:
        bundle = Bundle.read(folder)
    decision, kept = _latest_decision(cfg, store, original)
    if cfg.evaluate == "full" and kept is None:
        kept = evaluate(cfg, original.cfg, table, parts, bundle)
    name = label or f"{original.cfg.model.name} on features {original.cfg.features.name}"
    return RunData(name, original, table, parts, bundle, _read_holdout(store, run_id), decision, kept)


def _read_holdout(store: Store, run_id: str) -> HoldoutPredictions:
    try:
        with store.artifacts.directory(run_id, HOLDOUT) as folder:
            return HoldoutPredictions.read(folder)
    except StoreError as error:
        raise StoreError(
            f"{error}: it was made by an older version; housing.train with force_rerun=true makes it again"
        ) from error


def _latest_decision(cfg: DictConfig, store: Store, past_run: PastRun) -> tuple[RunRecord | None, Evaluation | None]:
    """Give the newest decision about a run, and the honest evaluation of the newest that has one."""
    about = {tags.CHALLENGER: past_run.run.id}
    newest = store.runs.find_first(cfg.decisions_experiment, about, "attributes.start_time DESC")
    evaluated = store.runs.find_first(cfg.decisions_experiment, about | {tags.EVALUATED: "full"}, "attributes.start_time DESC")
    kept = (
        None
        if evaluated is None
        else Evaluation.from_dict(json.loads(store.artifacts.read_text(evaluated.id, tags.EVALUATION_FILE)))
    )
    return newest, kept


def _with_data(cfg: DictConfig, run_cfg: DictConfig) -> DictConfig:
    """Give the report's config with the table of the run."""
    cfg = cfg.copy()
    cfg.data = run_cfg.data
    return cfg
