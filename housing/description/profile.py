"""Profile of a file: counts of each column over all rows, and a sample of rows, in bounded memory."""

import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import TableError
from housing.data.read_options import ReadOptions
from housing.data.reading import Cells, NumberedRow, read_rows
from housing.description.cells import LEADING_ZERO, MISSING_MARKS, parse_number
from housing.schema.written_numbers import PLAIN_INTEGER, read_written_number

CHUNK_ROWS = 20_000
SAMPLE_ROWS = 20_000
N_LAST_ROWS = 5
MAX_LEVELS = 10_000  # distinct cells of a column that are counted one by one
MAX_MISFITS = 200  # distinct cells that are counted in a column of numbers
MISSING_CELLS = MISSING_MARKS | {""}
PLAIN_NUMBERS = frozenset("0123456789+-.eE \t\n")
LEADING_ZERO_LINE = re.compile(r"^[ \t]*[+-]?0\d", re.MULTILINE | re.ASCII)


@dataclass
class DistinctCells:
    """The distinct cells of a column, each with its count as long as there are at most `MAX_LEVELS`."""

    counts: Counter[str] = field(default_factory=Counter)
    _hashes: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, counts: Counter[str]) -> None:
        """Add the cells of a chunk of rows."""
        if not self._hashes:
            self.counts.update(counts)
            if len(self.counts) <= MAX_LEVELS:
                return
            counts, self.counts = self.counts, Counter()
        self._hashes.append(np.fromiter(map(hash, counts), dtype=np.int64, count=len(counts)))

    def __len__(self) -> int:
        """Return the number of distinct cells."""
        return len(np.unique(np.concatenate(self._hashes))) if self._hashes else len(self.counts)


@dataclass
class NumberRange:
    """The range of numbers, and whether each is above the one before."""

    lowest: float = math.inf
    highest: float = -math.inf
    is_increasing: bool = True

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Add numbers in the order of their rows."""
        self.is_increasing &= bool((np.diff(np.concatenate([[self.highest], numbers])) > 0).all())
        self.lowest, self.highest = min(self.lowest, float(numbers.min())), max(self.highest, float(numbers.max()))


@dataclass
class ColumnProfile:
    """Counts of one column.

    Attributes
    ----------
    missing
        The count of the empty cell and of each mark for a missing value.
    distinct
        The distinct cells that are not empty.
    n_numbers, n_integers, n_leading_zeros, n_written
        Cells that are numbers, whole numbers, numbers with leading zeros, and written numbers, such as those with a unit.
    misfits
        The count of each distinct cell that is no number, at most `MAX_MISFITS` of them.
    numbers
        The range of the cells that are numbers.
    sample
        Cells of the sampled rows.
    """

    name: str
    options: ReadOptions
    n_rows: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    n_numbers: int = 0
    n_integers: int = 0
    n_leading_zeros: int = 0
    n_written: int = 0
    numbers: NumberRange = field(default_factory=NumberRange)
    distinct: DistinctCells = field(default_factory=DistinctCells)
    misfits: Counter[str] = field(default_factory=Counter)
    sample: Cells = field(default_factory=list)

    def add(self, cells: Sequence[str]) -> None:
        """Count the cells of a chunk of rows."""
        counts = Counter(cells)
        self.n_rows += len(cells)
        self.missing.update({cell: counts[cell] for cell in counts.keys() & MISSING_CELLS})
        counts.pop("", None)
        self.distinct.add(counts)
        if self.options.rewrites_numbers or not PLAIN_NUMBERS.issuperset("".join(counts)):
            self._add_mixed(counts)
            return
        text = "\n".join(counts)
        is_integer = not set(text) & set(".eE")
        try:
            self._add_plain([cell for cell in cells if cell], is_integer, bool(LEADING_ZERO_LINE.search(text)))
        except ValueError:
            self._add_mixed(counts)

    def _add_plain(self, cells: Sequence[str], is_integer: bool, has_leading_zeros: bool) -> None:
        """Count cells of which each is a number. It is several times as fast as one by one."""
        numbers = np.array(list(map(float, cells)), dtype=np.float64)
        if not numbers.size:
            return
        self.n_numbers += len(cells)
        self.n_integers += len(cells) if is_integer else sum(PLAIN_INTEGER.fullmatch(cell) is not None for cell in cells)
        if has_leading_zeros:
            self.n_leading_zeros += sum(LEADING_ZERO.fullmatch(cell) is not None for cell in cells)
        self.numbers.add(numbers)

    def _add_mixed(self, counts: Counter[str]) -> None:
        for cell, count in counts.items():
            number = parse_number(cell, self.options)
            if number is not None and math.isfinite(number):
                text = str(self.options.number(cell))
                self.n_numbers += count
                self.n_integers += count * (PLAIN_INTEGER.fullmatch(text) is not None)
                self.n_leading_zeros += count * (LEADING_ZERO.fullmatch(text) is not None)
                self.numbers.add(np.full(count, number))
            else:
                self._add_misfit(cell, count)

    def _add_misfit(self, cell: str, count: int) -> None:
        self.n_written += count * (read_written_number(cell, self.parse) is not None)
        if cell in self.misfits or len(self.misfits) < MAX_MISFITS:
            self.misfits[cell] += count

    @property
    def parse(self) -> str:
        """How the file writes numbers with a unit: one of `PARSES`."""
        return "decimal_comma" if self.options.decimal == "," else "number"

    @property
    def levels(self) -> Mapping[str, int]:
        """The count of each distinct cell, or {} if there are more than `MAX_LEVELS`."""
        return self.distinct.counts

    @property
    def n_present(self) -> int:
        """The number of cells that are neither empty nor a missing mark."""
        return self.n_rows - self.missing.total()


@dataclass
class FileProfile:
    """Counts of all columns of a file.

    Attributes
    ----------
    misshapen
        The first lines of rows with more or fewer cells than the header, and their number of cells.
    first_row, last_rows
        The first row below the header, and the last ones.
    n_headers
        Rows that equal the header.
    n_duplicates
        Rows that equal an earlier row in every column.
    """

    columns: list[ColumnProfile]
    n_rows: int
    n_misshapen: int
    misshapen: list[tuple[int, int]]
    n_headers: int
    n_duplicates: int
    first_row: Cells
    last_rows: list[Cells]

    def column(self, name: str) -> ColumnProfile:
        """Return the profile of a column."""
        return next(column for column in self.columns if column.name == name)


def profile_file(path: Path, options: ReadOptions) -> FileProfile:
    """Read a whole file and return its profile. Raises TableError if the file cannot be read, or has no rows."""
    numbered_rows = read_rows(path, options)
    _, header = next(numbered_rows)
    columns = [ColumnProfile(name, options) for name in header]
    sample = _Sample()
    hashes, misshapen = list[NDArray[np.int64]](), list[tuple[int, int]]()
    n_rows = n_misshapen = n_headers = 0
    first_row, last_rows = Cells(), deque[Cells](maxlen=N_LAST_ROWS)
    for chunk in _chunks(numbered_rows):
        first_row = first_row or chunk[0][1]
        last_rows.extend(cells for _, cells in chunk[-N_LAST_ROWS:])
        rows = [cells for _, cells in chunk if len(cells) == len(header)]
        n_misshapen += len(chunk) - len(rows)
        misshapen = (misshapen + [(line, len(cells)) for line, cells in chunk if len(cells) != len(header)])[:5]
        for column, cells in zip(columns, zip(*rows, strict=True), strict=bool(rows)):
            column.add(cells)
        hashes.append(hash_rows(rows))
        sample.add(rows)
        n_rows += len(rows)
        n_headers += rows.count(header)
    if n_misshapen > n_rows:
        raise TableError(f"{path}: {_misshapen_reason(header, n_misshapen, n_misshapen + n_rows, misshapen[0])}", [])
    if not n_rows:
        raise TableError(f"{path} has no rows. Expected a header with the names of the columns, and rows.", [])
    for column, drawn in zip(columns, zip(*sample.rows, strict=True), strict=True):
        column.sample = list(drawn)
    n_duplicates = count_duplicates(hashes)
    return FileProfile(columns, n_rows, n_misshapen, misshapen, n_headers, n_duplicates, first_row, list(last_rows))


def _misshapen_reason(header: Cells, n_misshapen: int, n_rows: int, first: tuple[int, int]) -> str:
    line, n_cells = first
    reason = (
        f"{n_misshapen:,} of {n_rows:,} rows do not have {len(header)} cells, as the header {header}. Line {line} has {n_cells}."
    )
    if n_cells == len(header) + 1:
        return f"{reason} Does the header lack a name, or do rows end with a delimiter?"
    return f"{reason} If lines above the header are no part of the table, add to the command: read.skip_lines=NUMBER"


def hash_rows(rows: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Return a hash of each row."""
    return np.fromiter((hash(tuple(row)) for row in rows), dtype=np.int64, count=len(rows))


def count_duplicates(hashes: Sequence[NDArray[np.int64]]) -> int:
    """Return how many hashes equal an earlier one."""
    together = np.concatenate(hashes)
    return len(together) - len(np.unique(together))


def _chunks(numbered_rows: Iterator[NumberedRow]) -> Iterator[list[NumberedRow]]:
    while chunk := list(itertools.islice(numbered_rows, CHUNK_ROWS)):
        yield chunk


class _Sample:
    """Rows drawn at random from a stream, each with the same chance, in their order."""

    def __init__(self) -> None:
        self.rows: list[Cells] = []
        self._random = np.random.default_rng(0)
        self._priorities = np.empty(0)

    def add(self, rows: Sequence[Cells]) -> None:
        """Offer a chunk of rows."""
        priorities = np.concatenate([self._priorities, self._random.random(len(rows))])
        together = [*self.rows, *rows]
        kept = np.sort(np.argsort(priorities)[:SAMPLE_ROWS])
        self.rows, self._priorities = [together[index] for index in kept], priorities[kept]
