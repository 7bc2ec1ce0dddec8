"""Batch prediction: the rows of a file with their predictions, a batch at a time, so that memory does not grow with the file."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, Self

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, TableError, Violation
from housing.core.files import atomic_write, require_file
from housing.data.read_options import PLAIN, ReadOptions
from housing.data.reading import BATCH_ROWS, Cells, TextTable, base_name, field_count_reason, format_csv, read_batches
from housing.data.settings import parse_read_options, parse_schema
from housing.data.table import parse_columns
from housing.data.typed_files import PARQUET
from housing.data.writing import write_frames
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

ON_ERROR = ("stop", "skip")
SKIPPED_HEADER = ("line", "reason", "row")
MAX_VIOLATIONS = 10_000  # then the rest of the file is not read: a wrong column violates the schema in each row


@dataclass(frozen=True)
class PredictionSettings:
    """Settings of `conf/predict.yaml`.

    Attributes
    ----------
    coverage
        Of intervals, or None for predictions without intervals.
    quantiles
        Levels of the quantiles that are written, ascending.
    skips_bad_rows
        Whether a row that does not fit is left out of the predictions. Otherwise a single one stops the command.
    read
        How the file is written.
    """

    file: Path
    out: Path
    coverage: float | None = None
    quantiles: tuple[float, ...] = ()
    skips_bad_rows: bool = False
    read: ReadOptions = PLAIN

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of `housing.predict`."""
        if cfg.on_error not in ON_ERROR:
            raise ConfigError(f"on_error must be stop or skip (got {cfg.on_error!r})")
        options = parse_read_options(cfg.data, parse_schema(cfg.data))
        return cls(Path(cfg.file), Path(cfg.out), cfg.coverage, tuple(cfg.quantiles or ()), cfg.on_error == "skip", options)

    @property
    def skipped_file(self) -> Path:
        """The file that lists the skipped rows, beside the predictions."""
        return self.out.with_name(f"{base_name(self.out)}.skipped.csv")


Values = dict[str, Vector]  # predictions of a batch by the ends of their columns' names


class Predictor(NamedTuple):
    """Predictor of batches, in this process or on other machines.

    Attributes
    ----------
    start
        Begin to predict features of shape (rows, features), and return a function that waits for the predictions.
    n_ahead
        How many batches are started before the oldest must be complete.
    """

    start: Callable[[Matrix], Callable[[], Values]]
    n_ahead: int


@dataclass
class PredictedFile:
    """The numbers of rows that were predicted and skipped."""

    n_predicted: int = 0
    n_skipped: int = 0


@dataclass(frozen=True)
class Predictions:
    """A file of predictions.

    Attributes
    ----------
    source
        MLflow's address of the model.
    skipped_file
        The file that lists the skipped rows, or None if no row was skipped.
    """

    source: str
    rows: int
    out: Path
    skipped: int
    skipped_file: Path | None

    def __str__(self) -> str:
        skipped = f"\n{self.skipped:,} rows skipped, listed in {self.skipped_file}" if self.skipped else ""
        return f"{self.rows:,} rows predicted by {self.source}, written to {self.out}{skipped}"


@dataclass(frozen=True)
class _SkippedRow:
    """A row without a prediction. `line` is its first line in the file."""

    line: int
    reason: str
    cells: Cells


@dataclass(frozen=True)
class _Batch:
    """Consecutive rows of a file.

    Attributes
    ----------
    text
        The rows that fit the schema, as text.
    frame, matrix
        The same rows, with the model's columns as typed values, and their features, shape (rows, features).
    violations
        Why the other rows with as many cells as the header do not fit. Rows count from the first row of the file.
    skipped
        All other rows.
    """

    text: TextTable
    frame: pd.DataFrame
    matrix: Matrix
    violations: list[Violation]
    skipped: list[_SkippedRow]


def predict_file(
    bundle: Bundle,
    settings: PredictionSettings,
    on_rows: Callable[[int], None] = lambda _: None,
    predictor: Predictor | None = None,
) -> PredictedFile:
    """Write the rows of a file with their predictions atomically.

    Adds the column `<target>_predicted`, with `coverage` also `<target>_lower` and `<target>_upper`, and with `quantiles` such as
    `<target>_quantile_0.1` for each level. Other columns are copied as they are. Skipped rows are listed in a file beside the
    predictions, with line and reason. `on_rows` receives the number of predicted rows after each batch. Without a
    `predictor`, this process predicts.

    Raises
    ------
    TableError
        If a row does not fit the model's schema, or has more or fewer cells than the header, and such rows are not skipped. If no
        row fits.
    BundleError
        If `coverage` or `quantiles` is set and the model has no intervals.
    """
    require_file(settings.file, "a file with the model's columns")
    result = PredictedFile()
    skipped_file = _open_skipped_file(settings.skipped_file) if settings.skips_bad_rows else nullcontext()
    with skipped_file as skipped, atomic_write(settings.out) as partial_file:
        batches = _read_fitting(bundle.schema, settings, result, skipped)
        frames = _predict_batches(bundle, settings, batches, predictor or local_predictor(bundle, settings))
        write_frames(_report(frames, result, on_rows), partial_file, settings.read, settings.out.suffix)
    return result


def _report(frames: Iterable[pd.DataFrame], result: PredictedFile, on_rows: Callable[[int], None]) -> Iterator[pd.DataFrame]:
    for frame in frames:
        yield frame
        result.n_predicted += len(frame)
        on_rows(result.n_predicted)  # the frame is written


@contextmanager
def _open_skipped_file(path: Path) -> Iterator[IO[str]]:
    """Open the list of skipped rows, with its header."""
    with atomic_write(path) as partial_file, partial_file.open("w", encoding="utf-8") as file:
        file.write(format_csv([SKIPPED_HEADER]))
        yield file


def _read_fitting(
    schema: Schema, settings: PredictionSettings, result: PredictedFile, skipped_file: IO[str] | None
) -> Iterator[_Batch]:
    """Yield the rows of a file that fit the schema. Count and list the skipped rows.

    After a row that does not fit and is not skipped, the rest of the file is only checked.
    """
    violations: list[Violation] = []
    first_skipped: _SkippedRow | None = None
    is_empty = True
    texts = read_batches(settings.file, settings.read, keeps_ragged=settings.skips_bad_rows)
    for number, text in enumerate(texts):
        batch = _make_batch(schema, text, number * BATCH_ROWS, settings.file)
        if skipped_file is None:
            violations += batch.violations
        elif batch.skipped:
            first_skipped = first_skipped or batch.skipped[0]
            skipped_file.write(_format_skipped(batch.skipped))
            result.n_skipped += len(batch.skipped)
        if len(violations) > MAX_VIOLATIONS:
            break
        if not violations and (batch.text.rows or not batch.skipped):
            is_empty = False
            yield batch
    if violations:
        expected = f"the schema of table {schema.name} (rows count from 0)"
        raise TableError(f"{len(violations):,} values of {settings.file} violate {expected}:", violations)
    if first_skipped is not None and is_empty:
        raise TableError(f"No row of {settings.file} fits. Line {first_skipped.line}: {first_skipped.reason}", [])


def _make_batch(schema: Schema, text: TextTable, start: int, path: Path) -> _Batch:
    """Separate the rows that fit from the others. `start` is the number of the first row."""
    kept, frame, matrix, reasons = _encode(schema, text, path)
    skipped = [_SkippedRow(line, field_count_reason(text.header, cells), cells) for line, cells in text.ragged]
    skipped += [
        _SkippedRow(text.lines[row], " ".join(f"{reason.field}: {reason.reason}" for reason in of_row), text.rows[row])
        for row, of_row in reasons.items()
    ]
    violations = [replace(violation, row=start + row) for row in sorted(reasons) for violation in reasons[row]]
    return _Batch(_take(text, kept), frame, matrix, violations, sorted(skipped, key=lambda row: row.line))


def _encode(
    schema: Schema, text: TextTable, path: Path
) -> tuple[Sequence[int], pd.DataFrame, Matrix, dict[int, list[Violation]]]:
    """Return the indices of the rows that fit, their values and their features, and why the other rows do not fit."""
    rows, reasons = np.arange(len(text.rows)), dict[int, list[Violation]]()
    while True:
        try:
            frame = pd.DataFrame(parse_columns(_take(text, rows.tolist()), schema, schema.features, path))
            return rows.tolist(), frame, schema.encode_frame(frame), reasons
        except TableError as error:  # of the cells that cannot be parsed, and then of the values that the schema does not allow
            misfits = [violation.row for violation in error.violations if violation.row is not None]
            if len(misfits) < len(error.violations) or not misfits:
                raise  # a column is missing
            for row, violation in zip(misfits, error.violations, strict=True):
                reasons.setdefault(int(rows[row]), []).append(violation)
            rows = np.delete(rows, misfits)


def _take(text: TextTable, rows: Sequence[int]) -> TextTable:
    if len(rows) == len(text.rows):
        return text
    return replace(text, rows=[text.rows[row] for row in rows], lines=[text.lines[row] for row in rows])


def _predict_batches(
    bundle: Bundle, settings: PredictionSettings, batches: Iterable[_Batch], predictor: Predictor
) -> Iterator[pd.DataFrame]:
    """Yield the rows with their predictions, in order."""
    started: deque[tuple[_Batch, Callable[[], Values]]] = deque()
    for batch in batches:
        started.append((batch, predictor.start(batch.matrix)))
        if len(started) > predictor.n_ahead:
            yield _add_predictions(bundle, settings, *started.popleft())
    while started:
        yield _add_predictions(bundle, settings, *started.popleft())


def _add_predictions(
    bundle: Bundle, settings: PredictionSettings, batch: _Batch, predictions: Callable[[], Values]
) -> pd.DataFrame:
    """Return the rows as they are written, with predictions: text in CSV, and the model's columns as typed values in Parquet."""
    is_typed = settings.out.suffix.lower() == PARQUET
    rows = batch.frame if is_typed else pd.DataFrame(batch.text.rows, columns=batch.text.header, dtype="str")
    return rows.assign(**{f"{bundle.schema.target.name}_{name}": values for name, values in predictions().items()})


def _format_skipped(skipped: Iterable[_SkippedRow]) -> str:
    return format_csv((str(row.line), row.reason, format_csv([row.cells]).rstrip("\n")) for row in skipped)


def local_predictor(bundle: Bundle, settings: PredictionSettings) -> Predictor:
    """Return a predictor that predicts a batch in this process when its predictions are wanted."""
    return Predictor(lambda matrix: partial(predict_matrix, bundle, matrix, settings.coverage, settings.quantiles), n_ahead=0)


def predict_matrix(bundle: Bundle, matrix: Matrix, coverage: float | None, quantiles: Sequence[float]) -> Values:
    """Return the predictions of rows, with an interval and quantiles if they are wanted."""
    values: Values = {}
    if coverage is not None:
        values = dict(zip(("predicted", "lower", "upper"), bundle.predict_interval(matrix, coverage), strict=True))
    if quantiles:
        names = ("predicted", *(f"quantile_{level}" for level in quantiles))
        values |= dict(zip(names, bundle.predict_quantiles(matrix, quantiles), strict=True))
    return values or {"predicted": bundle.predict(matrix)}
