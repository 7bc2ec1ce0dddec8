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


@dataclass(frozen=True)
class Reproduction:
    """A repeated run.

    Attributes
    ----------
    is_equal
        Whether the scores are equal to the last digit.
    values
        Provenance and scores of both runs.
    """

    run_id: str
    is_equal: bool
    values: list[Comparison]
