"""TODO docstring."""

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from housing.core.files import atomic_write

if TYPE_CHECKING:
    pass

OUTCOME_FILE = "outcome.json"  # in a job's folder


@dataclass
class Outcome:
    """What came of a job. `metrics` are those of the validation rows and of speed."""

    overrides: list[str]
    status: str  # RUNNING, FINISHED, PRUNED (a search gave it up), FAILED, KILLED, SKIPPED (fail_fast), LOST (left no word)
    run_id: str | None = None
    link: str = ""
    reused: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    worker: str = ""  # the host and the process that runs it
    started_at: float = 0.0  # seconds since 1970
    seconds: float = 0.0  # from its start to its end
    progress: str = ""  # how far a job is that runs: "fold 2 of 5"

    def write(self, folder: Path) -> None:
        """Leave the outcome in the job's folder, where the sweep looks for it."""
        with atomic_write(folder / OUTCOME_FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def describe(self, common: Collection[str] = ()) -> str:
        """Give what was asked of the job, short, without what is `common` to all jobs of its sweep."""
        overrides = (asked for asked in self.overrides if asked not in common and not asked.startswith("trial="))
        return " ".join(map(_shorten, overrides)) or "(defaults)"

    @classmethod
    def read(cls, folder: Path) -> "Outcome | None":
        """Give what a job has left in its folder, or None where it left nothing."""
        try:
            return cls(**json.loads((folder / OUTCOME_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def _shorten(override: str) -> str:
    """Shorten an override to the last part of its name, and a number to four digits."""
    name, _, value = override.partition("=")
    if re.fullmatch(r"-?\d*\.\d+(e-?\d+)?|-?\d+e-?\d+", value):
        value = f"{float(value):.4g}"
    return f"{name.rpartition('.')[2]}={value}"
