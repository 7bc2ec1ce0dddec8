"""Features: matrix in, matrix out. Blocks add columns, then the encoding gives what the estimator can take.

The same code runs in training and in the server. The state of a block is its parameters (JSON) and plain arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.applicability import ApplicabilityDomain
from housing.features.encoding import Encoder
from housing.features.gaussian_process import LocalGaussianProcess
from housing.features.landmarks import LandmarkDistances
from housing.features.nearest_neighbours import NearestNeighbours
from housing.features.ratios import Ratios
from housing.features.rotation import Rotation
from housing.features.target_encoding import SpatialTargetEncoding
from housing.schema.column import ROLES, Matrix, Vector
from housing.schema.table_schema import Schema

Arrays = dict[str, NDArray[Any]]


class Block(Protocol):
    """What a block of derived columns offers; `arrays` holds all that fitting learned."""

    names: list[str]
    arrays: Arrays
    is_local: bool  # whether its columns say little where no training row is near

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Learn from training rows."""

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the new columns, shape (rows, len(names)); NaN where a value cannot be had."""


@runtime_checkable
class UsesTargets(Block, Protocol):
    """A block whose columns come from other rows and their targets, so that a training row must not see itself."""

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn, and give each training row's columns as if the row were not among them."""


# The closed list of blocks: a bundle can name these and nothing else.
BLOCKS: dict[str, Callable[..., Block]] = {
    "rotation": Rotation,
    "distance": LandmarkDistances,
    "ratio": Ratios,
    "neighbours": NearestNeighbours,
    "target_encoding": SpatialTargetEncoding,
    "gaussian_process": LocalGaussianProcess,
}


CONFIG_KEYS = ("blocks", "exclude_roles", "applicability")


RESERVED_LABELS = ("encoder", "applicability")  # of the features themselves, among the arrays of their state


class Features:
    """The blocks of one model in a row, with the encoding at their end."""

    def __init__(self, schema: Schema, config: Mapping[str, Any], nan_handling: str) -> None:
        """Take what a config of the group `features` declares.

        Of each of `blocks`, by label, `block` names the class (else the label does), the rest are its parameters. `exclude_roles`
        names roles of columns that the estimator is not shown; `applicability` says from where on columns that hang on near
        training rows are missing. Raises ConfigError for a block, a parameter or a column that is not known.
        """
        _validate_config(config)
        self.config = {name: config[name] for name in CONFIG_KEYS}
        self.nan_handling = nan_handling
        self.blocks = {label: _make_block(schema, label, block) for label, block in config["blocks"].items()}
        shown = [place for place, column in enumerate(schema.features) if column.role not in config["exclude_roles"]]
        self.encoder = Encoder(schema, shown, [name for block in self.blocks.values() for name in block.names], nan_handling)
        _validate_names(schema, self.names)
        self.applicability = (
            None if nan_handling == "impute" else ApplicabilityDomain.from_config(schema, config["applicability"])
        )
        coordinates = schema.coordinates() or ()
        local = {name for block in self.blocks.values() if block.is_local for name in block.names}
        local |= {schema.features[place].name for place in coordinates}
        self.local_columns = [place for place, name in enumerate(self.names) if name in local]

    @property
    def names(self) -> list[str]:
        """The columns that the estimator sees."""
        return self.encoder.names

    def visible_columns(self, blocks: Sequence[str]) -> list[int]:
        """Give the places of the columns that are left where only some blocks are seen, by label.

        Raises ConfigError for a label that is not there.
        """
        unknown = sorted(set(blocks) - set(self.blocks))
        if unknown:
            raise ConfigError(f"a member sees block {unknown[0]!r}; its features have: {', '.join(self.blocks) or 'none'}")
        hidden = {name for label, block in self.blocks.items() if label not in blocks for name in block.names}
        return [place for place, name in enumerate(self.names) if name not in hidden]

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn from training rows and give their columns; those from other rows' targets are out of fold."""
        derived = [_fit_transform(block, matrix, target) for block in self.blocks.values()]
        if self.applicability is not None:
            self.applicability.fit(matrix)
        return self.encoder.fit(matrix, derived).transform(matrix, derived)

    def transform(self, matrix: Matrix) -> Matrix:
        """Give what the estimator sees, shape (rows, len(names))."""
        columns = self.encoder.transform(matrix, [block.transform(matrix) for block in self.blocks.values()])
        if self.applicability is not None:
            far = self.applicability.is_outside(matrix)
            if far.any():
                columns[far] = self.mask_local(columns[far])
        return columns

    def mask_local(self, columns: Matrix) -> Matrix:
        """Give columns as they are of rows that are far from every training row: what hangs on near ones is missing."""
        columns = columns.copy()
        columns[:, self.local_columns] = np.nan
        return columns

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """Give the declaration (JSON) and the fitted arrays; `restore` takes both."""
        arrays = {f"{label}.{name}": array for label, owned in self._arrays().items() for name, array in owned.items()}
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
        """Rebuild fitted features from their state. Raises ConfigError where the state does not fit together."""
        features = cls(schema, state, state["nan_handling"])
        owned = features._arrays()
        for name, array in arrays.items():
            label, _, key = name.partition(".")
            if label not in owned:
                raise ConfigError(f"array {name} belongs to no block; blocks: {', '.join(owned)}")
            owned[label][key] = array
        if features.names != state["names"]:
            raise ConfigError(f"the blocks give the columns {features.names}, the state names {state['names']}")
        return features


def _validate_config(config: Mapping[str, Any]) -> None:
    for part in CONFIG_KEYS:
        if part not in config:
            raise ConfigError(f"features.{part} is missing; a preset has {', '.join(CONFIG_KEYS)}")
    for role in config["exclude_roles"]:
        if role not in ROLES:
            raise ConfigError(f"features.exclude_roles has {role!r}; allowed: {', '.join(ROLES)}")
    for label in config["blocks"]:
        if label in RESERVED_LABELS or "." in label:
            raise ConfigError(
                f"a block is labelled {label!r}; allowed: a word that is not {' or '.join(RESERVED_LABELS)}, without dots"
            )


def _validate_names(schema: Schema, names: Sequence[str]) -> None:
    if not names:
        raise ConfigError(
            f"no column of table {schema.name} is left for the estimator: features.exclude_roles leaves all of them out"
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"features: column {twice[0]} is given twice; allowed: once")


def _fit_transform(block: Block, matrix: Matrix, target: Vector) -> Matrix:
    if isinstance(block, UsesTargets):
        return block.fit_transform(matrix, target)
    return block.fit(matrix, target).transform(matrix)


def _make_block(schema: Schema, label: str, config: Mapping[str, Any]) -> Block:
    parameters = {key: value for key, value in config.items() if key != "block"}
    name = config.get("block", label)
    if name not in BLOCKS:
        raise ConfigError(f"features: block {name!r} is not known; allowed: {', '.join(BLOCKS)}")
    try:
        return BLOCKS[name](schema, **parameters)
    except TypeError as error:
        raise ConfigError(f"features: block {name}: {error}") from error
