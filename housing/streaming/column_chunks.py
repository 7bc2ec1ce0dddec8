"""Column chunks: the columns that an estimator receives, computed chunk by chunk whenever they are needed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.encoding import in_precision
from housing.features.landmarks import LandmarkDistances
from housing.features.level_encodings import positions
from housing.features.pipeline import Features
from housing.features.ratios import Ratios
from housing.features.rotation import Rotation
from housing.schema.column import Matrix, Vector

ROW_BLOCKS = (Rotation, LandmarkDistances, Ratios)  # their columns depend on the row alone, apart from means of columns


@dataclass(frozen=True)
class OutOfFoldLevels:
    """The numbers of a category's levels, which depend on targets, so that a training row gets those of the other folds.

    Attributes
    ----------
    index
        The category's index in the matrix.
    n_levels
        The number of its levels.
    fold_of
        The fold of each training row, shape (rows,).
    values
        Shape (folds, n_levels + 2, numbers of a level).
    """

    index: int
    n_levels: int
    fold_of: NDArray[np.int8]
    values: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ColumnChunks:
    """Columns of many rows, in float32, which boosted trees compute with.

    Attributes
    ----------
    matrix
        The rows: a `DiskMatrix`, `SelectedRows` of a matrix in memory, or an array if they are few.
    chunk_rows
        The number of rows of a chunk.
    columns
        The selected columns of the features, or None for all.
    out_of_fold
        Of training rows: their columns that depend on targets. They are the last ones of the features.
    fit
        Fits an estimator on such chunks in the place of `housing.estimators.xgboost_chunks.fit_on_chunks`, or None.
    """

    features: Features
    matrix: Any
    chunk_rows: int
    columns: list[int] | None = None
    out_of_fold: list[OutOfFoldLevels] = field(default_factory=list)
    fit: Callable[..., None] | None = None

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the chunks."""
        for part in self.parts():
            yield part.compute()

    def parts(self) -> Iterator[Self]:
        """Yield the rows of each chunk, in memory, whose columns are not computed yet."""
        for start in range(0, len(self.matrix), self.chunk_rows):
            rows = slice(start, min(start + self.chunk_rows, len(self.matrix)))
            out_of_fold = [replace(levels, fold_of=levels.fold_of[rows]) for levels in self.out_of_fold]
            yield replace(self, matrix=self.matrix[rows], out_of_fold=out_of_fold, fit=None)

    def compute(self) -> NDArray[np.float32]:
        """Return the columns of all rows, which are in memory, shape (rows, n_columns)."""
        columns = self.features.transform(self.matrix)
        levels = [self._levels(self.matrix, of_column) for of_column in self.out_of_fold]
        if levels:
            columns[:, columns.shape[1] - sum(part.shape[1] for part in levels) :] = np.concatenate(levels, axis=1)
        return in_precision(columns if self.columns is None else columns[:, self.columns], np.float32)

    @property
    def nbytes(self) -> int:
        """The bytes in memory that only these columns need."""
        return sum(levels.fold_of.nbytes for levels in self.out_of_fold)

    @property
    def n_columns(self) -> int:
        """The number of columns."""
        return len(self.features.names if self.columns is None else self.columns)

    def __getitem__(self, key: tuple[slice, list[int]]) -> Self:
        """Return the same rows with some columns only: `chunks[:, columns]`."""
        rows, columns = key
        assert rows == slice(None) and self.columns is None
        return replace(self, columns=columns)

    @staticmethod
    def _levels(matrix: Matrix, levels: OutOfFoldLevels) -> NDArray[np.float64]:
        codes = positions(matrix[:, levels.index], np.array(levels.n_levels))
        return np.asarray(levels.values[levels.fold_of, codes])


def fit_in_chunks(features: Features, matrix: Any, target: Any, weight: Vector | None, chunk_rows: int) -> ColumnChunks:
    """Fit features on training rows, one column at a time, and return their columns.

    Raises
    ------
    ConfigError
        If the features need all columns of the training rows at once.
    """
    require_row_features(features)
    for block in features.blocks.values():
        block.fit(matrix, target)
    encoder = features.encoder
    if not encoder.many_levels:
        return ColumnChunks(features, matrix, chunk_rows)
    targets, weights, out_of_fold = target[:], np.ones(len(target)) if weight is None else weight, []
    for index in encoder.many_levels:
        codes, n_levels = matrix[:, index], encoder.n_levels(index)
        encoder.arrays[f"level_values_{index}"] = encoder.encoding.level_values(codes, targets, weights, n_levels)
        out_of_fold.append(OutOfFoldLevels(index, n_levels, *encoder.encoding.fold_values(codes, targets, weights, n_levels)))
    return ColumnChunks(features, matrix, chunk_rows, out_of_fold=out_of_fold)


def are_row_features(features: Features) -> bool:
    """Return whether features need only one column of the training rows at a time."""
    are_row_blocks = all(isinstance(block, ROW_BLOCKS) for block in features.blocks.values())
    return are_row_blocks and not features.encoder.impute and features.applicability is None


def require_row_features(features: Features) -> None:
    """Raise ConfigError if features need more of the training rows than one column at a time."""
    for label, block in features.blocks.items():
        if not isinstance(block, ROW_BLOCKS):
            raise ConfigError(
                f"engine=stream and dask have no feature block {label}, which needs all training rows in memory."
                " Use features=none, static or landmarks, or engine=memory."
            )
    if features.encoder.impute:
        raise ConfigError("engine=stream and dask need model.nan_handling=native (got impute), which XGBoost supports.")
    if features.applicability is not None:
        raise ConfigError("engine=stream and dask need features.applicability=null: it needs all training rows in memory.")
