"""TODO docstring."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Comparison:
    """One thing about a run, as it was and as it is when the run is repeated."""

    name: str
    original: str
    repeated: str

    @property
    def is_equal(self) -> bool:
        """Whether it is the same to the last digit."""
        return self.original == self.repeated
