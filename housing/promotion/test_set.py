"""The test rows on which challenger and champion are scored."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from omegaconf import DictConfig

from housing.data import table as tables
from housing.data.settings import parse_schema
from housing.data.split import Split, SplitSettings, split
from housing.data.table import Table
from housing.data.units import Units
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
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
    def load(cls, data: DictConfig, split_cfg: DictConfig, max_rows: int | None) -> Self:
        """Load the table of the config `data` and split it."""
        table = tables.load(data, max_rows)
        return cls(table, split(table, split_cfg), split_cfg)

    def __len__(self) -> int:
        """Return the number of test rows."""
        return len(self.parts.test)

    def matrix_for(self, schema: Schema) -> Matrix:
        """Return the features of the test rows, shape (rows, schema.features), with the levels of a schema of equal columns."""
        return self.table.with_levels(schema.levels).matrix[self.parts.test]

    @property
    def actual(self) -> Vector:
        """Targets of the test rows."""
        return self.table.target[self.parts.test]

    @property
    def units(self) -> Units | None:
        """The units of the test rows, or None if each row is one."""
        return None if self.parts.units is None else self.parts.units.take(self.parts.test)

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

        That holds for the same table and split. It also holds for another version of the table if the split is stable: then
        a row never moves from one part to another.
        """
        if self.tags().items() <= run.tags.items():
            return True
        run_cfg = artifacts.read_config(run.id)
        same_split = SplitSettings.from_config(self.split).is_stable and run_cfg.split == self.split
        return bool(same_split and _key_columns(parse_schema(run_cfg.data)) == _key_columns(self.table.schema))


def _key_columns(schema: Schema) -> list[tuple[object, ...]]:
    return [(column.name, column.type, column.declared_categories) for column in schema.key]
