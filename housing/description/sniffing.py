"""Read options of an unknown file, found from its first megabyte; its encoding from the whole file."""

import codecs
import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from housing.core.errors import TableError
from housing.data.read_options import PLAIN, ReadOptions
from housing.data.reading import CHUNK_BYTES, DELIMITERS, Cells, open_table
from housing.data.typed_files import EXCEL, PARQUET
from housing.description.cells import MISSING_MARKS, number_core, parse_number

SAMPLE_LINES = 1000
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
MIN_NUMBER_SHARE = 0.5  # of a column's cells, for its signs to count
NUMBER_SIGNS = (
    (".", ""),
    (".", ","),
    (",", ""),
    (",", "."),
    (".", "'"),
    (".", " "),
    (",", " "),
    (",", "\u00a0"),
    (",", "\u202f"),
)


@dataclass(frozen=True)
class Sniffed:
    """The read options of a file, and the evidence for those that are not plain, by option."""

    options: ReadOptions
    evidence: dict[str, str]


def sniff(path: Path) -> Sniffed:
    """Return the read options that fit a file best.

    Raises
    ------
    TableError
        If the file is empty, or has a single column with each delimiter.
    """
    if path.suffix.lower() in (PARQUET, EXCEL):
        return Sniffed(PLAIN, {})
    encoding, encoding_evidence = _sniff_encoding(path)
    text = _first_text(path, encoding)
    delimiter, delimiter_evidence = _sniff_delimiter(text, path)
    rows = _rows(text, delimiter)
    (decimal, thousands), n_numbers = _sniff_number_signs(rows[1:] or rows, delimiter)
    options = ReadOptions(delimiter=delimiter, encoding=encoding, decimal=decimal, thousands=thousands)
    header, header_evidence = _sniff_header(rows, options)
    evidence = {
        "encoding": encoding_evidence,
        "delimiter": delimiter_evidence,
        "decimal": f"{n_numbers:,} cells of the first {len(rows):,} rows are numbers only with it",
        "thousands": f"{n_numbers:,} cells of the first {len(rows):,} rows are numbers only with it",
        "header": header_evidence,
    }
    names = tuple(f"column_{number}" for number in range(1, len(rows[0]) + 1))
    options = replace(options, header=header, names=(names,) if header == "none" else ())
    return Sniffed(options, {key: text for key, text in evidence.items() if getattr(options, key) != getattr(PLAIN, key)})


def _sniff_encoding(path: Path) -> tuple[str, str]:
    """Return the encoding of a file, and the evidence for it."""
    with open_table(path, "rb") as file:
        first = file.read(CHUNK_BYTES)
        if not first:
            raise TableError(f"{path} is empty. Expected a header with the names of the columns, and rows.", [])
        for mark, encoding in BYTE_ORDER_MARKS:
            if first.startswith(mark):
                return encoding, f"the file starts with the byte order mark of {encoding}"
        if first[1:200:2].count(0) > len(first[:200]) // 4:
            return "utf-16-le", "every second byte is zero"
        decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
        chunk = first
        while chunk:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return "cp1252", f"a guess: byte 0x{error.object[error.start]:02x} near position {position:,} is no UTF-8"
            position += len(chunk)
            chunk = file.read(CHUNK_BYTES)
    return "utf-8", ""


def _first_text(path: Path, encoding: str) -> str:
    """Return the whole lines at the start of a file."""
    with open_table(path, "rb") as file:
        content = file.read(CHUNK_BYTES)
    text = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)(errors="replace").decode(content)
    return text if len(content) < CHUNK_BYTES else text[: text.rfind("\n") + 1]


def _rows(text: str, delimiter: str) -> list[Cells]:
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    return [row for row in itertools.islice(_lenient(reader), SAMPLE_LINES) if row]


def _lenient(reader: Iterator[Cells]) -> Iterator[Cells]:
    with suppress(csv.Error):  # the strict reader names the line later
        yield from reader


def _sniff_delimiter(text: str, path: Path) -> tuple[str, str]:
    """Return the delimiter with which most rows have the same number of cells, and the evidence for it."""
    best = (0.0, 0, "", 0)
    for delimiter in DELIMITERS:
        rows = _rows(text, delimiter)
        width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
        if width > 1 and (count / len(rows), width) > best[:2]:
            best = (count / len(rows), width, delimiter, len(rows))
    share, width, delimiter, n_rows = best
    if not delimiter:
        shown = ", ".join(map(repr, DELIMITERS))
        raise TableError(f"{path} has a single column with each of the delimiters {shown}. Expected a table with several.", [])
    return delimiter, f"it makes {width} cells in {share:.0%} of the first {n_rows:,} rows"


def _sniff_number_signs(rows: Sequence[Cells], delimiter: str) -> tuple[tuple[str, str], int]:
    """Return the decimal sign and the sign of thousands with which most cells are numbers, and how many need them."""
    columns = [[number_core(cell) for cell in cells if cell] for cells in itertools.zip_longest(*rows, fillvalue="")]
    cells = [cell for column in columns if _is_mostly_digits(column) for cell in column]
    in_order = NUMBER_SIGNS if delimiter == "," else sorted(NUMBER_SIGNS, key=lambda signs: signs[0] == "." and signs[1] != "")
    counts = {signs: _count_numbers(cells, *signs) for signs in in_order}
    best = max(counts, key=counts.__getitem__)
    return best, counts[best] - counts[".", ""]


def _is_mostly_digits(cells: Sequence[str]) -> bool:
    numbers = [cell for cell in cells if cell[:1].isdigit() or cell[1:2].isdigit()]
    return bool(cells) and len(numbers) >= MIN_NUMBER_SHARE * len(cells)


def _count_numbers(cells: Sequence[str], decimal: str, thousands: str) -> int:
    options = ReadOptions(decimal=decimal, thousands=thousands)
    return sum(parse_number(cell, options) is not None for cell in cells)


def _sniff_header(rows: Sequence[Cells], options: ReadOptions) -> tuple[str, str]:
    """Return whether the first row has names. It has none if one of its cells is a number, as are those below it."""
    first, others = rows[0], rows[1:]
    for index, cell in enumerate(first):
        below = [row[index] for row in others if len(row) > index and row[index] and row[index] not in MISSING_MARKS]
        if parse_number(cell, options) is not None and below and all(parse_number(c, options) is not None for c in below):
            return "none", f"the first row has the number {cell}, as the rows below it"
    return "first", ""
