"""Feature pipeline: blocks add columns, then the encoder turns all columns into numbers for the estimator.

Training and servers run the same code. The state of a block is its parameters (JSON) and plain arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.core.own_project import import_own_block
from housing.features.applicability import ApplicabilityDomain
from housing.features.encoding import CHUNK, Encoder, in_precision
from housing.features.gaussian_process import LocalGaussianProcess
from housing.features.landmarks import LandmarkDistances
from housing.features.level_encodings import CategoryEncoding
from housing.features.nearest_neighbours import NearestNeighbours
from housing.features.ratios import Ratios
from housing.features.rotation import Rotation
from housing.features.target_encoding import SpatialTargetEncoding
from housing.schema.column import Matrix, Vector
from housing.schema.declaration import ROLES
from housing.schema.table_schema import Schema

Arrays = dict[str, NDArray[Any]]


class Block(Protocol):
    """A block of derived columns.

    Attributes
    ----------
    names
        Names of the derived columns.
    arrays
        Fitted state.
    is_local
        Whether the columns are only meaningful near training rows.
    """

    names: list[str]
    arrays: Arrays
    is_local: bool

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Learn from training rows, shape (rows, features), and targets, shape (rows,)."""

    def transform(self, matrix: Matrix) -> Matrix:
        """Return the derived columns, shape (rows, names); NaN for a value that is not defined."""


@runtime_checkable
class UsesTargets(Block, Protocol):
    """A block whose columns depend on targets, so a training row must not contribute to its own columns."""

    def fit_transform(self, matrix: Matrix, target: Vector, weight: Vector | None = None, /) -> Matrix:
        """Fit, and return the columns of the training rows, each computed without the row itself, shape (rows, names).

        Means over groups of rows use the `weight` of each row. What describes single neighbours does not.
        """


# A closed list: a bundle can name these classes, those that housing.yaml of a project declares, and no others.
BLOCKS: dict[str, Callable[..., Block]] = {
    "rotation": Rotation,
    "distance": LandmarkDistances,
    "ratio": Ratios,
    "neighbours": NearestNeighbours,
    "target_encoding": SpatialTargetEncoding,
    "gaussian_process": LocalGaussianProcess,
}


CONFIG_KEYS = ("blocks", "exclude_roles", "applicability", "encoding")
RESERVED_LABELS = ("encoder", "applicability")  # prefixes of the pipeline's own arrays in its state


class Features:
    """The blocks of a model, followed by the encoder.

    Parameters
    ----------
    schema
        The columns of the table.
    config
        A config of the group `features`. `blocks` maps labels to parameters; `block` among them names the class, by default
        the label. `exclude_roles` lists roles of columns that the estimator does not receive. `applicability` sets the
        distance beyond which local columns are missing, or is None. `encoding` has the attributes of `CategoryEncoding`.
    nan_handling
        Passed to the encoder: "impute" or "native".

    Raises
    ------
    ConfigError
        If a block, a parameter or a column is unknown.
    """

    def __init__(self, schema: Schema, config: Mapping[str, Any], nan_handling: str) -> None:
        _validate_config(config)
        self.config = {name: config[name] for name in CONFIG_KEYS}
        self.nan_handling = nan_handling
        self.blocks = {label: _make_block(schema, label, block) for label, block in config["blocks"].items()}
        visible = [index for index, column in enumerate(schema.features) if column.role not in config["exclude_roles"]]
        derived = [name for block in self.blocks.values() for name in block.names]
        self.encoder = Encoder(schema, visible, derived, nan_handling, parse_encoding(config["encoding"]))
        _validate_names(schema, self.names)
        self.applicability = (
            None if nan_handling == "impute" else ApplicabilityDomain.from_config(schema, config["applicability"])
        )
        coordinates = schema.coordinates() or ()
        local = {name for block in self.blocks.values() if block.is_local for name in block.names}
        local |= {schema.features[index].name for index in coordinates}
        self.local_columns = [index for index, name in enumerate(self.names) if name in local]

    @property
    def names(self) -> list[str]:
        """The columns that the estimator receives."""
        return self.encoder.names

    def visible_columns(self, blocks: Sequence[str]) -> list[int]:
        """Return the indices of the columns of some blocks and of the table.

        Parameters
        ----------
        blocks
            Labels of the visible blocks.

        Raises
        ------
        ConfigError
            If there is no block with such a label.
        """
        unknown = sorted(set(blocks) - set(self.blocks))
        if unknown:
            names = ", ".join(self.blocks) or "none"
            raise ConfigError(f"visible_blocks names {unknown[0]!r}, which is not a block of the features. Blocks: {names}.")
        hidden = {name for label, block in self.blocks.items() if label not in blocks for name in block.names}
        return [index for index, name in enumerate(self.names) if name not in hidden]

    def fit_transform(
        self, matrix: Matrix, target: Vector, weight: Vector | None = None, precision: type[np.floating[Any]] = np.float64
    ) -> NDArray[Any]:
        """Fit on training rows and return their columns, shape (rows, names); columns from targets are out of fold.

        With the precision float32, the columns are computed and rounded a chunk of rows at a time.
        """
        fitted = [_fit_block(block, matrix, target, weight) for block in self.blocks.values()]
        if self.applicability is not None:
            self.applicability.fit(matrix)
        return self.encoder.fit_transform(matrix, target, lambda rows: [of_rows(rows) for of_rows in fitted], weight, precision)

    def transform(self, matrix: Matrix) -> Matrix:
        """Return the columns of new rows, shape (rows, names)."""
        columns = self.encoder.transform(matrix, [block.transform(matrix) for block in self.blocks.values()])
        if self.applicability is not None:
            is_far = self.applicability.is_outside(matrix)
            if is_far.any():
                columns[is_far] = self.mask_local(columns[is_far])
        return columns

    def transform_in_precision(self, matrix: Matrix, precision: type[np.floating[Any]]) -> NDArray[Any]:
        """Return the columns of new rows in a precision. Those in float32 are computed a chunk of rows at a time."""
        if precision is np.float64:
            return self.transform(matrix[:])
        columns = np.empty((len(matrix), len(self.names)), dtype=precision)
        for start in range(0, len(matrix), CHUNK):
            rows = slice(start, start + CHUNK)
            columns[rows] = in_precision(self.transform(matrix[rows]), precision)
        return columns

    def mask_local(self, columns: Matrix) -> Matrix:
        """Return a copy of the columns, shape (rows, names), with NaN for local ones, as for rows far from training rows."""
        columns = columns.copy()
        columns[:, self.local_columns] = np.nan
        return columns

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """Return the config, as JSON types, and the fitted arrays; `restore` reads both."""
        arrays = {f"{label}.{name}": array for label, state in self._arrays().items() for name, array in state.items()}
        return {**self.config, "nan_handling": self.nan_handling, "names": self.names}, arrays

    def _arrays(self) -> dict[str, Arrays]:
        parts: dict[str, Any] = {
            **self.blocks,
            "encoder": self.encoder,
            **({"applicability": self.applicability} if self.applicability else {}),
        }
        return {name: part.arrays for name, part in parts.items()}

    @classmethod
    def restore(cls, schema: Schema, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild a fitted pipeline from its state. Raises ConfigError if config and arrays do not match."""
        features = cls(schema, state, state["nan_handling"])
        states = features._arrays()
        for name, array in arrays.items():
            label, _, key = name.partition(".")
            if label not in states:
                raise ConfigError(f"Array {name} belongs to none of the blocks {', '.join(states)}.")
            states[label][key] = array
        if features.names != state["names"]:
            raise ConfigError(f"The blocks have the columns {features.names}, but the state lists {state['names']}.")
        return features


def parse_encoding(config: Mapping[str, Any]) -> CategoryEncoding:
    """Return the encoding that a config declares. Raises ConfigError."""
    try:
        return CategoryEncoding(**config)
    except TypeError as error:
        raise ConfigError(f"features.encoding: {error}") from error


def _validate_config(config: Mapping[str, Any]) -> None:
    for key in CONFIG_KEYS:
        if key not in config:
            raise ConfigError(f"features.{key} is missing. A features config needs {', '.join(CONFIG_KEYS)}.")
    for role in config["exclude_roles"]:
        if role not in ROLES:
            raise ConfigError(f"features.exclude_roles must be among {', '.join(ROLES)} (got {role!r}).")
    for label in config["blocks"]:
        if label in RESERVED_LABELS or "." in label:
            raise ConfigError(
                f"The label of a block must have no dots and must not be {' or '.join(RESERVED_LABELS)} (got {label!r})."
            )


def _validate_names(schema: Schema, names: Sequence[str]) -> None:
    if not names:
        raise ConfigError(
            f"features.exclude_roles excludes all columns of table {schema.name}. Remove a role, so that the estimator has input."
        )
    duplicates = [name for name in names if names.count(name) > 1]
    if duplicates:
        raise ConfigError(f"Two blocks create column {duplicates[0]}. Change the parameters of one of them, or remove it.")


def _fit_block(block: Block, matrix: Matrix, target: Vector, weight: Vector | None) -> Callable[[slice], Matrix]:
    """Fit a block, and return what computes its columns of a slice of the training rows."""
    if isinstance(block, NearestNeighbours):  # so many columns that those of all rows take several times the memory of the table
        return block.fit_leave_one_out(matrix, target)
    if isinstance(block, UsesTargets):
        columns = block.fit_transform(matrix, target, weight)
        return lambda rows: columns[rows]
    block.fit(matrix, target)
    return lambda rows: block.transform(matrix[rows])


def _make_block(schema: Schema, label: str, config: Mapping[str, Any]) -> Block:
    parameters = {key: value for key, value in config.items() if key != "block"}
    name = config.get("block", label)
    block: Callable[..., Block] | None = BLOCKS.get(name) or import_own_block(name)
    if block is None:
        raise ConfigError(
            f"Unknown block {name!r}. Blocks: {', '.join(BLOCKS)}, and feature_blocks in the project's housing.yaml."
        )
    try:
        return block(schema, **parameters)
    except TypeError as error:
        raise ConfigError(f"Block {name}: {error}") from error
