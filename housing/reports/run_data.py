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
from housing.evaluation.results import Honest
from housing.evaluation.slices import Group, groups_of
from housing.runs.past_run import Original
from housing.runs.run import EVIDENCE
from housing.schema.column import Matrix, Vector
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store
from housing.training.estimator_specs import asked
from housing.training.holdout import Evidence


@dataclass(frozen=True)
class Subject:
    """One run. Its errors are those of the validation rows, predicted by a fit on the training rows alone."""

    label: str
    original: Original
    table: Table
    parts: Split
    bundle: Bundle
    evidence: Evidence
    decision: RunRecord | None  # the newest about the run
    honest: Honest | None

    @property
    def id(self) -> str:
        """MLflow's name for the run."""
        return self.original.run.id

    @property
    def cfg(self) -> DictConfig:
        """The config that the run was made from."""
        return self.original.cfg

    @property
    def predicted(self) -> Vector:
        """What is predicted for the validation rows."""
        return self.evidence.predicted

    @property
    def actual(self) -> Vector:
        """Their targets."""
        return self.table.target[self.evidence.rows]

    @property
    def error(self) -> Vector:
        """By how much predictions are too high."""
        return self.predicted - self.actual

    @property
    def places(self) -> Matrix | None:
        """Latitude and longitude of the validation rows, where the table has them."""
        coordinates = self.table.schema.coordinates()
        return None if coordinates is None else self.table.matrix[self.evidence.rows][:, coordinates]

    @cached_property
    def groups(self) -> list[Group]:
        """The slices of the validation rows."""
        return groups_of(self.table, self.evidence.rows, self.cfg.data)

    @property
    def unit(self) -> str:
        """The target with its unit."""
        target = self.table.schema.target
        return f"{target.name} ({target.unit})" if target.unit else target.name

    @property
    def rows(self) -> str:
        """Say which rows figures of errors are of."""
        return f"{len(self.evidence.rows):,} validation rows, by a fit on the {len(self.parts.train):,} training rows alone"

    @property
    def is_stopped_early(self) -> bool:
        """Whether the validation rows said how many trees there are."""
        return any(one.stopping for one in asked(self.cfg))


def read(cfg: DictConfig, store: Store, run_id: str, label: str = "") -> Subject:
    """Read all that a report needs of a run. Raises HousingError where something is missing, and says what makes it."""
    original = Original.read(store, run_id)
    if tags.MODEL_ID not in original.run.tags:
        raise HousingError(
            f"run {run_id} kept no bundle (log_model=best keeps that of the best run of a sweep alone);"
            f" this fits it again: python -m housing.promote data={original.cfg.data.name} run_id={run_id}"
        )
    original.cfg.data.path = str(original.find_table(Path(cfg.paths.data)))
    cfg = _with_data(cfg, original.cfg)
    table = data.load(original.cfg.data, original.cfg.limit)
    parts = split(table, original.cfg.split)
    with store.artifacts.bundle(f"models:/{original.run.tags[tags.MODEL_ID]}") as folder:
        bundle = Bundle.read(folder)
    decision, kept = _decided(cfg, store, original)
    if cfg.evaluate == "honest" and kept is None:
        kept = evaluate(cfg, original.cfg, table, parts, bundle)
    name = label or f"{original.cfg.model.name} on features {original.cfg.features.name}"
    return Subject(name, original, table, parts, bundle, _evidence(store, run_id), decision, kept)


def _evidence(store: Store, run_id: str) -> Evidence:
    try:
        with store.artifacts.directory(run_id, EVIDENCE) as folder:
            return Evidence.read(folder)
    except StoreError as error:
        raise StoreError(f"{error}: it was made by an older version; housing.train with rerun=true makes it again") from error


def _decided(cfg: DictConfig, store: Store, original: Original) -> tuple[RunRecord | None, Honest | None]:
    """Give the newest decision about a run, and the honest evaluation of the newest that has one."""
    about = {tags.CHALLENGER: original.run.id}
    newest = store.runs.find_first(cfg.decisions, about, "attributes.start_time DESC")
    evaluated = store.runs.find_first(cfg.decisions, about | {tags.EVALUATED: "honest"}, "attributes.start_time DESC")
    kept = (
        None if evaluated is None else Honest.from_dict(json.loads(store.artifacts.read_text(evaluated.id, tags.EVALUATION_FILE)))
    )
    return newest, kept


def _with_data(cfg: DictConfig, of_run: DictConfig) -> DictConfig:
    """Give the report's config with the table of the run."""
    cfg = cfg.copy()
    cfg.data = of_run.data
    return cfg
