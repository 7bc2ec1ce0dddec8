"""Reading a table: types, digits, fingerprint, and violations reported by row, column and value."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from housing.core.errors import ConfigError, HousingError, TableError
from housing.data.reading import BATCH_ROWS
from housing.data.settings import TableSettings, parse_schema
from housing.data.table import Table, read_table, validate_frame
from housing.schema.table_schema import Schema
from tests.support.tables import TABLES, config, rentals_frame, train

RENTALS = Schema.from_dict(yaml.safe_load((TABLES / "data" / "rentals.yaml").read_text(encoding="utf-8")))


def read(path: Path) -> Table:
    """Read a file as the rentals."""
    return read_table(TableSettings(RENTALS, path))


def write(path: Path, *lines: str) -> Path:
    """Write a CSV file of rentals."""
    path.write_text("\n".join(["area,rooms,furnished,quarter,built,rent", *lines, ""]))
    return path


def test_a_csv_file_is_encoded_by_the_schema(tmp_path: Path) -> None:
    table = read(write(tmp_path / "t.csv", "50.5,2,True,hills,,900", "20.0,1,false,old town,1950,400"))
    np.testing.assert_array_equal(table.matrix, [[50.5, 2, 1, 2, np.nan], [20.0, 1, 0, 0, 1950]])
    np.testing.assert_array_equal(table.target, [900, 400])


def test_numbers_are_read_to_the_last_digit(tmp_path: Path) -> None:
    areas = np.random.default_rng(0).uniform(5, 500, 2000)
    table = read(write(tmp_path / "t.csv", *(f"{area!r},2,True,hills,,900" for area in areas.tolist())))
    np.testing.assert_array_equal(table.matrix[:, 0], areas)


def test_a_table_of_several_batches_is_read_as_one(tmp_path: Path) -> None:
    n_rows = 2 * BATCH_ROWS + 5
    frame = rentals_frame(n_rows)
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = read(tmp_path / "t.csv")
    np.testing.assert_array_equal(table.matrix[:, :2], frame[["area", "rooms"]])
    np.testing.assert_array_equal(table.target, frame.rent)
    halves = [table.take(range(n_rows // 2)), table.take(range(n_rows // 2, n_rows))]
    assert table.keys.tolist() == [*halves[0].keys, *halves[1].keys]
    frame = frame.astype({"area": str})
    frame.loc[[3, n_rows - 1], "area"] = "wide"
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(TableError) as error:
        read(tmp_path / "t.csv")
    assert [violation.row for violation in error.value.violations] == [3, n_rows - 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("wide,2,True,hills,,900", "row 1, area: Not a number: 'wide'"),
        ("50,2,maybe,hills,,900", "row 1, furnished: Not true or false: 'maybe'"),
        ("50,2,True,moon,,900", "row 1, quarter: Must be one of old town, harbour, hills .got 'moon'"),
        ("50,2,True,NA,,900", "row 1, quarter: Must be one of .* .got 'NA'"),
        (",2,True,hills,,900", "area: 1 of 2 values are missing, the first in row 1"),
        ("NaN,2,True,hills,,900", "row 1, area: Not a number: 'NaN'"),
        ("5_0,2,True,hills,,900", "row 1, area: Not a number: '5_0'"),
        ("\xa050,2,True,hills,,900", r"row 1, area: Not a number: '\\xa050'"),
        ("50,2.5,True,hills,,900", "row 1, rooms: Not a whole number: 2.5"),
        ("50,2,True,hills,,900,7,8", "Expected 6 fields"),
    ],
)
def test_a_cell_that_does_not_fit_is_reported_by_row_and_column(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "t.csv", "50,2,True,hills,,900", line)
    with pytest.raises(TableError, match=message):
        read(path)


def test_of_many_violations_each_kind_is_one_line_with_its_count(tmp_path: Path) -> None:
    rows = [f"{-row},2,True,hills,,900" for row in range(1, 31)] + ["50,,True,hills,,900"] * 3
    path = write(tmp_path / "t.csv", *rows)
    with pytest.raises(TableError) as error:
        read(path)
    message, *lines = str(error.value).splitlines()
    assert message.startswith("33 values violate the schema of table rentals")
    assert [line.strip()[:12] for line in lines] == ["rooms: 3 of ", "row 0, area:"]
    assert lines[0].endswith("3 of 33 values are missing, the first in row 30. If they may be, add to the column: nullable: true")
    assert "(got -1" in lines[1] and lines[1].endswith("And 29 more rows.")


def test_a_missing_empty_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HousingError, match="Get it with: python -m housing.fetch data=rentals"):
        read(tmp_path / "nothing.csv")
    with pytest.raises(HousingError, match="has no rows"):
        read(write(tmp_path / "empty.csv"))
    (tmp_path / "odd.csv").write_bytes(b"area,rooms\n\xe9,1\n")
    with pytest.raises(TableError, match="odd.csv is not a CSV file in UTF-8"):
        read(tmp_path / "odd.csv")


def test_missing_and_undeclared_columns_are_reported(tmp_path: Path) -> None:
    frame = rentals_frame(10)
    frame.drop(columns="area").assign(colour="red").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(TableError, match="area: Missing column.\n  colour: Undeclared column"):
        read(tmp_path / "t.csv")


def test_the_fingerprint_is_the_sha256_of_the_file_and_a_head_has_another(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", *["50,2,True,hills,,900"] * 3)
    table = read(path)
    assert table.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(table.head(2)) == 2
    assert table.head(2).fingerprint != table.fingerprint


def test_a_misspelt_key_of_a_table_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="unknown key 'slice_colums'. Did you mean 'slice_columns'"):
        parse_schema(config("train", "data=rentals", "+data.slice_colums=[area]").data)
    assert parse_schema(config("train", "data=rentals", "+data.rows=5").data).name == "rentals"


def test_a_row_has_the_same_key_whether_its_words_are_categories_or_texts() -> None:
    frame = pd.DataFrame(
        {"make": ["audi", "fiat", None], "size": [1.0, 2.0, 3.0], "model": ["a b", "c", "d"], "price": [5.0, 6.0, 7.0]}
    )
    category, text = {"type": "category", "categories": "auto", "nullable": True}, {"type": "text", "nullable": True}
    keys = []
    for make, model in itertools.product((category, text), repeat=2):
        columns = {"make": make, "size": {"type": "float"}, "model": model, "price": {"type": "float", "role": "target"}}
        table = validate_frame(Schema.from_dict({"name": "cars", "columns": columns}), frame, digest="")
        keys.append(table.keys.tolist())
    assert keys == [keys[0]] * 4 and len(set(keys[0])) == 3


def test_a_sweep_over_the_type_of_a_column_scores_the_same_rows(home: Path) -> None:
    types = ("{type: text, categories: null}", "{type: category, categories: auto}")
    outcomes = [train(home, "experiment=compare", "model=linear", f"++data.columns.quarter={declared}") for declared in types]
    assert outcomes[0].scored_rows == outcomes[1].scored_rows
    assert outcomes[0].run_id != outcomes[1].run_id
