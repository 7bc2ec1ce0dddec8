"""Reads the prediction log: the files of all workers as one, ordered by time."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from server.prediction_log.rotating_file import JOINED, PREDICTIONS, iter_lines, list_files

Entry = dict[str, Any]


@dataclass(frozen=True)
class LogFilter:
    """Which entries are asked for; times are unix seconds, and `until` is not part of the span."""

    since: float = float("-inf")
    until: float = float("inf")
    version: str | None = None
    id: str | None = None

    def matches(self, entry: Entry) -> bool:
        """Whether an entry is asked for."""
        return (
            self.since <= entry["time"] < self.until
            and self.version in (None, entry["version"])
            and self.id in (None, entry["id"])
        )


def read_entries(folder: Path, log_filter: LogFilter) -> tuple[list[Entry], int]:
    """Give the entries that are asked for, ordered by time, and how many lines could not be read.

    A worker that is killed may leave half a line. What is asked for has to fit into memory.
    """
    entries, broken = [], 0
    for line in _lines(folder):
        try:
            entry = orjson.loads(line)
            if log_filter.matches(entry):
                entries.append(entry)
        except (ValueError, KeyError, TypeError):
            broken += 1
    return sorted(entries, key=lambda entry: (entry["time"], entry["id"])), broken


def read_joined_rows(folder: Path) -> Iterator[Entry]:
    """Yield the rows of a log folder that were predicted and then told the true value of."""
    for path in list_files(folder, JOINED):
        yield from map(orjson.loads, iter_lines(path))


def _lines(folder: Path) -> Iterator[bytes]:
    for path in list_files(folder, PREDICTIONS):
        try:
            with path.open("rb") as file:
                yield from file
        except FileNotFoundError:
            pass  # it was removed meanwhile


def flatten_entry(entry: Entry) -> Iterator[dict[str, Any]]:
    """Give one flat row for each prediction of an entry; columns of the table are named `column.<name>`."""
    listed = ("columns", "rows", "predictions", "lower", "upper")
    shared = {name: value for name, value in entry.items() if name not in listed}
    for place, (values, prediction) in enumerate(zip(entry["rows"], entry["predictions"], strict=True)):
        ends: Entry = {name: entry[name][place] for name in ("lower", "upper") if name in entry}
        columns = {f"column.{name}": value for name, value in zip(entry["columns"], values, strict=True)}
        yield {**shared, "row": place, "prediction": prediction, **ends, **columns}


def write_parquet(entries: Sequence[Entry], path: Path) -> None:
    """Write one row for each prediction. Raises SystemExit where pyarrow is not installed."""
    try:
        import pyarrow  # pylint: disable=import-outside-toplevel  # workers do not have it
        import pyarrow.parquet  # pylint: disable=import-outside-toplevel
    except ImportError:
        sys.exit("Parquet needs pyarrow, which is not installed here; without --out the log is printed as JSON lines")
    flat = [row for entry in entries for row in flatten_entry(entry)]
    names = list(dict.fromkeys(name for row in flat for name in row))  # of all rows: not each has an interval
    pyarrow.parquet.write_table(pyarrow.table({name: [row.get(name) for row in flat] for name in names}), path)


def _parse_time(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is asked for as JSON lines, or write it as Parquet."""
    parser = argparse.ArgumentParser(prog="python -m server.log", description="Read the prediction log of all workers.")
    command = parser.add_subparsers(required=True).add_parser("read", help="print entries, ordered by time")
    command.add_argument("folder", type=Path)
    command.add_argument("--since", type=_parse_time, default=float("-inf"), help="ISO 8601; without a zone it is UTC")
    command.add_argument("--until", type=_parse_time, default=float("inf"), help="ISO 8601; not part of the span")
    command.add_argument("--version", help="of the model")
    command.add_argument("--id", help="of the request")
    command.add_argument("--out", type=Path, help="a Parquet file, one row for each prediction")
    asked = parser.parse_args(arguments)
    if not asked.folder.is_dir():
        parser.error(f"{asked.folder} is not a folder; allowed: a server's log folder, serve.log_dir")
    if asked.out is not None and not asked.out.parent.is_dir():
        parser.error(f"--out {asked.out}: the folder {asked.out.parent} is not there")
    if asked.out is not None and asked.out.suffix != ".parquet":
        parser.error(f"--out {asked.out} is not the name of a Parquet file; allowed: a name that ends with .parquet")
    entries, broken = read_entries(asked.folder, LogFilter(asked.since, asked.until, asked.version, asked.id))
    if asked.out is not None:
        write_parquet(entries, asked.out)
    else:
        for entry in entries:
            sys.stdout.buffer.write(orjson.dumps(entry) + b"\n")
    if broken:
        print(f"skipped {broken} lines that are not whole", file=sys.stderr)
    return 0
