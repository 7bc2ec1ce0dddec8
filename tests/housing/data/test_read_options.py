"""Read options: delimiters, decimal commas, encodings, missing marks, files without a header, Parquet and Excel."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, HousingError, TableError
from housing.data.batch_prediction import PredictionSettings, predict_file
from housing.data.download import fetch_table
from housing.data.read_options import ReadOptions
from housing.data.reading import COMPRESSIONS, count_rows, open_table, read_batches
from housing.data.settings import TableSettings
from housing.data.table import Table, read_table
from housing.ingestion.ingestion import IngestionSettings, ingest
from tests.support.tables import config, rentals_frame

COLUMNS: dict[str, dict[str, Any]] = {
    "a": {"type": "float", "nullable": True},
    "n": {"type": "int"},
    "b": {"type": "bool"},
    "c": {"type": "category", "categories": ["Köln", "x,y", "7"]},
    "y": {"type": "float", "role": "target"},
}
VALUES = [[1.5, 1200, 1, 0], [np.nan, 7, 0, 1], [-2000.25, 3, 1, 2]]
GERMAN = {"delimiter": ";", "decimal": ",", "thousands": ".", "na_values": ["-"], "true_values": ["ja"], "false_values": ["nein"]}
GERMAN_TEXT = "a;n;b;c;y\n1,5;1.200;ja;Köln;10\n-;7;nein;x,y;20,5\n-2.000,25;3;ja;7;30\n"


def settings(path: Path, read: Mapping[str, object] | None = None) -> TableSettings:
    """Return a table with a column of each type."""
    return TableSettings.from_config(
        OmegaConf.create({"name": "orders", "path": str(path), "columns": COLUMNS, **({"read": dict(read)} if read else {})})
    )


def read(path: Path, content: str | bytes, **options: object) -> Table:
    """Write a file and read it as a table."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(settings(path, options))


def assert_is_the_table(table: Table) -> None:
    """Compare a table with the values of `VALUES`."""
    np.testing.assert_array_equal(table.matrix, VALUES)
    assert table.target.tolist() == [10, 20.5, 30]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"])
@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_a_table_is_the_same_in_each_encoding(tmp_path: Path, encoding: str, line_break: str) -> None:
    content = GERMAN_TEXT.replace("\n", line_break).encode(encoding)
    assert_is_the_table(read(tmp_path / "t.csv", content, **GERMAN, encoding=encoding))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_is_the_same_with_each_delimiter(tmp_path: Path, delimiter: str) -> None:
    frame = pd.DataFrame({"a": [1.5, None, -2000.25], "n": [1200, 7, 3], "b": [True, False, True], "c": ["Köln", "x,y", "7"]})
    content = frame.assign(y=[10, 20.5, 30]).to_csv(sep=delimiter, index=False)
    assert_is_the_table(read(tmp_path / "t.csv", content, delimiter=delimiter))


def test_a_table_without_a_header_has_the_columns_in_the_order_of_the_declaration(tmp_path: Path) -> None:
    without_header = GERMAN_TEXT.partition("\n")[2]
    assert_is_the_table(read(tmp_path / "t.csv", without_header, **GERMAN, header="none"))
    assert count_rows(tmp_path / "t.csv", settings(tmp_path, {**GERMAN, "header": "none"}).read) == 3
    with pytest.raises(TableError, match="t.csv, line 1: Expected 5 or 4 fields, as many as columns are declared, got 2"):
        read(tmp_path / "t.csv", "1;2\n", delimiter=";", header="none")


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_options_hold_for_compressed_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.csv{suffix}"
    with open_table(path, "wb") as file:
        file.write(GERMAN_TEXT.encode("cp1252"))
    assert_is_the_table(read_table(settings(path, {**GERMAN, "encoding": "cp1252"})))


def test_parquet_has_the_same_rules_as_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.5, None, -2000.25], "n": [1200, 7, 3], "b": [True, False, True], "c": ["Köln", "x,y", "7"]})
    path = tmp_path / "t.parquet"
    frame.assign(y=[10, 20.5, 30]).to_parquet(path)
    assert_is_the_table(read_table(settings(path)))
    assert_is_the_table(read_table(settings(path, GERMAN)))
    assert count_rows(path) == 3
    path.write_bytes(b"a,n\n1,2\n")
    with pytest.raises(TableError, match="t.parquet cannot be read as Parquet"):
        read_table(settings(path))


def test_excel_sheets_are_tables(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl, an extra, is not installed")
    book, path = openpyxl.Workbook(), tmp_path / "t.xlsx"
    book.active.append(["something", "else"])
    sheet = book.create_sheet("flats")
    for row in (
        list(COLUMNS),
        [1.5, 1200, True, "Köln", 10],
        [None] * 7,
        [None, 7, False, "x,y", 20.5],
        [-2000.25, 3, True, "7", 30],
    ):
        sheet.append(row)
    book.save(path)
    assert_is_the_table(read_table(settings(path, {"sheet": "flats"})))
    assert_is_the_table(read_table(settings(path, {**GERMAN, "sheet": "flats"})))
    with pytest.raises(TableError, match="has no sheet 'houses'. Sheets: Sheet, flats"):
        read_table(settings(path, {"sheet": "houses"}))
    sheet.append([1, 1, True, "7", 1, 1])
    book.save(path)
    with pytest.raises(TableError, match="line 6: Expected 5 fields as in the header, got 6"):
        read_table(settings(path, {"sheet": "flats"}))
    path.write_bytes(b"no book")
    with pytest.raises(TableError, match="t.xlsx cannot be read as Excel"):
        read_table(settings(path))


def test_a_missing_openpyxl_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(HousingError, match=r"need the package openpyxl. Install it: pip install 'housing\[excel\]'"):
        read_table(settings(tmp_path / "t.xlsx"))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (GERMAN_TEXT, {}, "no ',' in its first line. The file looks separated by ';': set read.delimiter to ';'"),
        ('"a";"n"\n1;2\n', {}, "The file looks separated by ';': set read.delimiter"),
        ("a,n,b,c,y\n", {"delimiter": ";"}, "The file looks separated by ',': set read.delimiter"),
        ("a\tn\n", {}, r"The file looks separated by '\\t': set read.delimiter"),
        (GERMAN_TEXT.encode("utf-16"), GERMAN, "The file looks like UTF-16: set read.encoding to utf-16"),
        (GERMAN_TEXT.encode("utf-16-le"), GERMAN, "a NUL byte. Expected text in UTF-8"),
        (GERMAN_TEXT.encode("cp1252"), GERMAN, "line 2 has other bytes. Set read.encoding, such as cp1252"),
        (GERMAN_TEXT.encode("utf-16")[:-1], {**GERMAN, "encoding": "utf-16"}, "is not a CSV file in utf-16.* Set read.encoding"),
        (GERMAN_TEXT.replace("1,5", "1.5"), GERMAN, "row 0, a: Not a number: '1.5'"),
        (GERMAN_TEXT.replace("1,5", "1.5"), {**GERMAN, "thousands": ""}, "row 0, a: Not a number: '1.5'"),
        (GERMAN_TEXT.replace("1.200", "1.20"), GERMAN, "row 0, n: Not a number: '1.20'"),
        (GERMAN_TEXT.replace("1.200", "1..200"), GERMAN, "row 0, n: Not a number: '1..200'"),
        (GERMAN_TEXT.replace("nein", "vielleicht"), GERMAN, "row 1, b: Not true or false: 'vielleicht'"),
        (GERMAN_TEXT.replace("7;nein", "-;nein"), GERMAN, "n: 1 of 3 values are missing, the first in row 1"),
    ],
)
def test_a_file_that_contradicts_its_options_is_refused(
    tmp_path: Path, content: str | bytes, options: dict[str, object], message: str
) -> None:
    with pytest.raises(TableError, match=message):
        read(tmp_path / "t.csv", content, **options)


@pytest.mark.parametrize(
    ("cell", "options", "number"),
    [
        ("1,234.5", {"thousands": ","}, "1234.5"),
        ("4,25,000", {"thousands": ","}, "425000"),
        ("1 234,5", {"thousands": " ", "decimal": ","}, "1234.5"),
        ("1'234", {"thousands": "'"}, "1234"),
        ("-12,5", {"decimal": ","}, "-12.5"),
        ("1,23", {"thousands": ","}, None),
        ("1234,567", {"thousands": ","}, None),
        ("1,234,5", {"thousands": ",", "decimal": "."}, None),
        ("1.5", {"decimal": ","}, None),
    ],
)
def test_numbers_are_read_only_as_the_options_write_them(cell: str, options: dict[str, str], number: str | None) -> None:
    assert ReadOptions(**options).number(cell) == number  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimeter": ";"}, "read: unknown option 'delimeter'. Did you mean 'delimiter'"),
        ({"delimiter": ";;"}, "delimiter must be a single character .got ';;'"),
        ({"decimal": ";"}, "decimal must be"),
        ({"thousands": ".", "decimal": "."}, "thousands must be a sign"),
        ({"encoding": "latin-99"}, "encoding must be a codec of Python, such as utf-8, cp1252 or utf-16 .got 'latin-99'"),
        ({"na_values": "NA"}, r"na_values must be a list, such as \['n/a'\] .got 'NA'"),
        ({"na_values": [-999]}, "na_values must be strings in quotes, as they are written in the table .got -999"),
        ({"header": "2"}, "header must be first or none"),
        ({"skip_lines": -1}, "skip_lines must be a number of lines"),
        ({"strip": "yes"}, "strip must be true or false"),
        ({"duplicates": "keep"}, "duplicates must be refuse or number"),
        ({"true_values": ["1"], "false_values": ["1"]}, "true_values and false_values must differ"),
    ],
)
def test_wrong_options_are_refused_with_what_is_expected(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, options)


def test_written_numbers_have_the_decimal_sign_of_the_file_since_they_would_be_misread(tmp_path: Path) -> None:
    columns = {"price": {"type": "float", "parse": "number"}, "y": COLUMNS["y"]}  # "1.200 EUR" would be 1.2
    declared = {"name": "t", "path": str(tmp_path / "t.csv"), "columns": columns, "read": {"decimal": ","}}
    with pytest.raises(ConfigError, match=r"contradicts read.decimal ','. Set parse to decimal_comma"):
        TableSettings.from_config(OmegaConf.create(declared))


@pytest.mark.parametrize("new_file", ["new.csv", "new.parquet"])
def test_rows_of_any_format_are_appended_as_the_table_writes_them(tmp_path: Path, new_file: str) -> None:
    table = settings(tmp_path / "t.csv", {**GERMAN, "encoding": "cp1252"})
    table.path.write_bytes(GERMAN_TEXT.encode("cp1252"))
    (tmp_path / "new.csv").write_bytes("c;y;a;n;b\nKöln;40;2,5;8;True\n".encode("cp1252"))
    frame = pd.DataFrame({"c": ["Köln"], "y": [40.0], "a": [2.5], "n": [8], "b": [True]})
    frame.to_parquet(tmp_path / "new.parquet")
    assert ingest(IngestionSettings(table, tmp_path / new_file, Path()), lambda _: ()).added == 1
    added = table.path.read_bytes().decode("cp1252").removeprefix(GERMAN_TEXT)
    assert added in ("2,5;8;True;Köln;40\n", "2,5;8;True;Köln;40,0\n")
    assert len(read_table(table)) == 4


def test_true_values_of_the_servers_feedback_are_appended_as_the_table_writes_them(tmp_path: Path) -> None:
    table = settings(tmp_path / "t.csv", GERMAN)
    table.path.write_text(GERMAN_TEXT, encoding="utf-8")
    row = {"id": "r", "row": 0, "time": 1, "value": 40.5, "columns": {"a": 0.5, "n": 8, "b": False, "c": "7"}}
    assert ingest(IngestionSettings(table, None, Path()), lambda _: [row]).added == 1
    assert table.path.read_text(encoding="utf-8").endswith("\n0,5;8;False;7;40,5\n")


def test_a_source_is_written_as_its_options_say_and_by_the_ending_of_its_path(tmp_path: Path) -> None:
    for path, options in (
        (tmp_path / "s.csv", GERMAN),
        (tmp_path / "s.csv.gz", {"header": "none"}),
        (tmp_path / "s.parquet", {}),
    ):
        source = {"_target_": f"{__name__}.source"}
        node = {"name": "orders", "path": str(path), "columns": COLUMNS, "read": options, "source": source}
        table = TableSettings.from_config(OmegaConf.create(node))
        assert "rows 3" in str(fetch_table(table))
        assert_is_the_table(read_table(table))


def source() -> pd.DataFrame:
    """Return the table, as a public source."""
    frame = pd.DataFrame({"a": [1.5, None, -2000.25], "n": [1200, 7, 3], "b": [True, False, True], "c": ["Köln", "x,y", "7"]})
    return frame.assign(y=[10, 20.5, 30])


def test_predictions_keep_the_options_of_their_file_and_take_the_format_of_their_ending(tmp_path: Path, bundle: Bundle) -> None:
    frame, options = rentals_frame(20).drop(columns="rent").assign(note="007"), ReadOptions(delimiter=";", decimal=",")
    frame.to_csv(tmp_path / "new.csv", sep=";", decimal=",", index=False)
    for out in ("out.csv", "out.parquet"):
        assert predict_file(bundle, PredictionSettings(tmp_path / "new.csv", tmp_path / out, read=options)).n_predicted == 20
    as_text = next(read_batches(tmp_path / "out.csv", options))
    typed = pd.read_parquet(tmp_path / "out.parquet")
    assert as_text.rows[0][0] == str(frame.area[0]).replace(".", ",") and as_text.rows[0][-2] == "007"
    assert [float(row[-1].replace(",", ".")) for row in as_text.rows] == typed.rent_predicted.tolist()
    assert typed.area.tolist() == frame.area.tolist() and typed.note.tolist() == frame.note.tolist()
    with pytest.raises(HousingError, match=r"written as CSV or Parquet only"):
        predict_file(bundle, PredictionSettings(tmp_path / "new.csv", tmp_path / "out.xlsx", read=options))


def test_quantiles_are_columns_of_the_predictions(tmp_path: Path, bundle: Bundle) -> None:
    rentals_frame(20).drop(columns="rent").to_csv(tmp_path / "new.csv", index=False)
    predicted = {}
    for out, settings in {"q": ["quantiles=[0.05,0.5,0.95]"], "i": ["coverage=0.9"]}.items():
        cfg = config("predict", "data=rentals", f"file={tmp_path}/new.csv", f"out={tmp_path}/{out}.csv", *settings)
        predict_file(bundle, PredictionSettings.from_config(cfg))
        predicted[out] = pd.read_csv(tmp_path / f"{out}.csv")
    for level, bound in (("0.05", "lower"), ("0.95", "upper")):
        np.testing.assert_allclose(predicted["q"][f"rent_quantile_{level}"], predicted["i"][f"rent_{bound}"], rtol=1e-12)
    assert (predicted["q"]["rent_quantile_0.5"] <= predicted["q"]["rent_quantile_0.95"]).all()
    with pytest.raises(ConfigError, match=r"numbers that ascend \(got \[0.5, 0.1\]\)"):
        predict_file(bundle, PredictionSettings(tmp_path / "new.csv", tmp_path / "out.csv", quantiles=(0.5, 0.1)))


def test_rows_that_do_not_fit_are_skipped_and_listed_beside_the_predictions(tmp_path: Path, bundle: Bundle) -> None:
    good = rentals_frame(3).drop(columns="rent").to_csv(index=False)
    file, out = tmp_path / "new.csv", tmp_path / "out.csv"
    file.write_text(f"{good}wide,2,True,hills,\n50,2,True,moon,\n50,2,True\n50,99,maybe,hills,\n50,2,True,hills,1950\n")
    with pytest.raises(TableError, match="line 7: Expected 5 fields"):
        predict_file(bundle, PredictionSettings(file, out))
    assert not out.exists()
    predicted = predict_file(bundle, PredictionSettings(file, out, skips_bad_rows=True))
    assert (predicted.n_predicted, predicted.n_skipped) == (4, 4)
    skipped = pd.read_csv(tmp_path / "out.skipped.csv")
    assert skipped.line.tolist() == [5, 6, 7, 8] and skipped.row[0] == "wide,2,True,hills,"
    assert [reason.partition(":")[0] for reason in skipped.reason] == [
        "area",
        "quarter",
        "Expected 5 fields as in the header, got 3.",
        "furnished",
    ]
    assert len(pd.read_csv(out)) == 4
    file.write_text("area,rooms,furnished,quarter,built\nwide,2,True,hills,\n")
    with pytest.raises(TableError, match="No row of .*new.csv fits. Line 2: area: Not a number: 'wide'"):
        predict_file(bundle, PredictionSettings(file, out, skips_bad_rows=True))
    file.write_text("rooms,furnished,quarter,built\n2,True,hills,\n")
    with pytest.raises(TableError, match="area: Missing column"):
        predict_file(bundle, PredictionSettings(file, out, skips_bad_rows=True))


def test_all_faults_of_a_yaml_are_named_at_once(tmp_path: Path) -> None:
    declared = {
        "name": "t",
        "path": str(tmp_path / "t.csv"),
        "read": {"delimeter": ";", "encoding": 5, "skip_lines": "two"},
        "columns": {"a": {"type": "flot"}, "b": {"type": "float", "rol": "key"}, "k": {"type": "category"}},
    }
    with pytest.raises(ConfigError) as error:
        TableSettings.from_config(OmegaConf.create(declared))
    for fault in (
        "Column a: type must be one of float",
        "Column b: unknown attribute rol",
        "Column k: a column of type category needs categories",
        "exactly one column with the role target (got 0)",
        "read: unknown option 'delimeter'. Did you mean 'delimiter'?",
        "read: encoding must be a codec of Python",
        "read: skip_lines must be a number of lines (got 'two')",
    ):
        assert fault in str(error.value)
