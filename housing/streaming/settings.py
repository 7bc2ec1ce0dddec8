"""Settings of the engine that reads a table and fits on it."""

from dataclasses import dataclass
from typing import Any, Self

from housing.core.validators import choice, integer

MEMORY, STREAM, DASK = "memory", "stream", "dask"


@dataclass(frozen=True)
class StreamSettings:
    """Settings of the engines `stream` and `dask`.

    Attributes
    ----------
    chunk_rows
        Rows that are read, checked, encoded and passed to the estimator at once.
    sample_rows
        The largest number of held-out rows that need all their columns at once.
    """

    chunk_rows: int
    sample_rows: int

    @classmethod
    def from_config(cls, engine: Any) -> Self | None:
        """Read the settings of the config group `engine`. Return None for the engine `memory`, and for a config without one."""
        if engine is None or engine.name == MEMORY:
            return None
        choice(MEMORY, STREAM, DASK).validate("engine.name", engine.name)
        for key in ("chunk_rows", "sample_rows"):
            integer(1).validate(f"engine.{key}", engine[key])
        return cls(engine.chunk_rows, engine.sample_rows)
