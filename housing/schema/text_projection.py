"""Texts as numbers: hashed character n-grams, weighted and projected on directions that the training texts span.

Deerwester et al., "Indexing by Latent Semantic Analysis", JASIS 41 (1990) 391-407, with n-grams of characters in place of words.
Each text is computed on its own and summed in a fixed order, so its numbers do not depend on the texts beside it.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import BundleError

N_BUCKETS = 4096
LENGTHS = (3, 4, 5)  # of n-grams, in characters
MAX_LENGTH = 10_000  # characters of a text, unless the column declares another limit
N_COMPONENTS = 32  # of a column that does not declare them
MAX_COMPONENTS = 512

Weights = NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # compared by identity: arrays have no single truth value
class TextProjection:
    """The fitted projection of one column.

    Attributes
    ----------
    idf
        The weight of each bucket of n-grams, shape (N_BUCKETS,): high for n-grams that few training texts have.
    components
        Directions as columns, each of length 1 or 0, shape (N_BUCKETS, components).
    """

    idf: Weights
    components: NDArray[np.float64]

    def encode(self, text: str | None) -> Weights:
        """Return the numbers of a text, shape (1 + components,), all NaN for a missing text.

        The first number is the share of the text that the components explain, from 0 (no n-gram in common with the training
        texts, or no text) to 1. The others are the coordinates of the text, whose weighted n-grams have length 1.
        """
        numbers = np.full(1 + self.components.shape[1], np.nan)
        if text is not None:
            buckets, weights = weigh(text, self.idf)
            numbers[1:] = np.add.reduce(weights[:, None] * self.components[buckets], axis=0)
            numbers[0] = np.add.reduce(np.square(numbers[1:]))
        return numbers

    def to_arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays that `from_arrays` reads."""
        return {f"{prefix}.idf": self.idf, f"{prefix}.components": self.components}

    @classmethod
    def from_arrays(cls, prefix: str, arrays: Mapping[str, NDArray[Any]], n_components: int) -> "TextProjection":
        """Return a stored projection. Raises BundleError unless its arrays are there, finite and of the right shape and type."""
        shapes = {"idf": (N_BUCKETS,), "components": (N_BUCKETS, n_components)}
        for name, shape in shapes.items():
            array = arrays.get(f"{prefix}.{name}")
            if array is None or array.dtype != np.float64 or array.shape != shape or not np.isfinite(array).all():
                actual = "no such array" if array is None else f"{array.dtype}, shape {array.shape}"
                raise BundleError(f"{prefix}.{name} must hold finite float64 numbers, shape {shape} (got {actual}).")
        return cls(*(np.ascontiguousarray(arrays[f"{prefix}.{name}"]) for name in shapes))


def weigh(text: str, idf: Weights) -> tuple[NDArray[np.intp], Weights]:
    """Return the buckets of a text in ascending order, and their weights, scaled to length 1."""
    buckets, counts = np.unique(np.fromiter(_hash_ngrams(text), dtype=np.intp), return_counts=True)
    weights = np.sqrt(counts) * idf[buckets]  # the root is exact on every processor, which a logarithm is not
    length = np.sqrt(np.add.reduce(np.square(weights)))
    return buckets, weights / length if length else weights


def _hash_ngrams(text: str) -> Iterator[int]:
    """Yield the bucket of each n-gram within the words of a text. A space marks the ends of a word."""
    for word in text.lower().split():
        padded = f" {word} "
        for length in LENGTHS:
            for start in range(len(padded) - length + 1):
                yield zlib.crc32(padded[start : start + length].encode()) % N_BUCKETS
