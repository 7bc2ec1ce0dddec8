"""New lines of the log files of a server, a bounded number at a time, from where the last step ended."""

from collections.abc import Iterator
from pathlib import Path

from housing.monitoring.database import MonitorDatabase
from housing.server_files.rotating_file import JOINED, PREDICTIONS, iter_lines, list_files

STEP_BYTES = 4_000_000  # read in a step, of each kind of file; a longer step would delay what Prometheus sees


def list_log_files(log_dir: Path, kind: str) -> list[tuple[str, Path]]:
    """Return the files of a kind, each with the name of its model: "" for files of the log directory itself.

    Models with a name have joined rows in a folder of their own.
    """
    folders = [path for path in log_dir.iterdir() if path.is_dir()] if kind == JOINED else []
    files = [("", path) for path in list_files(log_dir, kind)]
    return [*files, *((folder.name, path) for folder in sorted(folders) for path in list_files(folder, kind))]


class LogFollower:
    """Reads predictions and joined rows of a log directory."""

    def __init__(self, log_dir: Path, database: MonitorDatabase) -> None:
        self._log_dir, self._database = log_dir, database

    def new_lines(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """Yield the model's name and each complete line since the last step, and move the offsets."""
        n_bytes, offsets = 0, self._database.offsets()
        for model, path in list_log_files(self._log_dir, kind):
            name = str(path.relative_to(self._log_dir))
            start = offsets.get(name, 0)
            offset = start = start if start <= path.stat().st_size else 0  # a file that was cut off is read again
            for line in iter_lines(path, start):
                if n_bytes >= STEP_BYTES:
                    break
                n_bytes += len(line)
                offset += len(line)
                yield model, line
            self._database.set_offset(name, offset)

    def forget_removed(self) -> None:
        """Remove the offsets of files that no longer exist."""
        self._database.forget_files(self._database.offsets().keys() - self._sizes().keys())

    def unread_bytes(self) -> int:
        """Return how many bytes are not read yet."""
        offsets = self._database.offsets()
        return sum(max(size - offsets.get(name, 0), 0) for name, size in self._sizes().items())

    def _sizes(self) -> dict[str, int]:
        paths = [path for kind in (PREDICTIONS, JOINED) for _, path in list_log_files(self._log_dir, kind)]
        return {str(path.relative_to(self._log_dir)): path.stat().st_size for path in paths}
