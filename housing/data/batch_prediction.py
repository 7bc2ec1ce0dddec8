"""Batch prediction: the rows of a file with their predictions."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, HousingError, TableError
from housing.core.files import atomic_write
from housing.data.read_options import PLAIN, ReadOptions
from housing.data.reading import Cells, TextTable, base_name, field_count_reason, format_csv, read_rows, read_text
from housing.data.settings import parse_read_options, parse_schema
from housing.data.table import parse_columns
from housing.data.typed_files import PARQUET
from housing.data.writing import write_frame
from housing.schema.column import Matrix, Vector

ON_ERROR = ("stop", "skip")
SKIPPED_HEADER = ("line", "reason", "row")


@dataclass(frozen=True)
class PredictionSettings:
    """Settings of `conf/predict.yaml`.

    Attributes
    ----------
    coverage
        Of intervals, or None for predictions without intervals.
    skips_bad_rows
        Whether a row that does not fit is left out of the predictions. Otherwise a single one stops the command.
    read
        How the file is written.
    """

    file: Path
    out: Path
    coverage: float | None = None
    skips_bad_rows: bool = False
    read: ReadOptions = PLAIN

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of `housing.predict`."""
        if cfg.on_error not in ON_ERROR:
            raise ConfigError(f"on_error must be stop or skip (got {cfg.on_error!r})")
        options = parse_read_options(cfg.data, parse_schema(cfg.data))
        return cls(Path(cfg.file), Path(cfg.out), cfg.coverage, cfg.on_error == "skip", options)

    @property
    def skipped_file(self) -> Path:
        """The file that lists the skipped rows, beside the predictions."""
        return self.out.with_name(f"{base_name(self.out)}.skipped.csv")


@dataclass(frozen=True)
class SkippedRow:
    """A row without a prediction. `line` is its first line in the file."""

    line: int
    reason: str
    cells: Cells


@dataclass(frozen=True)
class PredictedFile:
    """The number of rows that were predicted, and the rows that were skipped."""

    n_predicted: int
    skipped: list[SkippedRow]


def predict_file(bundle: Bundle, settings: PredictionSettings) -> PredictedFile:
    """Write the rows of a file with their predictions atomically.

    Adds the column `<target>_predicted`, and with `coverage` also `<target>_lower` and `<target>_upper`. Other columns are copied
    as they are. Skipped rows are listed in a file beside the predictions, with line and reason.

    Raises
    ------
    TableError
        If a row does not fit the model's schema, or has more or fewer cells than the header, and such rows are not skipped. If no
        row fits.
    BundleError
        If `coverage` is set and the model has no intervals.
    """
    if not settings.file.is_file():
        raise HousingError(f"File {settings.file} does not exist. Set file= to a file with the model's columns.")
    text, skipped = _read(settings)
    text, matrix, misfits = _encode(bundle, text, settings)
    skipped = sorted([*skipped, *misfits], key=lambda row: row.line)
    if skipped and not text.rows:
        raise TableError(f"No row of {settings.file} fits. Line {skipped[0].line}: {skipped[0].reason}", [])
    target = bundle.schema.target.name
    predictions = {f"{target}_{name}": values for name, values in _predict(bundle, matrix, settings.coverage).items()}
    with atomic_write(settings.out) as partial:
        write_frame(_copied(bundle, text, settings).assign(**predictions), partial, settings.read, settings.out.suffix)
    if settings.skips_bad_rows:
        _write_skipped(skipped, settings.skipped_file)
    return PredictedFile(len(text.rows), skipped)


def _read(settings: PredictionSettings) -> tuple[TextTable, list[SkippedRow]]:
    """Return the rows with as many cells as the header, and the others."""
    if not settings.skips_bad_rows:
        return read_text(settings.file, settings.read), []
    numbered_rows = read_rows(settings.file, settings.read)
    _, header = next(numbered_rows)
    text, skipped = TextTable(header, [], [], settings.read), []
    for line, cells in numbered_rows:
        if len(cells) == len(header):
            text.rows.append(cells)
            text.lines.append(line)
        else:
            skipped.append(SkippedRow(line, field_count_reason(header, cells), cells))
    return text, skipped


def _encode(bundle: Bundle, text: TextTable, settings: PredictionSettings) -> tuple[TextTable, Matrix, list[SkippedRow]]:
    """Return the rows that fit the model's schema, as text and as numbers, and the others."""
    schema, skipped = bundle.schema, list[SkippedRow]()
    while True:
        try:
            return text, schema.encode_frame(pd.DataFrame(parse_columns(text, schema, schema.features, settings.file))), skipped
        except TableError as error:  # of the cells that cannot be parsed, and then of the values that the schema does not allow
            reasons = _reasons_by_row(error)
            if not settings.skips_bad_rows or not reasons:
                raise
            skipped += [SkippedRow(text.lines[row], reason, text.rows[row]) for row, reason in reasons.items()]
            text = _without(text, reasons)


def _reasons_by_row(error: TableError) -> dict[int, str]:
    """Return why rows do not fit. Returns {} if the columns themselves do not."""
    reasons: dict[int, list[str]] = {}
    for violation in error.violations:
        if violation.row is None:
            return {}
        reasons.setdefault(violation.row, []).append(f"{violation.field}: {violation.reason}")
    return {row: " ".join(sentences) for row, sentences in reasons.items()}


def _without(text: TextTable, rows: Container[int]) -> TextTable:
    kept = [row for row in range(len(text.rows)) if row not in rows]
    return replace(text, rows=[text.rows[row] for row in kept], lines=[text.lines[row] for row in kept])


def _copied(bundle: Bundle, text: TextTable, settings: PredictionSettings) -> pd.DataFrame:
    """Return the rows as they are written: text in CSV, and the model's columns as typed values in Parquet."""
    if settings.out.suffix.lower() == PARQUET:
        return pd.DataFrame(parse_columns(text, bundle.schema, bundle.schema.features, settings.file))
    return pd.DataFrame(text.rows, columns=text.header, dtype="str")


def _write_skipped(skipped: Iterable[SkippedRow], path: Path) -> None:
    rows = [(str(row.line), row.reason, format_csv([row.cells]).rstrip("\n")) for row in skipped]
    with atomic_write(path) as partial:
        partial.write_text(format_csv([SKIPPED_HEADER, *rows]), encoding="utf-8")


def _predict(bundle: Bundle, matrix: Matrix, coverage: float | None) -> dict[str, Vector]:
    if coverage is None:
        return {"predicted": bundle.predict(matrix)}
    return dict(zip(("predicted", "lower", "upper"), bundle.predict_interval(matrix, coverage), strict=True))
