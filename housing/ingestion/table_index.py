"""Index of a table: hashes of its rows and its drift reference, so that an ingest reads only what is new."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from housing.bundle.array_files import read_arrays, write_arrays
from housing.bundle.file_format import TEXT_ARRAYS
from housing.core.errors import BundleError
from housing.core.files import sha256
from housing.data.reading import BATCH_ROWS
from housing.data.settings import TableSettings
from housing.data.table import Table, read_table
from housing.ingestion.drift import ColumnReference, extend_reference, reference_of
from housing.schema.text_projection import TextProjection

FORMAT = 1
HASH_BYTES = 16
CHUNK = 1 << 16  # hashes that are in memory at once
MAX_GROWTH = 1.5  # of a table since it was read whole. Then it is read again, since its deciles and medians have moved
CONTENT, ROWS, KEYS = "index.json", "rows.bin", "keys.bin"

Hashes = NDArray[np.bytes_]  # of HASH_BYTES each


@dataclass(frozen=True)
class TableIndex:
    """Hashes and distributions of the present rows of a table.

    The index is a directory beside the table, with the sorted hashes of all rows and of their keys. It is only used if the
    table's fingerprint, declaration and read options are those that it was made from. Otherwise the table is read again.

    Attributes
    ----------
    folder
        The directory of the index.
    fingerprint
        SHA-256 of the table's file.
    declaration
        Schema and read options of the table, as text.
    n_rows
        Rows with a target.
    n_read
        Rows with a target when the table was read whole.
    levels
        Learned levels by column.
    projections
        Learned projections of texts by column.
    reference
        Distributions of the features and of the target.
    """

    folder: Path
    fingerprint: str
    declaration: str
    n_rows: int
    n_read: int
    levels: dict[str, dict[str, int]]
    projections: dict[str, TextProjection]
    reference: list[ColumnReference]

    @classmethod
    def open(cls, settings: TableSettings) -> Self:
        """Return the index of a table. Reads and validates the whole table if the index is missing or of another table.

        Raises
        ------
        HousingError
            If the table does not exist.
        TableError
            If it does not fit the schema.
        """
        folder, declaration = settings.path.with_name(f".{settings.path.name}.index"), _declare(settings)
        stored = cls._read(folder)
        if stored is not None and settings.path.is_file():
            is_same = (stored.fingerprint, stored.declaration) == (sha256(settings.path), declaration)
            if is_same and stored.n_rows <= MAX_GROWTH * stored.n_read:
                return stored
        table = read_table(settings)
        table = table.learn(range(len(table)))
        n_rows, levels = len(table), {name: dict(counts) for name, counts in table.schema.levels.items()}
        projections = dict(table.schema.projections)
        index = cls(folder, table.fingerprint, declaration, n_rows, n_rows, levels, projections, reference_of(table))
        index.write([np.sort(hash_rows(table))], [np.sort(hash_keys(table))])
        return index

    @classmethod
    def _read(cls, folder: Path) -> Self | None:
        """Return a stored index, or None if it is missing, damaged or of another format."""
        try:
            content: dict[str, Any] = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
            sizes = {(folder / name).stat().st_size for name in (ROWS, KEYS)}
            if content.pop("format") != FORMAT or sizes != {HASH_BYTES * content["n_rows"]}:
                return None
            reference = [ColumnReference(**column) for column in content.pop("reference")]
            arrays, texts = read_arrays(folder / TEXT_ARRAYS), enumerate(content.pop("texts").items())
            projections = {name: TextProjection.from_arrays(str(index), arrays, size) for index, (name, size) in texts}
            return cls(folder, reference=reference, projections=projections, **content)
        except (OSError, ValueError, KeyError, TypeError, BadZipFile, BundleError):
            return None

    def encode(self, added: Table) -> Table:
        """Return rows encoded as those of the table."""
        return added.encoded_as(replace(added.schema.with_levels(self.levels), projections=self.projections))

    def find_rows(self, rows: Hashes) -> NDArray[np.bool_]:
        """Return which rows the table has, by the hashes of `hash_rows`."""
        return _find(self.folder / ROWS, rows)

    def find_keys(self, keys: Hashes) -> NDArray[np.bool_]:
        """Return which keys the table has, by the hashes of `hash_keys`."""
        return _find(self.folder / KEYS, keys)

    def add(self, added: Table, fingerprint: str) -> None:
        """Replace the index by that of the table with more rows. A new level removes it, since it changes the bins."""
        if any(set(levels) - set(self.levels[name]) for name, levels in added.schema.levels.items()):
            shutil.rmtree(self.folder)
            return
        reference = extend_reference(self.reference, self.encode(added))
        extended = replace(self, fingerprint=fingerprint, n_rows=self.n_rows + len(added), reference=reference)
        extended.write(_merge(self.folder / ROWS, hash_rows(added)), _merge(self.folder / KEYS, hash_keys(added)))

    def write(self, rows: Iterable[Hashes], keys: Iterable[Hashes]) -> None:
        """Write the index as a new directory, and replace the previous one. A killed process leaves no index or a whole one."""
        for stale_folder in self.folder.parent.glob(f"{self.folder.name}-*"):
            shutil.rmtree(stale_folder)
        partial = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}-", dir=self.folder.parent))
        content = asdict(self) | {"format": FORMAT}
        del content["folder"], content["projections"]
        content["texts"] = {name: projection.components.shape[1] for name, projection in self.projections.items()}
        parts = [projection.to_arrays(str(index)) for index, projection in enumerate(self.projections.values())]
        write_arrays(partial / TEXT_ARRAYS, {name: array for part in parts for name, array in part.items()})
        (partial / CONTENT).write_text(json.dumps(content), encoding="utf-8")
        for name, chunks in ((ROWS, rows), (KEYS, keys)):
            with (partial / name).open("wb") as file:
                file.writelines(chunk.tobytes() for chunk in chunks)
        shutil.rmtree(self.folder, ignore_errors=True)
        partial.rename(self.folder)


def hash_rows(table: Table) -> Hashes:
    """Return a hash of all values of each row, shape (rows,)."""
    parts = (table.take(range(start, min(start + BATCH_ROWS, len(table)))) for start in range(0, len(table), BATCH_ROWS))
    return _hash(part.row_keys() for part in parts)


def hash_keys(table: Table) -> Hashes:
    """Return a hash of the key of each row, shape (rows,)."""
    return _hash(table.key_batches())


def _hash(batches: Iterable[Iterable[bytes]]) -> Hashes:
    digests = bytearray()
    for batch in batches:
        digests += b"".join([hashlib.blake2b(value, digest_size=HASH_BYTES).digest() for value in batch])
    return np.frombuffer(digests, dtype=f"S{HASH_BYTES}")


def _declare(settings: TableSettings) -> str:
    return json.dumps([settings.schema.to_dict(), repr(settings.read)])


def _chunks(path: Path) -> Iterator[Hashes]:
    """Yield the sorted hashes of a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK * HASH_BYTES):
            yield np.frombuffer(chunk, dtype=f"S{HASH_BYTES}")


def _find(path: Path, hashes: Hashes) -> NDArray[np.bool_]:
    is_present = np.zeros(len(hashes), dtype=np.bool_)
    for chunk in _chunks(path):
        position = np.minimum(np.searchsorted(chunk, hashes), len(chunk) - 1)
        is_present |= chunk[position] == hashes
    return is_present


def _merge(path: Path, added: Hashes) -> Iterator[Hashes]:
    """Yield the sorted hashes of a file and of added rows, in order."""
    rest = np.sort(added)
    for chunk in _chunks(path):
        n_before = int(np.searchsorted(rest, chunk[-1]))
        yield np.insert(chunk, np.searchsorted(chunk, rest[:n_before]), rest[:n_before])
        rest = rest[n_before:]
    yield rest
