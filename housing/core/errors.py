"""Exceptions. Commands print a HousingError without a traceback, since a user can fix its cause."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_SHOWN = 20
GOT_VALUE = re.compile(r" \(got |: ")  # in a reason, what follows differs from value to value


class HousingError(Exception):
    """Base class of errors that a user can fix. The message names the value and what is expected."""


class ConfigError(HousingError):
    """A config value is invalid."""


class TargetError(ConfigError):
    """The class or function that a config names could not be called with its arguments, or rejects the table."""


class UntrustedConfigError(HousingError):
    """The stored config of a run could run code that this machine does not trust."""


class DiskFullError(HousingError, OSError):
    """A file could not be written because the disk is full, or a quota or size limit is reached. The old file is unchanged."""


class WriteError(HousingError, OSError):
    """A file cannot be written at its place: no permission, a read-only file system, or a path that cannot be a folder."""


class LockError(HousingError):
    """A lock file or its directory cannot be used, for example because another user owns it."""


class DownloadError(HousingError):
    """A table could not be downloaded: no network, an unavailable server or an incomplete download."""


class DataVersionError(HousingError):
    """DVC could not restore or save a version of a table."""


class StoreError(HousingError):
    """The MLflow store is unavailable, or does not contain the requested entity."""


class ClusterError(HousingError):
    """A Dask cluster is unavailable: its scheduler does not answer, it has no worker, or it was lost."""


class BundleError(HousingError):
    """A bundle is damaged, incomplete or of another format."""


class UntrustedError(BundleError):
    """A bundle is not signed by a key that the server trusts, or is not what was signed."""


class SmokeTestTimeout(HousingError):
    """The server of a smoke test was not ready in time, so the model was not judged."""


class JobSkipped(HousingError):
    """A job was not started, because its sweep is stopping."""


class TrialPruned(Exception):
    """Control flow, not an error: a search stops a trial before its last fold."""


@dataclass(frozen=True)
class Violation:
    """A value or a column that the schema does not allow. `row` counts from 0, or is None for a whole column."""

    row: int | None
    field: str | None
    reason: str

    def __str__(self) -> str:
        location = [] if self.row is None else [f"row {self.row}"]
        location += [] if self.field is None else [self.field]
        return ", ".join(location) + f": {self.reason}"


class TableError(HousingError):
    """A table or a request does not fit its schema. The message lists up to `MAX_SHOWN` violations; of more, the kinds."""

    def __init__(self, message: str, violations: Sequence[Violation]) -> None:
        self.violations = list(violations)
        lines = list(map(str, violations)) if len(violations) <= MAX_SHOWN else _kinds(violations)
        more = [f"and {len(lines) - MAX_SHOWN} more kinds"] if len(lines) > MAX_SHOWN else []
        super().__init__("\n  ".join([message, *lines[:MAX_SHOWN], *more]))


def _kinds(violations: Sequence[Violation]) -> list[str]:
    """Return a line for each column and reason, whatever the value is: the first violation, and how many more there are."""
    kinds: dict[tuple[str | None, str], list[Violation]] = {}
    for violation in violations:
        kinds.setdefault((violation.field, GOT_VALUE.split(violation.reason)[0]), []).append(violation)
    return [str(first) + (f" And {len(others):,} more rows." if others else "") for first, *others in kinds.values()]
