"""The test rows on which challenger and champion are scored."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from omegaconf import DictConfig

from housing.data.settings import parse_schema
from housing.data.split import Split, SplitSettings, split
from housing.data.table import Table
from housing.data.units import Units
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from housing.streaming.loading import load
from housing.tracking import tags
from housing.tracking.artifacts import Artifacts
from housing.tracking.runs import RunRecord


@dataclass(frozen=True)
class TestSet:
    """A table and its test rows. `split` is the config that selected them."""

    table: Table
    parts: Split
    split: DictConfig

    @classmethod
    def load(cls, cfg: DictConfig) -> Self:
        """Load the table of a command's config and split it."""
        table = load(cfg)
        return cls(table, split(table, cfg.split), cfg.split)

    def __len__(self) -> int:
        """Return the number of test rows."""
        return len(self.parts.test)

    def matrix_for(self, schema: Schema) -> Matrix:
        """Return the features of the test rows, shape (rows, features + components), encoded as a schema of equal columns."""
        return self.table.encoded_as(schema).matrix[self.parts.test]

    @property
    def actual(self) -> Vector:
        """Targets of the test rows."""
        return self.table.target[self.parts.test]

    @property
    def units(self) -> Units | None:
        """The units of the test rows, or None if each row is one."""
        return self.parts.units_of(self.parts.test)

    @property
    def weight(self) -> Vector | None:
        """Weights of the test rows, or None if all rows count alike."""
        return self.table.weight_of(self.parts.test)

    @property
    def training_mean(self) -> float:
        """Weighted mean target of the training rows."""
        return float(np.average(self.table.target[self.parts.train], weights=self.table.weight_of(self.parts.train)))

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that was fitted on this table and split."""
        return {tags.DATA: self.table.fingerprint, tags.SPLIT: self.parts.fingerprint()}

    def is_unseen_by(self, run: RunRecord, artifacts: Artifacts) -> bool:
        """Whether a run was certainly fitted on none of the test rows.

        That holds for the same table and split. It also holds for another version of the table if the split is stable, since then
        a row never moves from one part to another, and if all rows of the run are older than the test rows.
        """
        if self.tags().items() <= run.tags.items():
            return True
        run_cfg = artifacts.read_config(run.id)
        run_schema, by = parse_schema(run_cfg.data), self.split.get("by")
        if SplitSettings.from_config(self.split).is_stable:
            return bool(run_cfg.split == self.split and _split_columns(run_schema, by) == _split_columns(self.table.schema, by))
        same_time = run_cfg.split.get("by") == by and _time_columns(run_schema, by) == _time_columns(self.table.schema, by)
        return same_time and tags.FITTED_UNTIL in run.tags and self._is_after(float(run.tags[tags.FITTED_UNTIL]))

    def _is_after(self, time: float) -> bool:
        """Whether all test rows are later than a time."""
        return self.units is not None and self.units.times is not None and float(self.units.times.min()) > time


def _split_columns(schema: Schema, by: str | None) -> list[tuple[object, ...]]:
    """Return what the columns are that a stable split depends on. `by` is the column that a split by groups names."""
    groups = [column for column in schema.columns if column.role == "group" or column.name == by]
    return [(column.name, column.type, column.declared_categories) for column in (*schema.key, *groups)]


def _time_columns(schema: Schema, by: str | None) -> list[tuple[str, str]]:
    """Return the column, with its type, that a split by time depends on. `by` is the column that the split names."""
    return [
        (column.name, column.type) for column in schema.columns if column.name == by or (by is None and column.role == "time")
    ]
