"""Adaptation of intervals to feedback: changes of a version's calibrated quantiles, in a file that the joiner writes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from housing.core.files import atomic_write
from housing.schema.column import Vector

ADAPTATION_PREFIX = "adaptation-"  # of a file in the log directory; the version follows


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Changes of the quantiles of scores.

    Attributes
    ----------
    run_id
        The run whose scores these are: a new store numbers its versions from 1 again.
    n_labels
        The number of labels from which the changes follow.
    levels
        Requested levels, ascending, shape (levels,).
    used_levels
        The levels whose calibrated quantiles are used instead, shape (levels,).
    offsets
        What is added to the calibrated quantiles at `levels`, in units of scores, shape (levels,).
    modified_ns
        When the file was written, or 0.
    """

    run_id: str
    n_labels: int
    levels: Vector
    used_levels: Vector
    offsets: Vector
    modified_ns: int = 0

    def adapt_level(self, n_rows: int, level: float) -> tuple[float, float]:
        """Return the level whose calibrated quantile is used for a requested one, and what is added to that quantile.

        `n_rows` is the number of calibration rows, which have no quantile nearer to 0 or 1.
        """
        used = float(np.interp(level, [0.0, *self.levels, 1.0], [0.0, *self.used_levels, 1.0]))
        used = min(max(used, 1 / (n_rows + 1)), n_rows / (n_rows + 1))
        return used, float(np.interp(used, self.levels, self.offsets))

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises WriteError or OSError."""
        arrays = {name: getattr(self, name).tolist() for name in ("levels", "used_levels", "offsets")}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"run_id": self.run_id, "n_labels": self.n_labels, **arrays}), encoding="utf-8")

    @classmethod
    def read(cls, path: Path, known: Self | None = None) -> Self | None:
        """Return the content of a file, or None if there is none. `known` is returned if the file has not changed since.

        Raises OSError if it cannot be read, and ValueError if it is damaged.
        """
        try:
            modified_ns = path.stat().st_mtime_ns
            if known is not None and known.modified_ns == modified_ns:
                return known
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        try:
            vectors = [np.array(content[name], dtype=np.float64) for name in ("levels", "used_levels", "offsets")]
            levels, used_levels, offsets = vectors
            adaptation = cls(content["run_id"], int(content["n_labels"]), levels, used_levels, offsets, modified_ns)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not an adaptation of intervals: {error!r}") from error
        if len({vector.shape for vector in vectors}) != 1 or not np.isfinite(vectors).all():
            raise ValueError(f"{path} must have as many finite offsets and used levels as levels.")
        return adaptation


def adaptation_path(log_dir: Path, model: str, version: str) -> Path:
    """Return the file of a version. `model` is its name if the server has several, else empty."""
    return log_dir / model / f"{ADAPTATION_PREFIX}{version}.json"
