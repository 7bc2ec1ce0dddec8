"""Features: matrix in, matrix out. Blocks add columns, then the encoding gives what the estimator can take.

The same code runs in training and in the server. The state of a block is its parameters (JSON) and plain arrays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from housing.errors import ConfigError
from housing.features.distance import Distance
from housing.features.encode import Encode
from housing.features.ratio import Ratio
from housing.features.rotation import Rotation
from housing.schema import Matrix, Schema, Vector

Arrays = dict[str, NDArray[Any]]


class Block(Protocol):
    """What a block of derived columns offers; `arrays` holds all that fitting learned."""

    names: list[str]
    arrays: Arrays

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Learn from training rows."""

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the new columns, shape (rows, len(names)); NaN where a value cannot be had."""


# The closed list of blocks: a bundle can name these and nothing else.
BLOCKS: dict[str, Callable[..., Block]] = {"rotation": Rotation, "distance": Distance, "ratio": Ratio}


class Features:
    """The blocks of one model in a row, with the encoding at their end."""

    def __init__(self, schema: Schema, blocks: Sequence[Mapping[str, Any]], missing: str) -> None:
        """Take the blocks as declared (`block` names the class, the rest are its parameters).

        Raises ConfigError for a block, a parameter or a column that is not known.
        """
        self.declared = [dict(block) for block in blocks]
        self.missing = missing
        self.blocks = [_build(schema, block) for block in self.declared]
        self.encode = Encode(schema, [name for block in self.blocks for name in block.names], missing)

    @property
    def names(self) -> list[str]:
        """The columns that the estimator sees."""
        return self.encode.names

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn from training rows and give what the estimator is fitted on."""
        derived = self._derive([block.fit(matrix, target) for block in self.blocks], matrix)
        return self.encode.fit(matrix, derived).transform(matrix, derived)

    def transform(self, matrix: Matrix) -> Matrix:
        """Give what the estimator sees, shape (rows, len(names))."""
        return self.encode.transform(matrix, self._derive(self.blocks, matrix))

    @staticmethod
    def _derive(blocks: Sequence[Block], matrix: Matrix) -> Matrix:
        return np.hstack([np.empty((len(matrix), 0)), *(block.transform(matrix) for block in blocks)])

    def state(self) -> tuple[dict[str, Any], Arrays]:
        """Give the declaration (JSON) and the fitted arrays; `restore` takes both."""
        arrays = {f"{place}.{name}": array for place, owned in self._arrays().items() for name, array in owned.items()}
        return {"blocks": self.declared, "missing": self.missing, "names": self.names}, arrays

    def _arrays(self) -> dict[str, Arrays]:
        return {**{str(place): block.arrays for place, block in enumerate(self.blocks)}, "encode": self.encode.arrays}

    @classmethod
    def restore(cls, schema: Schema, declared: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild fitted features from their state. Raises ConfigError where the state does not fit together."""
        features = cls(schema, declared["blocks"], declared["missing"])
        owned = features._arrays()
        for name, array in arrays.items():
            place, _, key = name.partition(".")
            if place not in owned:
                raise ConfigError(f"array {name} belongs to no block; blocks: {', '.join(owned)}")
            owned[place][key] = array
        if features.names != declared["names"]:
            raise ConfigError(f"the blocks give the columns {features.names}, the state names {declared['names']}")
        return features


def _build(schema: Schema, declared: Mapping[str, Any]) -> Block:
    parameters = {key: value for key, value in declared.items() if key != "block"}
    name = declared.get("block")
    if name not in BLOCKS:
        raise ConfigError(f"features: block {name!r} is not known; allowed: {', '.join(BLOCKS)}")
    try:
        return BLOCKS[name](schema, **parameters)
    except TypeError as error:
        raise ConfigError(f"features: block {name}: {error}") from error
