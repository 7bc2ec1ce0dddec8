"""Comparisons between a run and its repetition."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """One property of a run: its value in the original and in the repetition."""

    name: str
    original: str
    repeated: str

    @property
    def is_equal(self) -> bool:
        """Whether both values are equal to the last digit."""
        return self.original == self.repeated
