"""Predictions of files that are longer than a batch."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing.bundle.bundle import Bundle
from housing.core.errors import TableError
from housing.data.batch_prediction import MAX_VIOLATIONS, PredictionSettings, predict_file
from housing.data.read_options import PLAIN
from housing.data.reading import BATCH_ROWS, open_table
from housing.data.writing import write_frames
from tests.support.tables import rentals_frame

N_ROWS = 2 * BATCH_ROWS + 10


def new_rows(n_rows: int = N_ROWS) -> pd.DataFrame:
    """Return rows without a target, with a column that the model does not know."""
    return rentals_frame(n_rows).drop(columns="rent").assign(note=[f"é, {row}" for row in range(n_rows)])


def write(frame: pd.DataFrame, file: Path) -> Path:
    """Write rows in the format of the file's ending."""
    write_frames([frame], file, PLAIN, file.suffix)
    return file


def read(file: Path) -> pd.DataFrame:
    """Read a file in the format of its ending."""
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    with open_table(file, "rb") as stream:
        return pd.read_csv(stream)


@pytest.mark.parametrize(
    ("name", "out"), [("new.csv.zst", "out.csv.gz"), ("new.parquet", "out.csv.zst"), ("new.csv", "out.parquet")]
)
def test_a_file_of_several_batches_gets_the_predictions_of_the_whole_table(
    tmp_path: Path, bundle: Bundle, name: str, out: str
) -> None:
    frame = new_rows()
    settings = PredictionSettings(write(frame, tmp_path / name), tmp_path / out, coverage=0.9)
    reported: list[int] = []
    assert predict_file(bundle, settings, reported.append).n_predicted == N_ROWS
    assert reported == [BATCH_ROWS, 2 * BATCH_ROWS, N_ROWS]
    written = read(tmp_path / out)
    assert written.note.tolist() == frame.note.tolist() and written.area.tolist() == frame.area.tolist()
    expected = bundle.predict_interval(bundle.schema.encode_frame(frame), 0.9)
    assert np.array_equal(written[["rent_predicted", "rent_lower", "rent_upper"]].to_numpy().T, np.array(expected))


def test_rows_that_do_not_fit_are_numbered_over_all_batches(tmp_path: Path, bundle: Bundle) -> None:
    frame, out = new_rows().astype({"area": str}), tmp_path / "out.csv"
    frame.loc[[1, BATCH_ROWS + 2], "area"], frame.loc[BATCH_ROWS + 1, "rooms"] = "wide", 99
    file = write(frame, tmp_path / "new.csv")
    with pytest.raises(TableError) as error:
        predict_file(bundle, PredictionSettings(file, out))
    assert str(error.value).startswith(f"3 values of {file} violate the schema of table rentals")
    places = [(violation.row, violation.field) for violation in error.value.violations]
    assert places == [(1, "area"), (BATCH_ROWS + 1, "rooms"), (BATCH_ROWS + 2, "area")]
    with file.open("a", encoding="utf-8") as stream:
        stream.write("50,2\n")
    with pytest.raises(TableError, match=f"line {N_ROWS + 2}: Expected 6 fields"):
        predict_file(bundle, PredictionSettings(file, out))
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]  # nothing half-written
    predicted = predict_file(bundle, PredictionSettings(file, out, skips_bad_rows=True))
    assert (predicted.n_predicted, predicted.n_skipped) == (N_ROWS - 3, 4)
    skipped = read(tmp_path / "out.skipped.csv")
    assert skipped.line.tolist() == [3, BATCH_ROWS + 3, BATCH_ROWS + 4, N_ROWS + 2]
    assert read(out).note.tolist() == frame.note.drop([1, BATCH_ROWS + 1, BATCH_ROWS + 2]).tolist()


def test_a_batch_without_a_row_that_fits_is_left_out(tmp_path: Path, bundle: Bundle) -> None:
    frame = new_rows()
    frame.loc[: BATCH_ROWS - 1, "rooms"] = 99
    file, out = write(frame, tmp_path / "new.csv"), tmp_path / "out.parquet"
    assert predict_file(bundle, PredictionSettings(file, out, skips_bad_rows=True)).n_predicted == N_ROWS - BATCH_ROWS
    assert len(read(out)) == N_ROWS - BATCH_ROWS
    with pytest.raises(TableError) as error:
        predict_file(bundle, PredictionSettings(file, out))
    assert MAX_VIOLATIONS < len(error.value.violations) == BATCH_ROWS  # the rest was not read


def test_a_file_with_a_header_only_has_no_predictions(tmp_path: Path, bundle: Bundle) -> None:
    file, out = write(new_rows(0), tmp_path / "new.csv"), tmp_path / "out.csv"
    assert predict_file(bundle, PredictionSettings(file, out)).n_predicted == 0
    assert out.read_text(encoding="utf-8") == "area,rooms,furnished,quarter,built,note,rent_predicted\n"


def test_memory_does_not_grow_with_the_file(tmp_path: Path, bundle: Bundle) -> None:
    peaks = []
    for n_batches in (2, 4):
        file = write(new_rows(n_batches * BATCH_ROWS), tmp_path / "new.csv")
        tracemalloc.start()
        predict_file(bundle, PredictionSettings(file, tmp_path / "out.csv"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0], peaks
