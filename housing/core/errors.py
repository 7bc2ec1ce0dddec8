"""Errors that a user can mend. Commands print them without a traceback."""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_SHOWN = 20


class HousingError(Exception):
    """What went wrong, with the value, the place and what is allowed."""


class ConfigError(HousingError):
    """A config value that cannot work."""


class DownloadError(HousingError):
    """A table that its source cannot give now: no network, a server that is away, a broken download."""


class DataVersionError(HousingError):
    """DVC cannot give or keep a version of a table."""


class StoreError(HousingError):
    """The MLflow store is away, or does not hold what was asked for."""


class BundleError(HousingError):
    """A bundle that is damaged, incomplete or not of this format."""


class JobSkipped(HousingError):
    """A job that is not begun, since its sweep has been told to stop."""


class TrialPruned(Exception):
    """No error: a search gives a job up before its last fold."""


@dataclass(frozen=True)
class Violation:
    """One value that the schema does not allow. `row` counts from 0; a whole column has none."""

    row: int | None
    field: str | None
    reason: str

    def __str__(self) -> str:
        places = [] if self.row is None else [f"row {self.row}"]
        places += [] if self.field is None else [self.field]
        return ", ".join(places) + f": {self.reason}"


class TableError(HousingError):
    """A table or a request that its schema does not allow; `problems` names each place."""

    def __init__(self, message: str, violations: Sequence[Violation]) -> None:
        self.violations = list(violations)
        shown = "".join(f"\n  {problem}" for problem in self.violations[:MAX_SHOWN])
        more = f"\n  and {len(self.violations) - MAX_SHOWN} more" if len(self.violations) > MAX_SHOWN else ""
        super().__init__(f"{message}{shown}{more}")
