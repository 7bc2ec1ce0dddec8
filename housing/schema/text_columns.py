"""The features of a table that are texts, and the places of their numbers in the matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Column, Matrix
from housing.schema.text_projection import TextProjection

Texts = Mapping[str, Sequence[str | None] | NDArray[np.object_]]  # the texts of rows, by column
NO_TEXTS: Texts = MappingProxyType({})


@dataclass(frozen=True)
class TextColumns:
    """The texts among the features. The components of all texts follow the features in the matrix.

    Attributes
    ----------
    n_features
        The number of all features. In the place of a text is the share that its components explain.
    names
        The name of each text, by its index among the features.
    components
        The indices of its components in the matrix, by the same index.
    """

    n_features: int
    names: Mapping[int, str]
    components: Mapping[int, range]

    @classmethod
    def of(cls, features: Sequence[Column]) -> Self:
        """Return the texts among the features of a table."""
        texts = {index: column for index, column in enumerate(features) if column.is_free_text}
        places, end = {}, len(features)
        for index, column in texts.items():
            places[index] = range(end, end := end + column.components)
        return cls(len(features), {index: column.name for index, column in texts.items()}, places)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.names)

    @property
    def owners(self) -> NDArray[np.intp]:
        """The index of the feature that each number of a row comes from, shape (features + components,)."""
        components = [np.full(len(places), index) for index, places in self.components.items()]
        return np.concatenate([np.arange(self.n_features), *components]).astype(np.intp)

    def from_frame(self, frame: Any) -> Texts:
        """Return the texts of a pandas DataFrame, None for a missing one."""
        present = [name for name in self.names.values() if name in frame.columns]
        return {name: frame[name].to_numpy(dtype=object, na_value=None) for name in present}

    def from_records(self, records: Sequence[Mapping[str, Any]]) -> Texts:
        """Return the texts of records, None for a missing one."""
        return {name: [record.get(name) for record in records] for name in self.names.values()}

    def add(self, matrix: Matrix, texts: Texts, projections: Mapping[str, TextProjection]) -> Matrix:
        """Return features, shape (rows, features), with the numbers of valid texts, shape (rows, features + components).

        An absent column is missing. Without a projection, the numbers are NaN.
        """
        if not self.names:
            return matrix
        wide = np.full((len(matrix), len(self.owners)), np.nan)
        wide[:, : self.n_features] = matrix
        for index, name in self.names.items():
            if name in projections and name in texts:
                encoded = {text: projections[name].encode(text) for text in set(texts[name])}  # equal texts only once
                places = [index, *self.components[index]]
                wide[:, places] = np.array([encoded[text] for text in texts[name]]).reshape(len(matrix), len(places))
        return wide
