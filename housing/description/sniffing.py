"""Read options of an unknown file, found from its first megabyte; its encoding from the whole file."""

import codecs
import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from housing.core.errors import TableError
from housing.data.read_options import PLAIN, ReadOptions
from housing.data.reading import CHUNK_BYTES, DELIMITERS, Cells, NumberedRow, is_utf_8, number_duplicates, open_table, read_lines
from housing.data.typed_files import EXCEL, PARQUET, sheet_names
from housing.description.cells import MISSING_MARKS, number_core, parse_number
from housing.schema.written_numbers import PLAIN_NUMBER

SAMPLE_LINES = 1000
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
MIN_NUMBER_SHARE = 0.5  # of a column's cells, for its signs to count
RARE_DELIMITERS = ("^", "~", "\x01", "\u00a6", ":", " ")
FOREIGN_WORD = re.compile(r"[^\W\d_]*[^\x00-\x7f][^\W\d_]*")
MISSING_CELLS = MISSING_MARKS | {""}
RENAME = "Rename it to end in {0}, so that it is read as such."
OTHER_FORMATS = (  # first bytes in lower case, the format's name, and what to do
    (b"\x1f\x8b", "gzip", RENAME.format(".csv.gz")),
    (b"bzh", "bzip2", RENAME.format(".csv.bz2")),
    (b"\xfd7zxz", "xz", RENAME.format(".csv.xz")),
    (b"\x28\xb5\x2f\xfd", "Zstandard", RENAME.format(".csv.zst")),
    (b"par1", "Parquet", RENAME.format(".parquet")),
    (b"pk\x03\x04", "a ZIP archive or an Excel file", "Unpack it, or rename it to end in .xlsx."),
    (b"\xd0\xcf\x11\xe0", "an old Excel file", "Save it as .xlsx or CSV."),
    (b"%pdf", "PDF", "Export the table as CSV or Excel."),
    (b"<!doctype", "HTML", "Is it a page of errors or a sign-in, in place of the download? Get the file itself."),
    (b"<html", "HTML", "Is it a page of errors or a sign-in, in place of the download? Get the file itself."),
    (b"<?xml", "XML", "Export the table as CSV or Excel."),
    (b'{"', "JSON", "Convert it to CSV or Parquet."),
    (b"[", "JSON", "Convert it to CSV or Parquet."),
)
NUMBER_SIGNS = (
    (".", ""),
    (".", ","),
    (",", ""),
    (",", "."),
    *((decimal, group) for group in ("'", "\u2019", " ", "\u00a0", "\u202f") for decimal in (".", ",")),
)


@dataclass(frozen=True)
class Sniffed:
    """The read options of a file, the evidence for those that are not plain, by option, and what misleads, as sentences."""

    options: ReadOptions
    evidence: dict[str, str]
    warnings: tuple[str, ...] = ()


def sniff(path: Path, known: Mapping[str, Any] | None = None) -> Sniffed:
    """Return the read options that fit a file best. Those in `known` are not guessed.

    Raises
    ------
    TableError
        If the file is empty or no table, or has a single column with each delimiter.
    """
    known = {key: value for key, value in (known or {}).items() if value is not None}
    evidence = dict.fromkeys(known, "as it was set")
    warnings = list[str]()
    if path.suffix.lower() == PARQUET:
        return Sniffed(ReadOptions(**known), evidence)
    if path.suffix.lower() == EXCEL:
        sheet, sheet_warnings = (known["sheet"], []) if "sheet" in known else _choose_sheet(path)
        warnings += sheet_warnings
        options = ReadOptions(**{"sheet": sheet, **known})
        evidence.setdefault("sheet", "the first one with a table")
        rows = _first_rows(path, options.sheet)
    else:
        encoding, evidence["encoding"] = (known["encoding"], "") if "encoding" in known else _sniff_encoding(path)
        text = _first_text(path, encoding)
        if evidence["encoding"].startswith("a guess"):
            warnings.append(_encoding_warning(path, encoding))
        delimiter, found = (known["delimiter"], "") if "delimiter" in known else _sniff_delimiter(text, path)
        evidence.setdefault("delimiter", found)
        rows = _numbered_rows(text, delimiter)
        options = ReadOptions(**{"encoding": encoding, "delimiter": delimiter, **known})
    if not any("".join(cells).strip() for _, cells in rows):
        raise TableError(f"{path} is empty. Expected a header with the names of the columns, and rows.", [])
    if "skip_lines" not in known:
        n_lines, evidence["skip_lines"] = _sniff_skipped_lines(rows)
        options = replace(options, skip_lines=n_lines)
    rows = [(line, cells) for line, cells in rows if line > options.skip_lines]
    options, found_by_rows = _sniff_rows([cells for _, cells in rows], options, known)
    evidence |= {key: text for key, text in found_by_rows.items() if key not in known}
    if options.duplicates == "number":
        names = number_duplicates([_unquoted(name.strip()) if options.strip else name for name in rows[0][1]])
        warnings.append(f"{found_by_rows['duplicates']}. The columns are numbered: {', '.join(names)}.")
    changed = {key: text for key, text in evidence.items() if getattr(options, key) != getattr(PLAIN, key)}
    return Sniffed(options, changed, tuple(warnings))


def _sniff_rows(rows: Sequence[Cells], options: ReadOptions, known: Mapping[str, Any]) -> tuple[ReadOptions, dict[str, str]]:
    """Return the options with what the rows themselves show, and the evidence for it."""
    spaced = [cell for row in rows for cell in row if cell != cell.strip()]
    if spaced and "strip" not in known:
        options = replace(options, strip=True)
    if options.strip:
        rows = [[_unquoted(cell.strip()) for cell in row] for row in rows]
    (decimal, thousands), n_numbers = _sniff_number_signs(rows[1:] or rows, options.delimiter)
    signs = {"decimal": known.get("decimal", decimal), "thousands": known.get("thousands", thousands)}
    options = replace(options, **signs)
    header, header_evidence = (known["header"], "") if "header" in known else _sniff_header(rows, options)
    names = number_duplicates([f"column_{number}" for number in range(1, len(rows[0]) + 1)])
    options = replace(options, header=header, names=(tuple(names),) if header == "none" else ())
    twice = sorted(name for name, count in Counter(rows[0]).items() if count > 1)
    if header == "first" and twice and "duplicates" not in known:
        options = replace(options, duplicates="number")
    numbers_evidence = f"{n_numbers:,} cells of the first {len(rows):,} rows are numbers only with it"
    return options, {
        "strip": f"{len(spaced):,} cells of the first {len(rows):,} rows have spaces around them, such as {spaced[0]!r}"
        if spaced
        else "",
        "decimal": numbers_evidence,
        "thousands": numbers_evidence,
        "header": header_evidence,
        "duplicates": f"The header repeats {', '.join(map(repr, twice))}" if twice else "",
    }


def _unquoted(cell: str) -> str:
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _choose_sheet(path: Path) -> tuple[str | None, list[str]]:
    """Return the first sheet with a table, or None if it is the first of all, and a warning if there are others."""
    names = sheet_names(path)
    if len(names) == 1:
        return None, []
    tables = [name for name in names if sum(len(cells) > 1 for _, cells in _first_rows(path, name)) > 1]
    chosen = (tables or names)[0]
    others = ", ".join(repr(name) for name in names if name != chosen)
    warning = f"The sheet {chosen!r} is read. There are others: {others}. Add read.sheet=NAME to the command to read another one."
    return None if chosen == names[0] else chosen, [warning]


def _first_rows(path: Path, sheet: str | None) -> list[NumberedRow]:
    return list(itertools.islice(read_lines(path, ReadOptions(sheet=sheet)), SAMPLE_LINES))


def _encoding_warning(path: Path, encoding: str) -> str:
    """Return a warning with a decoded word, by which people can see whether a guessed encoding is right."""
    with open_table(path, "rb") as file, io.TextIOWrapper(file, encoding, "replace", newline="") as text:
        word = next((match[0] for line in text if (match := FOREIGN_WORD.search(line))), "")
    return (
        f"The encoding is a guess: {encoding}. Is {word!r} read correctly? Otherwise add it to the command, such as"
        " read.encoding=latin-1, shift_jis or gb18030."
    )


def _sniff_skipped_lines(rows: Sequence[NumberedRow]) -> tuple[int, str]:
    """Return the number of lines before the header: titles, comments, which start with #, and names over several columns."""
    width = Counter(len(cells) for _, cells in rows).most_common(1)[0][0]
    last, evidence = 0, ""
    for index, ((line, cells), (_, following)) in enumerate(itertools.pairwise(rows)):
        present = [cell for cell in cells if cell.strip()]
        is_title = len(present) <= 1 < width
        is_comment = cells[0].lstrip().startswith("#") and not (len(cells) == width and _has_number(following))
        if not (is_title or is_comment or _spans_columns([below for _, below in rows[index : index + 3]])):
            break
        last, evidence = line, evidence or f"the header is preceded by lines such as {present[0][:40]!r}" if present else evidence
    first_kept = next((line for line, _ in rows if line > last), last + 1)
    return (first_kept - 1, evidence) if evidence else (0, "")


def _spans_columns(rows: Sequence[Cells]) -> bool:
    """Return whether the first of three rows has names over several columns, as merged cells do: the second is the header."""
    if len(rows) < 3:
        return False
    top, header, below = rows
    is_header = len(set(header)) == len(header) == len(top) and not set(header) & MISSING_CELLS and not _has_number(header)
    return is_header and "" in top and not _has_number(top) and _has_number(below)


def _has_number(cells: Cells) -> bool:
    return any(PLAIN_NUMBER.fullmatch(cell) for cell in cells)


def _sniff_encoding(path: Path) -> tuple[str, str]:
    """Return the encoding of a file, and the evidence for it."""
    with open_table(path, "rb") as file:
        first = file.read(CHUNK_BYTES)
        if not first:
            raise TableError(f"{path} is empty. Expected a header with the names of the columns, and rows.", [])
        _require_table(first, path)
        for mark, encoding in BYTE_ORDER_MARKS:
            if first.startswith(mark):
                return encoding, f"the file starts with the byte order mark of {encoding}"
        for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if first[start:200:2].count(0) > len(first[:200]) // 4:
                return encoding, "every second byte is zero"
        decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
        chunk = first
        while chunk:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                _require_decodable(path, "cp1252")
                return "cp1252", f"a guess: byte 0x{error.object[error.start]:02x} near position {position:,} is no UTF-8"
            position += len(chunk)
            chunk = file.read(CHUNK_BYTES)
    return "utf-8", ""


def _require_table(start: bytes, path: Path) -> None:
    """Raise TableError if the first bytes of a file are those of a format that is no CSV."""
    for mark, name, advice in OTHER_FORMATS:
        if start.lstrip()[: len(mark)].lower() == mark:
            raise TableError(f"{path} looks like {name}, not like CSV. {advice}", [])


def _require_decodable(path: Path, encoding: str) -> None:
    try:
        with open_table(path, "rb") as file, io.TextIOWrapper(file, encoding, newline="") as text:
            for _ in text:
                pass
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path} is neither UTF-8 nor {encoding}. Add its encoding, such as read.encoding=shift_jis or gb18030.",
            [],
        ) from error


def _first_text(path: Path, encoding: str) -> str:
    """Return the whole lines at the start of a file."""
    with open_table(path, "rb") as file:
        content = file.read(CHUNK_BYTES)
    text = codecs.getincrementaldecoder("utf-8-sig" if is_utf_8(encoding) else encoding)(errors="replace").decode(content)
    return text if len(content) < CHUNK_BYTES else text[: text.rfind("\n") + 1]


def _rows(text: str, delimiter: str) -> list[Cells]:
    return [cells for _, cells in _numbered_rows(text, delimiter)]


def _numbered_rows(text: str, delimiter: str) -> list[NumberedRow]:
    """Return the first rows that are not blank, each with the number of its first line."""
    rows, line = list[NumberedRow](), 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    with suppress(csv.Error):  # the strict reader names the line later
        for cells in itertools.islice(reader, SAMPLE_LINES):
            if "".join(cells).strip():
                rows.append((line, cells))
            line = reader.line_num + 1
    return rows


def _sniff_delimiter(text: str, path: Path) -> tuple[str, str]:
    """Return the delimiter with which most rows have the same number of cells, and the evidence for it."""
    best = max((_fit_of(text, delimiter) for delimiter in DELIMITERS), key=lambda fit: fit[:2])
    if best[1] < 2:  # a rare delimiter must fit each row, since such characters stand within texts, too
        best = max((_fit_of(text, delimiter) for delimiter in RARE_DELIMITERS), key=lambda fit: fit[:2])
        best = best if best[0] == 1 else (0.0, 0, "", 0)
    share, width, delimiter, n_rows = best
    if width < 2:
        shown = ", ".join(map(repr, DELIMITERS))
        raise TableError(
            f"{path} has a single column with each of the delimiters {shown}. Expected a table with several."
            " If it has another delimiter, add it to the command: read.delimiter=CHARACTER",
            [],
        )
    return delimiter, f"it makes {width} cells in {share:.0%} of the first {n_rows:,} rows"


def _fit_of(text: str, delimiter: str) -> tuple[float, int, str, int]:
    """Return the share of rows with the most common number of cells, that number, the delimiter and the number of rows."""
    rows = _rows(text, delimiter)
    widths = Counter(len(cells) for cells in rows if len(cells) > 1)
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return (count / len(rows) if rows else 0.0), width, delimiter, len(rows)


def _sniff_number_signs(rows: Sequence[Cells], delimiter: str) -> tuple[tuple[str, str], int]:
    """Return the decimal sign and the sign of thousands with which most cells are numbers, and how many need them."""
    columns = [[number_core(cell) for cell in cells if cell] for cells in itertools.zip_longest(*rows, fillvalue="")]
    cells = [cell for column in columns if _is_mostly_digits(column) for cell in column]
    in_order = NUMBER_SIGNS if delimiter == "," else sorted(NUMBER_SIGNS, key=lambda signs: signs == (".", ","))
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
    """Return whether the first row has names: no number stands above numbers, or a text does."""
    numbers = []
    for index, cell in enumerate(rows[0]):
        below = [row[index] for row in rows[1:] if len(row) > index and row[index] and row[index] not in MISSING_MARKS]
        if below and all(parse_number(other, options) is not None for other in below):
            if cell not in MISSING_CELLS and parse_number(cell, options) is None:
                return "first", ""  # a name above numbers
            numbers += [cell] if cell not in MISSING_CELLS else []
    return ("none", f"the first row has the number {numbers[0]}, as the rows below it") if numbers else ("first", "")
