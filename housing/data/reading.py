"""Table files: CSV in UTF-8, compressed or not, read strictly and written with the same compression.

Every command reads and writes its tables here. A file that could be read in two ways is refused, with its line.
"""

import bz2
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from housing.core.errors import TableError

CHUNK_BYTES = 1 << 20

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
UNSUPPORTED = (".zip", ".tar", ".tgz", ".7z", ".rar", ".lz4", ".br", ".z")


@dataclass(frozen=True)
class TextTable:
    """The cells of a file as text. Each row has as many cells as the header."""

    header: Cells
    rows: list[Cells]


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
        raise TableError(f"{path}: {suffix} files are not supported. Expected CSV, or CSV with {', '.join(COMPRESSIONS)}.", [])
    with path.open(mode) as file:
        if suffix in COMPRESSIONS:
            with COMPRESSIONS[suffix](file, mode) as stream:
                yield stream
        else:
            yield file


def read_rows(path: Path, suffix: str | None = None) -> Iterator[NumberedRow]:
    """Yield the header and the rows of a CSV file, each with the number of its first line. A quoted cell may span lines.

    Rows may have more or fewer cells than the header.

    Raises
    ------
    TableError
        If the file is empty, damaged or no CSV in UTF-8, or if a name stands twice in the header.
    """
    line, n_rows = 1, 0
    try:
        # pylint: disable-next=contextmanager-generator-missing-cleanup  # the file is closed with the generator
        with open_table(path, "rb", suffix) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text:
            reader = csv.reader(_text_lines(text, path), strict=True)
            for cells in reader:
                if n_rows == 0:
                    _require_unique(cells, path)
                yield line, cells
                line, n_rows = reader.line_num + 1, n_rows + 1
    except csv.Error as error:
        raise TableError(f"{path}, line {line}: {_csv_reason(error)}", []) from error
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise TableError(f"{path} cannot be read: {error}", []) from error
    if n_rows == 0:
        raise TableError(f"{path} is empty. Expected a header with the names of the columns, and rows.", [])


def _text_lines(text: Iterable[str], path: Path) -> Iterator[str]:
    """Yield lines. Refuse bytes that are no text, which the decoder passes on as surrogates."""
    for number, line in enumerate(text, start=1):
        if "\0" in line:
            raise TableError(f"{path}, line {number}: a NUL byte. Expected text in UTF-8.", [])
        if not line.isascii() and any("\udc80" <= character <= "\udcff" for character in line):
            raise TableError(f"{path} is not a CSV file in UTF-8: line {number} has other bytes. Convert it to UTF-8.", [])
        yield line


def _csv_reason(error: csv.Error) -> str:
    if "unexpected end of data" in str(error) or "field larger" in str(error):
        return "a quote is opened in this row and never closed."
    return f"not CSV: {error}."


def _require_unique(header: Cells, path: Path) -> None:
    for name in header:
        fields = [str(number) for number, other in enumerate(header, start=1) if other == name]
        if len(fields) > 1:
            raise TableError(f"{path}: the header has column {name!r} more than once (fields {' and '.join(fields)}).", [])


def read_text(path: Path, suffix: str | None = None) -> TextTable:
    """Read a whole file as text.

    Raises
    ------
    TableError
        As `read_rows`, and if a row has more or fewer cells than the header.
    """
    numbered_rows = read_rows(path, suffix)
    _, header = next(numbered_rows)
    rows = []
    for line, cells in numbered_rows:
        if not cells and len(header) == 1:
            cells = [""]  # an empty line of a table with a single column is a missing value
        if len(cells) != len(header):
            raise TableError(f"{path}, line {line}: Expected {len(header)} fields as in the header, got {len(cells)}.", [])
        rows.append(cells)
    return TextTable(header, rows)


def count_rows(path: Path) -> int:
    """Return the number of rows. A row whose quoted cell spans several lines counts once."""
    if path.suffix == ".parquet":
        from pyarrow import parquet  # pylint: disable=import-outside-toplevel  # other tables do not need it

        return int(parquet.read_metadata(path).num_rows)
    return sum(1 for _ in read_rows(path)) - 1


def format_csv(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV text."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def append_rows(path: Path, rows: Iterable[Sequence[str]], suffix: str) -> None:
    """Append rows to a CSV file. Its present bytes stay as they are: a compressed file gets a second compressed stream."""
    last = b""
    with open_table(path, "rb", suffix) as file:
        while chunk := file.read(CHUNK_BYTES):
            last = chunk[-1:]
    with open_table(path, "ab", suffix) as file:
        file.write((b"" if last == b"\n" else b"\n") + format_csv(rows).encode())
