"""Table files: CSV, compressed or not, Parquet and Excel, all read strictly as rows of text.

Every command reads its tables here. A file that could be read in two ways is refused, with its line.
"""

import bz2
import codecs
import csv
import gzip
import io
import itertools
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from housing.core.errors import TableError
from housing.data.read_options import PLAIN, ReadOptions
from housing.data.typed_files import EXCEL, PARQUET, count_parquet_rows, read_excel, read_parquet

CHUNK_BYTES = 1 << 20
BATCH_ROWS = 16_000  # of 20 columns of text, they take about 25 MB. Two chunks of `housing.bundle.ensemble`

Mode = Literal["rb", "wb", "ab"]
Cells = list[str]
NumberedRow = tuple[int, Cells]  # the number of the row's first line in the file, and its cells


def _zstandard(file: IO[bytes], mode: Mode) -> Any:
    import pyarrow  # pylint: disable=import-outside-toplevel  # 0.2 s that other tables do not need

    return pyarrow.CompressedInputStream(file, "zstd") if mode == "rb" else pyarrow.CompressedOutputStream(file, "zstd")


# By suffix. Each format allows a second compressed stream behind the first, so that rows can be appended. Gzip's header gets
# neither time nor name, so that equal tables are equal files.
COMPRESSIONS: dict[str, Callable[..., Any]] = {
    ".gz": lambda file, mode: gzip.GzipFile(filename="", mode=mode, fileobj=file, mtime=0),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstandard,
}
UNSUPPORTED = (".zip", ".tar", ".tgz", ".7z", ".rar", ".lz4", ".br", ".z", ".xls", ".ods")
QUOTED = re.compile(r'"[^"]*"')
DELIMITERS = (",", ";", "\t", "|")
UTF_16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")  # the first bytes of a file in UTF-16, as a decoder of UTF-8 passes them on


@dataclass(frozen=True)
class TextTable:
    """Consecutive rows of a file as text, written as `options` say.

    Attributes
    ----------
    rows
        The rows with as many cells as the header.
    lines
        The number of the first line of each of these rows in the file.
    ragged
        The rows with more or fewer cells.
    """

    header: Cells
    rows: list[Cells]
    lines: list[int]
    options: ReadOptions
    ragged: list[NumberedRow] = field(default_factory=list)


def base_name(path: Path) -> str:
    """Return a file's name without its suffix and that of its compression."""
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSIONS else path.stem


@contextmanager
def open_table(path: Path, mode: Mode, suffix: str | None = None) -> Iterator[Any]:
    """Open a table's file to read ("rb"), write ("wb") or append ("ab") its text as bytes.

    `suffix` names the compression; by default it is that of the path. A temporary file needs the suffix of the file to come.
    """
    suffix = (path.suffix if suffix is None else suffix).lower()
    if suffix in UNSUPPORTED:
        raise TableError(
            f"{path}: {suffix} files are not supported. Expected CSV, CSV with {', '.join(COMPRESSIONS)}, {PARQUET} or {EXCEL}.",
            [],
        )
    try:
        with path.open(mode) as file:
            if suffix in COMPRESSIONS:
                with COMPRESSIONS[suffix](file, mode) as stream:
                    yield stream
            else:
                yield file
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if mode != "rb":
            raise
        raise TableError(f"{path} cannot be read: {error}", []) from error


def read_rows(path: Path, options: ReadOptions = PLAIN, suffix: str | None = None) -> Iterator[NumberedRow]:
    """Yield the header and the rows of a file, each with the number of its first line. A quoted cell may span lines.

    Rows may have more or fewer cells than the header. Cells among `options.na_values` are empty. Blank lines are no rows.

    Raises
    ------
    TableError
        If the file is empty, damaged or not what the options say, or if a name stands twice in the header.
    """
    numbered_rows = read_lines(path, options, suffix)
    first = next((row for row in numbered_rows if not _is_blank(row[1])), None)
    if first is None:
        raise TableError(f"{path} is empty. Expected a header with the names of the columns, and rows.", [])
    if options.header == "none":
        header = _names(first, options, path)
        yield 0, header
        numbered_rows = itertools.chain([first], numbered_rows)
    else:
        header = number_duplicates(first[1]) if options.duplicates == "number" else first[1]
        _require_unique(header, path)
        yield first[0], header
    if len(header) > 1:  # in a single column, a blank line is a missing value
        numbered_rows = (row for row in numbered_rows if not _is_blank(row[1]))
    if options.skip_rows:
        skipped = frozenset(options.skip_rows)
        numbered_rows = (row for row in numbered_rows if not (row[1] and row[1][0] in skipped))
    missing = options.missing_cells(header)
    if missing is None:
        yield from numbered_rows
        return
    for line, cells in numbered_rows:
        marks = itertools.chain(missing, itertools.repeat(frozenset[str]()))  # a row can be longer than the header
        yield line, ["" if cell.strip() in of_column else cell for cell, of_column in zip(cells, marks, strict=False)]


def read_lines(path: Path, options: ReadOptions = PLAIN, suffix: str | None = None) -> Iterator[NumberedRow]:
    """Yield all rows of a file as they are, the header among them. Raises TableError as `read_rows`."""
    suffix = (path.suffix if suffix is None else suffix).lower()
    if suffix == PARQUET:
        numbered_rows = read_parquet(path, options)
    elif suffix == EXCEL:
        numbered_rows = read_excel(path, options)
    else:
        numbered_rows = _read_csv(path, options, suffix)
    return ((line, [cell.strip() for cell in cells]) for line, cells in numbered_rows) if options.strip else numbered_rows


def _is_blank(cells: Cells) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


def number_duplicates(header: Sequence[str]) -> Cells:
    """Return names that differ: the second "x" becomes "x_2", and of several columns without a name the third "column_3"."""
    counts, seen, names = Counter(header), set[str](), list[str]()
    for position, name in enumerate(header, start=1):
        number, new = 1, name
        if counts[name] > 1 and not name:
            new = f"column_{position}"
        while new in seen or (new != name and new in counts):
            number += 1
            new = f"{name or 'column'}_{number}"
        seen.add(new)
        names.append(new)
    return names


def _read_csv(path: Path, options: ReadOptions, suffix: str) -> Iterator[NumberedRow]:
    encoding = "utf-8-sig" if is_utf_8(options.encoding) else options.encoding
    line = options.skip_lines + 1
    try:
        # pylint: disable-next=contextmanager-generator-missing-cleanup  # the file is closed with the generator
        with open_table(path, "rb", suffix) as file, io.TextIOWrapper(file, encoding, "surrogateescape", newline="") as text:
            lines = _text_lines(text, path, options)
            reader = csv.reader(lines, delimiter=options.delimiter, skipinitialspace=options.strip, strict=True)
            for cells in reader:
                yield line, cells
                line = options.skip_lines + reader.line_num + 1
    except csv.Error as error:
        raise TableError(f"{path}, line {line}: {_csv_reason(error)}", []) from error
    except UnicodeError as error:
        raise TableError(f"{path} is not a CSV file in {options.encoding}: {error}. Set read.encoding.", []) from error


def is_utf_8(encoding: str) -> bool:
    """Return whether a codec is UTF-8, with or without a byte order mark."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _text_lines(text: Iterable[str], path: Path, options: ReadOptions) -> Iterator[str]:
    """Yield lines. Refuse bytes that are no text, which the decoder passes on as surrogates."""
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            hint = f" {_encoding_hint(line)}" if line.startswith(UTF_16_MARKS) else ""
            raise TableError(f"{path}, line {number}: a NUL byte. Expected text in {options.encoding.upper()}.{hint}", [])
        if not line.isascii() and any("\udc80" <= character <= "\udcff" for character in line):
            raise TableError(
                f"{path} is not a CSV file in {options.encoding.upper()}: line {number} has other bytes. {_encoding_hint(line)}",
                [],
            )
        if number <= options.skip_lines:
            continue
        if number == options.skip_lines + 1:
            _require_delimiter(line, path, options)
        yield line


def _encoding_hint(line: str) -> str:
    if line.startswith(UTF_16_MARKS):
        return "The file looks like UTF-16: set read.encoding to utf-16."
    return "Set read.encoding, such as cp1252 for Western Europe, or convert the file to UTF-8."


def _csv_reason(error: csv.Error) -> str:
    if "unexpected end of data" in str(error) or "field larger" in str(error):
        return "a quote is opened in this row and never closed."
    return f"not CSV: {error}. A quote within a quoted cell is written twice."


def _require_delimiter(first_line: str, path: Path, options: ReadOptions) -> None:
    """Refuse a file whose first line has another delimiter, and not that of the options."""
    unquoted = QUOTED.sub("", first_line)
    other = max(DELIMITERS, key=unquoted.count)
    if options.delimiter not in unquoted and other in unquoted:
        raise TableError(
            f"{path} has no {options.delimiter!r} in its first line. The file looks separated by {other!r}: set read.delimiter"
            f" to {other!r} in the table's YAML.",
            [],
        )


def _names(first: NumberedRow, options: ReadOptions, path: Path) -> Cells:
    """Return the names of the columns of a file without a header."""
    line, cells = first
    for names in options.names:
        if len(names) == len(cells):
            return list(names)
    expected = " or ".join(str(len(names)) for names in options.names)
    raise TableError(f"{path}, line {line}: Expected {expected} fields, as many as columns are declared, got {len(cells)}.", [])


def _require_unique(header: Cells, path: Path) -> None:
    for name in header:
        fields = [str(number) for number, other in enumerate(header, start=1) if other == name]
        if len(fields) > 1:
            raise TableError(
                f"{path}: the header has column {name!r} more than once (fields {' and '.join(fields)})."
                " Rename one of them, or set read.duplicates to number in the table's YAML.",
                [],
            )


def read_batches(
    path: Path, options: ReadOptions = PLAIN, suffix: str | None = None, *, keeps_ragged: bool = False
) -> Iterator[TextTable]:
    """Return the rows of a file as text, in tables of `BATCH_ROWS` rows; a single one without rows if the file has none.

    Raises
    ------
    TableError
        As `read_rows`, and if a row has more or fewer cells than the header. With `keeps_ragged`, such rows are in `ragged`.
    """
    numbered_rows = read_rows(path, options, suffix)
    _, header = next(numbered_rows)
    tables = (_as_text_table(header, rows, options) for rows in _batches(numbered_rows))
    return tables if keeps_ragged else (_require_even(table, path) for table in tables)


def _batches(numbered_rows: Iterator[NumberedRow]) -> Iterator[list[NumberedRow]]:
    yield list(itertools.islice(numbered_rows, BATCH_ROWS))
    while batch := list(itertools.islice(numbered_rows, BATCH_ROWS)):
        yield batch


def _as_text_table(header: Cells, numbered_rows: Iterable[NumberedRow], options: ReadOptions) -> TextTable:
    table = TextTable(header, [], [], options)
    for line, cells in numbered_rows:
        if not cells and len(header) == 1:
            cells = [""]  # an empty line of a table with a single column is a missing value
        if len(cells) == len(header):
            table.rows.append(cells)
            table.lines.append(line)
        else:
            table.ragged.append((line, cells))
    return table


def _require_even(table: TextTable, path: Path) -> TextTable:
    for line, cells in table.ragged:
        raise TableError(f"{path}, line {line}: {field_count_reason(table.header, cells)}", [])
    return table


def field_count_reason(header: Cells, cells: Cells) -> str:
    """Return why a row with more or fewer cells than the header is refused."""
    reason = f"Expected {len(header)} fields as in the header, got {len(cells)}."
    names = "".join(header)
    other = max(DELIMITERS, key=names.count)
    if names.count(other) < len(header):
        return reason
    return f"{reason} The header looks separated by {other!r}: set read.delimiter to {other!r} in the table's YAML."


def count_rows(path: Path, options: ReadOptions = PLAIN) -> int:
    """Return the number of rows. A row whose quoted cell spans several lines counts once."""
    if path.suffix.lower() == PARQUET:
        return count_parquet_rows(path)
    return sum(1 for _ in read_rows(path, options)) - 1


def format_csv(rows: Iterable[Sequence[str]], delimiter: str = ",") -> str:
    """Return rows as CSV text."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def append_rows(path: Path, rows: Iterable[Sequence[str]], options: ReadOptions, suffix: str) -> None:
    """Append rows to a CSV file. Its present bytes stay as they are: a compressed file gets a second compressed stream.

    Raises
    ------
    TableError
        If a cell cannot be written in the file's encoding.
    """
    last = b""
    with open_table(path, "rb", suffix) as file:
        while chunk := file.read(CHUNK_BYTES):
            last = chunk[-1:]
    try:
        text = format_csv(rows, options.delimiter).encode(options.encoding)
    except UnicodeEncodeError as error:
        raise TableError(f"The new rows cannot be written in {options.encoding}: {error}", []) from error
    with open_table(path, "ab", suffix) as file:
        file.write((b"" if last == b"\n" else b"\n") + text)
