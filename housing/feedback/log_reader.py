"""The prediction log reader: merges the files of all workers, ordered by time."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from housing.core.model_list import NAME_PATTERN
from housing.core.printable import show
from housing.server_files.log_index import ID_SLICE
from housing.server_files.rotating_file import JOINED, PREDICTIONS, iter_lines, list_files

Entry = dict[str, Any]
FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "time": (int, float),
    "version": str,
    "columns": list,
    "rows": list,
    "predictions": list,
}
JOINED_FIELDS = {"id", "row", "value", "time", "prediction", "version", "columns"}

log = logging.getLogger(__name__)


def parse_entry(line: bytes) -> Entry:
    """Parse a line of the prediction log. Raises ValueError for a damaged one."""
    entry = orjson.loads(line)
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kind) for name, kind in FIELDS.items()):
        raise ValueError("A field is missing or has another type.")
    if "name" in entry and not (isinstance(entry["name"], str) and NAME_PATTERN.fullmatch(entry["name"])):
        raise ValueError("The name of the model is invalid.")
    width, height = len(entry["columns"]), len(entry["rows"])
    if not all(isinstance(row, list) and len(row) == width for row in entry["rows"]):
        raise ValueError("A row does not have one value per column.")
    for numbers in (entry[name] for name in ("predictions", "lower", "upper") if name in entry):
        if not isinstance(numbers, list) or len(numbers) != height or not set(map(type, numbers)) <= {int, float}:
            raise ValueError("There is not one prediction or bound per row.")
    return entry


@dataclass(frozen=True)
class LogFilter:
    """Selects log entries. Times are Unix seconds; `until` is exclusive."""

    since: float = float("-inf")
    until: float = float("inf")
    version: str | None = None
    id: str | None = None
    name: str | None = None

    def matches(self, entry: Entry) -> bool:
        """Return whether an entry is selected."""
        is_in_time = self.since <= entry["time"] < self.until
        is_of_model = self.version in (None, entry["version"]) and self.name in (None, entry.get("name"))
        return is_in_time and is_of_model and self.id in (None, entry["id"])


def read_entries(folder: Path, log_filter: LogFilter) -> tuple[list[Entry], int]:
    """Return the selected entries, ordered by time, and the number of malformed lines.

    A killed worker may leave half a line. The selected entries must fit into memory.
    """
    entries, malformed = [], 0
    for line in _lines(folder):
        try:
            entry = parse_entry(line)
        except ValueError:
            malformed += 1
            continue
        if log_filter.matches(entry):
            entries.append(entry)
    return sorted(entries, key=lambda entry: (entry["time"], entry["id"])), malformed


def read_joined_rows(folder: Path, since: float = float("-inf")) -> Iterator[Entry]:
    """Yield the predicted rows of a log folder whose true value is known from feedback. Skips damaged lines with a warning.

    Files that were last written before `since` (Unix seconds) are skipped: a true value is joined after its request.
    """
    for path in list_files(folder, JOINED):
        if path.stat().st_mtime < since:
            continue
        for line in iter_lines(path):
            row = parse_joined_row(line)
            if row is None:
                log.warning("Skipped a malformed line of %s: %.80r", path, line)
            else:
                yield row


def parse_joined_row(line: bytes) -> Entry | None:
    """Return a predicted row with its true value, or None for a damaged line."""
    try:
        row = orjson.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(row, dict) and row.keys() >= JOINED_FIELDS and isinstance(row["columns"], dict)
    return row if is_whole else None


def _lines(folder: Path) -> Iterator[bytes]:
    for path in list_files(folder, PREDICTIONS):
        try:
            with path.open("rb") as file:
                yield from file
        except FileNotFoundError:
            pass  # it was removed for its age


def scan(path: Path, request_ids: set[bytes]) -> Iterator[tuple[str, Entry | None]]:
    """Yield the entries of requests from a file of the log, by request ID; None for a damaged entry."""
    for line in iter_lines(path):
        if line[ID_SLICE] in request_ids:
            try:
                entry = parse_entry(line)
            except ValueError:
                entry = None
            yield line[ID_SLICE].decode(), entry


def flatten_entry(entry: Entry) -> Iterator[dict[str, Any]]:
    """Yield one flat row per prediction of an entry. Columns of the table are named `column.<name>`."""
    per_row = ("columns", "rows", "predictions", "lower", "upper", "quantiles")
    shared = {name: value for name, value in entry.items() if name not in per_row}
    for index, (values, prediction) in enumerate(zip(entry["rows"], entry["predictions"], strict=True)):
        bounds: Entry = {name: entry[name][index] for name in ("lower", "upper") if name in entry}
        quantiles = {f"quantile_{level}": values[index] for level, values in entry.get("quantiles", {}).items()}
        columns = {f"column.{name}": value for name, value in zip(entry["columns"], values, strict=True)}
        yield {**shared, "row": index, "prediction": prediction, **bounds, **quantiles, **columns}


def write_parquet(entries: Sequence[Entry], path: Path) -> None:
    """Write one row per prediction. Raises SystemExit if pyarrow is not installed."""
    try:
        import pyarrow  # pylint: disable=import-outside-toplevel  # the server image does not have it
        import pyarrow.parquet  # pylint: disable=import-outside-toplevel
    except ImportError:
        sys.exit("error: --out needs pyarrow, which is not installed. Without --out, the log is printed as JSON lines.")
    flat = [row for entry in entries for row in flatten_entry(entry)]
    names = list(dict.fromkeys(name for row in flat for name in row))  # of all rows: some have no interval or quantiles
    pyarrow.parquet.write_table(pyarrow.table({name: [row.get(name) for row in flat] for name in names}), path)


def _parse_time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a time in ISO 8601, such as 2026-11-27T08:00 (got {text!r})") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the selected entries as JSON lines, or write them as Parquet."""
    parser = argparse.ArgumentParser(prog="python -m server.log", description="Read the prediction log of all workers.")
    command = parser.add_subparsers(required=True).add_parser("read", help="print entries, ordered by time")
    command.add_argument("folder", type=Path, help="log folder of a server (serve.log_dir)")
    command.add_argument("--since", type=_parse_time, default=float("-inf"), help="ISO 8601; UTC if it has no time zone")
    command.add_argument("--until", type=_parse_time, default=float("inf"), help="ISO 8601, exclusive")
    command.add_argument("--version", help="model version")
    command.add_argument("--name", help="name of the model, if the server has several (serve.models)")
    command.add_argument("--id", help="request ID")
    command.add_argument("--out", type=Path, help="Parquet file to write, with one row per prediction")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder; pass the server's log folder (serve.log_dir)")
    if options.out is not None and not options.out.parent.is_dir():
        parser.error(f"--out {options.out}: the folder {options.out.parent} does not exist")
    if options.out is not None and options.out.suffix != ".parquet":
        parser.error(f"--out must end with .parquet (got {options.out})")
    log_filter = LogFilter(options.since, options.until, options.version, options.id, options.name)
    entries, malformed = read_entries(options.folder, log_filter)
    if options.out is not None:
        write_parquet(entries, options.out)
    else:
        for entry in entries:
            show(orjson.dumps(entry).decode())
    if malformed:
        print(f"Skipped {malformed} malformed line{'s' if malformed > 1 else ''}.", file=sys.stderr)
    return 0
