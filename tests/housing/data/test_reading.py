"""Reading of table files: malformed files, exact numbers and keys, and compressed files in every command."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing.bundle.bundle import Bundle
from housing.core.errors import TableError
from housing.data.batch_prediction import PredictionSettings, predict_file
from housing.data.download import describe_file
from housing.data.preparation import prepare
from housing.data.reading import COMPRESSIONS, count_rows, open_table, read_batches
from housing.data.settings import TableSettings
from housing.data.split import SplitSettings, split_by_hash
from housing.data.table import Table, read_table, validate_frame
from housing.ingestion.ingestion import IngestionSettings, ingest
from housing.schema.table_schema import Schema
from tests.support.tables import rentals_frame

HEADER = "id,a,n,y\n"


def settings(path: Path, key: str = "int", **columns: dict[str, object]) -> TableSettings:
    """Return a table with a key, a float, an int and a target."""
    declared = {"id": {"type": key, "role": "key"}, "a": {"type": "float"}, "n": {"type": "int"}, "y": {"type": "float"}}
    declared["y"]["role"] = "target"
    return TableSettings(Schema.from_dict({"name": "orders", "columns": {**declared, **columns}}), path)


def read(tmp_path: Path, content: str | bytes, key: str = "int") -> Table:
    """Write a file and read it as a table."""
    path = tmp_path / "orders.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(settings(path, key))


def ingest_file(table: TableSettings, file: Path) -> int:
    """Append the rows of a file to a table."""
    return ingest(IngestionSettings(table, file, Path()), lambda _: ()).added


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADER}1,1,1,1\n2,2,2,2,0\n", "orders.csv, line 3: Expected 4 fields as in the header, got 5"),
        (f"{HEADER}1,1,1,1,0,0\n2,2,2,2,0,0\n", "line 2: Expected 4 fields as in the header, got 6"),
        (f"{HEADER}1,1,1\n", "line 2: Expected 4 fields as in the header, got 3"),
        ("a;b, c;d\n1;2;3\n", "got 1. The header looks separated by ';': set read.delimiter to ';'"),
        (f"{HEADER}1,1,1,1\n\n2,2,2\n", "line 4: Expected 4 fields as in the header, got 3"),
        (f'{HEADER}1,"\n\n1",1,1\n2,2,2,2,0\n', "line 5: Expected 4 fields as in the header, got 5"),
        (f'{HEADER}1,"1,1,1\n2,2,2,2\n', "line 2: a quote is opened in this row and never closed"),
        (f'{HEADER}1,"1" 2,1,1\n', "line 2: not CSV"),
        (f"{HEADER}1,1,1,1\n2,\0,2,2\n", "line 3: a NUL byte"),
        (b"id,a,n,y\n1,\xe9,1,1\n", "orders.csv is not a CSV file in UTF-8: line 2"),
        ("id,a,n,a,y\n1,1,1,1,1\n", r"the header has column 'a' more than once \(fields 2 and 4\)"),
        ("", "orders.csv is empty. Expected a header"),
        (HEADER, "Table orders has no rows"),
    ],
)
def test_a_file_that_could_be_read_in_two_ways_is_refused_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,1,9007199254740993,1", r"row 1, n: Must be between -9007199254740991 and 9007199254740991 \(got 9007199254740993\)"),
        ("1,1,1e300,1", r"row 1, n: Must be between .* \(got 1e\+300\)"),
        ("1,1e39,1,1", r"row 1, a: Must be between -3.4e\+38 and 3.4e\+38 \(got 1e\+39\)"),
        ("1,1,1,-1e14", r"row 1, y: Must be between -1e\+13 and 1e\+13 \(got -1"),
        ("1,1e999,1,1", "row 1, a: Not a finite number: 1e999"),
        ("1,inf,1,1", "row 1, a: Not a number: 'inf'"),
        ("1,NaN,1,1", "row 1, a: Not a number: 'NaN'"),
        ("9223372036854775808,1,1,1", r"row 1, id: Must be between .* \(got 9223372036854775808\). .* type: text"),
        ("1.8e18,1,1,1", "row 1, id: Must be between .* type: text"),
        ("007,1,1,1", "row 1, id: A number has no leading zeros .got '007'.. .* type: text"),
        ("x7,1,1,1", "row 1, id: Not a number: 'x7'"),
        (",1,1,1", "row 1, id: Missing required value"),
    ],
)
def test_a_number_that_would_be_rounded_is_refused_with_row_column_and_limit(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read(tmp_path, f"{HEADER}1,1,9007199254740991,1\n{row}\n")


def test_a_frame_of_a_source_has_the_same_limits() -> None:
    schema = settings(Path()).schema
    frame = pd.DataFrame({"id": [1, 2], "n": [2**53 + 1, 1], "a": [1.0, -1e39], "y": [1.0, 2.0]})
    with pytest.raises(TableError, match=r"row 0, n: .*got 9007199254740993(?s:.*)row 1, a: .*got -1e\+39"):
        validate_frame(schema, frame, digest="")


def rows_of_keys(keys: Sequence[str]) -> str:
    """Return a table whose rows differ in their keys only."""
    return HEADER + "".join(f"{key},1,1,1\n" for key in keys)


def test_long_integer_keys_are_exact_in_splits_duplicates_and_prepared_tables(tmp_path: Path) -> None:
    keys = [str(1_800_000_000_000_000_000 + number) for number in range(300)]
    table = read(tmp_path, rows_of_keys(keys))
    assert len(set(table.keys)) == len(set(table.row_keys())) == 300
    assert 30 < len(split_by_hash(table, 0.2, 0.16, "salt").test) < 90
    declared = settings(tmp_path / "orders.csv")
    prepare(
        declared, SplitSettings.create("housing.data.split.split_by_hash", test=0.2, valid=0.16, salt="s"), tmp_path / "o.parquet"
    )
    assert read_table(settings(tmp_path / "o.parquet")).row_keys() == table.row_keys()
    (tmp_path / "new.csv").write_text(rows_of_keys([keys[0], "1800000000000000300", "1800000000000000301"]), encoding="utf-8")
    assert ingest_file(declared, tmp_path / "new.csv") == 2


def test_text_keys_are_compared_as_they_are_written(tmp_path: Path) -> None:
    keys = ["007", "7", "7.0", "6E01", "60", "no", "null", "7 ", "0x1F"]
    table = read(tmp_path, rows_of_keys(keys), "text")
    assert len(set(table.keys)) == len(keys)
    (tmp_path / "new.csv").write_text(rows_of_keys(["07", *keys]), encoding="utf-8")
    assert ingest_file(settings(tmp_path / "orders.csv", "text"), tmp_path / "new.csv") == 1


def test_small_integer_keys_keep_the_bytes_that_splits_were_made_with(tmp_path: Path) -> None:
    table = read(tmp_path, rows_of_keys(["5", "-0", "-3"]))
    assert list(table.keys) == [np.array(key, dtype="<f8").tobytes() for key in (5, 0, -3)]


@pytest.mark.parametrize("suffix", ["", *COMPRESSIONS])
def test_a_compressed_table_is_read_counted_extended_and_prepared(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"orders.csv{suffix}"
    with open_table(path, "wb") as file:
        file.write(b'id,a,n,y\n1,1,1,1\n2,"2\n",2,2')  # a quoted line break, and no line break at the end
    before = path.read_bytes()
    declared = settings(path)
    assert (len(read_table(declared)), count_rows(path)) == (2, 2)
    with open_table(tmp_path / f"new.csv{suffix}", "wb") as file:
        file.write(b"y,n,a,id\n3,3,3,3\n2,2,2,2\n4,4,4,4\n")
    assert ingest_file(declared, tmp_path / f"new.csv{suffix}") == 2
    assert path.read_bytes().startswith(before)  # DVC's version is a prefix: an interrupted ingest can continue
    assert read_table(declared).target.tolist() == [1, 2, 3, 4]
    assert describe_file(declared, "is up to date").rows == 4


def test_a_damaged_or_unsupported_compressed_file_is_refused(tmp_path: Path) -> None:
    compressed = gzip.compress(rentals_frame(100).to_csv(index=False).encode())
    (tmp_path / "t.csv.gz").write_bytes(compressed[:-20])
    (tmp_path / "t.csv.zip").write_bytes(compressed)
    with pytest.raises(TableError, match="t.csv.gz cannot be read: "):
        count_rows(tmp_path / "t.csv.gz")
    with pytest.raises(TableError, match=r"\.zip files are not supported\. Expected CSV, CSV with \.gz"):
        count_rows(tmp_path / "t.csv.zip")


def test_predictions_refuse_shifted_rows_and_keep_the_compression_of_their_file(tmp_path: Path, bundle: Bundle) -> None:
    text = rentals_frame(20).drop(columns="rent").assign(note="007").to_csv(index=False)
    file, out = tmp_path / "new.csv.gz", tmp_path / "out.csv.gz"
    with open_table(file, "wb") as stream:
        stream.write(text.encode())
    assert predict_file(bundle, PredictionSettings(file, out)).n_predicted == 20
    predicted = next(read_batches(out))
    assert predicted.header[-2:] == ["note", "rent_predicted"] and {row[-2] for row in predicted.rows} == {"007"}
    (tmp_path / "shifted.csv").write_text(f"{text}1,2,True,hills,1950,x,9\n", encoding="utf-8")
    with pytest.raises(TableError, match="shifted.csv, line 22: Expected 6 fields as in the header, got 7"):
        predict_file(bundle, PredictionSettings(tmp_path / "shifted.csv", out))
