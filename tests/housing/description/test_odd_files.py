"""Odd files: what each oddity of a real table is read as, or the sentence that says why not."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf

from housing.core.errors import HousingError, TableError
from housing.data.settings import TableSettings
from housing.data.table import read_table
from housing.description.description import DescriptionSettings, describe

ROWS = 24
NOISE = [f"{(7919 * row % 1000) / 1000 - 0.5:.3f}" for row in range(ROWS)]
TARGET = [f"{(104_729 * row % 1009) / 100 + 1:.2f}" for row in range(ROWS)]


@dataclass(frozen=True)
class Described:
    """The declaration of a file, what was printed, and the rows of the table that the declaration reads."""

    declared: Mapping[str, Any]
    out: str
    n_rows: int
    first: Sequence[float]  # of the features, in the first row

    @property
    def read(self) -> Mapping[str, Any]:
        """The read options."""
        options: Mapping[str, Any] = self.declared.get("read", {})
        return options


def describe_file(path: Path, target: str = "y", **read: Any) -> Described:
    """Describe a file, and read it with the unedited declaration."""
    folder = path.parent
    settings = DescriptionSettings(path, target, "t", folder, folder / "t.html", folder / "data", read=read)
    out = describe(settings, lambda name, *overrides: " ".join([f"housing.{name}", *overrides])).text
    declared = yaml.safe_load((folder / "data" / "t.yaml").read_text(encoding="utf-8"))
    table = read_table(TableSettings.from_config(OmegaConf.create({**declared, "path": str(path)})))
    return Described(declared, out, len(table), table.matrix[0].tolist())


def content(cells: Sequence[object], delimiter: str = ",", header: str = "noise,x,y") -> str:
    """Return a table of noise, a column x with the cells in turn, and a target."""
    rows = zip(NOISE, (cells[row % len(cells)] for row in range(ROWS)), TARGET, strict=True)
    return "\n".join([header.replace(",", delimiter), *(delimiter.join(map(str, row)) for row in rows), ""])


TABLE = content(["a", "b"])
NUMBERS = content([3, 1, 2])


@pytest.mark.parametrize(
    ("text", "read", "features"),
    [
        (f"# exported, today\n# by me\n{TABLE}", {"skip_lines": 2}, ["noise", "x"]),
        (f"House prices\n\n{TABLE}", {"skip_lines": 2}, ["noise", "x"]),
        (f"House prices,,\n,,\n{TABLE}", {"skip_lines": 2}, ["noise", "x"]),
        ("sep=;\n" + content(["a", "b"], ";"), {"delimiter": ";", "skip_lines": 1}, ["noise", "x"]),
        (f"#{TABLE}", {}, ["#noise", "x"]),
        (f"\n\n{TABLE}\n\n", {}, ["noise", "x"]),
        (f"{TABLE}Total,,123456\n", {"skip_rows": ["Total"]}, ["noise", "x"]),
        (f"{NUMBERS}Grand total,48,99\n", {"skip_rows": ["Grand total"]}, ["noise", "x"]),
        (f"{TABLE}\nSource: the office\n", {"skip_rows": ["Source: the office"]}, ["noise", "x"]),
        (NUMBERS.replace("\n", "\nm,kg,EUR\n", 1), {"skip_rows": ["m"]}, ["noise", "x"]),
        (TABLE.replace("\n", "\nnoise,x,y\n", 1) + "noise,x,y\n", {"skip_rows": ["noise"]}, ["noise", "x"]),
        (f"Inputs,,Output\n{TABLE}", {"skip_lines": 1}, ["noise", "x"]),
        (f"House prices,,\nInputs,,Output\n{TABLE}", {"skip_lines": 2}, ["noise", "x"]),
        (content(["b", "c"], header=",x,y"), {}, ["", "x"]),
        (TABLE.replace("noise,x,y", " noise , x ,y "), {"strip": True}, ["noise", "x"]),
        (TABLE.replace(",", ", "), {"strip": True}, ["noise", "x"]),
        (content(['"a"', '"b"'], ", ", 'noise,"x","y"'), {"strip": True}, ["noise", "x"]),
        (content([" 5", "7 ", "\u00a0"]), {"strip": True}, ["noise", "x"]),
        (content(["1,2", "3,4"], header="noise,x,x,y"), {"duplicates": "number"}, ["noise", "x", "x_2"]),
        (content(["1,2,9", "3,4,8"], header="noise,,,x,y"), {"duplicates": "number"}, ["noise", "column_2", "column_3", "x"]),
        (content([5, 7], header="noise,2019,y"), {}, ["noise", "2019"]),
        (content([5, 7], header="noise,on,y"), {}, ["noise", "on"]),
        (content(["a", "b"], "^"), {"delimiter": "^"}, ["noise", "x"]),
        (content(["a", "b"], " "), {"delimiter": " "}, ["noise", "x"]),
    ],
)
def test_what_stands_around_rows_is_found(tmp_path: Path, text: str, read: dict[str, Any], features: list[str]) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    found = describe_file(tmp_path / "t.csv")
    assert found.read == read
    assert [name for name, column in found.declared["columns"].items() if column.get("role") != "target"] == features
    assert found.n_rows == ROWS


@pytest.mark.parametrize(
    ("cells", "declared", "first"),
    [
        (["TRUE", "FALSE"], {"type": "bool"}, 1),
        (['"1,200 €"', '"900 €"'], {"type": "int", "parse": "number"}, 1200),
        (["-$5", "$7", "$12"], {"type": "int", "parse": "number"}, -5),
        (['"($1,200)"', "$900"], {"type": "int", "parse": "number"}, -1200),
        (["(12)", "900"], {"type": "int", "parse": "number"}, -12),
        (["5-", "7"], {"type": "int", "parse": "number"}, -5),
        (["\u22125", "7"], {"type": "int", "parse": "number"}, -5),
        (["1'200 CHF", "900 CHF"], {"type": "int", "parse": "number"}, 1200),
        (["EUR 5", "EUR 7"], {"type": "int", "parse": "number"}, 5),
        (["1e3", "2.5E-3"], {"type": "float"}, 1000),
        (["none", "None", 1, 2], {"type": "int", "nullable": True}, None),
        (["n.a.", 1.5, 2], {"type": "float", "nullable": True}, None),
        (["#DIV/0!", 1, 2], {"type": "int", "nullable": True}, None),
        (["2024-01-07T10:00:00Z", "2024-01-08T10:00:00+02:00"], {"type": "date", "format": "%Y-%m-%dT%H:%M:%S%z"}, 1704621600),
        (["2024-01-07 10:00:00", "2024-01-08"], {"type": "date", "format": "%Y-%m-%d %H:%M:%S"}, 1704621600),
        (["01/31/2024 02:30 PM", "02/01/2024 01:00 AM"], {"type": "date", "format": "%m/%d/%Y %I:%M %p"}, 1706711400),
        (["31-Jan-24", "01-Feb-24"], {"type": "date", "format": "%d-%b-%y"}, 1706659200),
        (["2024-01", "2024-02"], {"type": "date", "format": "%Y-%m"}, 1704067200),
        (["Jan 2024", "Feb 2024"], {"type": "date", "format": "%b %Y"}, 1704067200),
        (["01/2024", "02/2024"], {"type": "date", "format": "%m/%Y"}, 1704067200),
        ([20240131, 20240201], {"type": "date", "format": "%Y%m%d"}, 1706659200),
    ],
)
def test_a_cell_has_the_value_that_people_read(
    tmp_path: Path, cells: list[object], declared: object, first: float | None
) -> None:
    (tmp_path / "t.csv").write_text(content(cells), encoding="utf-8")
    found = describe_file(tmp_path / "t.csv")
    assert found.declared["columns"]["x"] == declared
    assert found.first[1] == first or first is None


@pytest.mark.parametrize(
    ("cells", "read", "first"),
    [
        (["1.200,50 €", "900,00 €"], {"decimal": ",", "thousands": "."}, 1200.5),
        (["12,5 %", "3 %"], {"decimal": ","}, 12.5),
        (["1\u00a0200", "2\u00a0500"], {"decimal": ",", "thousands": "\u00a0"}, 1200),
    ],
)
def test_numbers_of_german_and_french_tables_are_read(
    tmp_path: Path, cells: list[str], read: dict[str, str], first: float
) -> None:
    lines = content(cells, ";").splitlines()
    swapped = [
        lines[0],
        *(";".join([a.replace(".", ","), x, y.replace(".", ",")]) for a, x, y in (row.split(";") for row in lines[1:])),
    ]
    (tmp_path / "t.csv").write_text("\n".join(swapped), encoding="utf-8")
    found = describe_file(tmp_path / "t.csv")
    assert found.read == {"delimiter": ";", **read}
    assert found.first == [-0.5, first]


def test_a_target_with_a_currency_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f'{row % 7},"${1000 + row:,}"\n' for row in range(ROWS)), encoding="utf-8")
    found = describe_file(tmp_path / "t.csv")
    assert found.declared["columns"]["y"] == {"type": "int", "parse": "number", "role": "target"}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (content(['"1,5"', "2.5", "3.5"]), "'x' mixes numbers with other cells, such as '1,5'. It is read as a category"),
        (content(["2024-01-07", "3/4/2024", "Jan 5 2024"]), "'x' has dates in several formats, or among other texts"),
        (content(["0000-00-00", "2024-05-06"]), "'x' has dates in several formats, or among other texts"),
        (content([f"{row} {'km' if row % 2 else 'mi'}" for row in range(12)]), "'x' has numbers with several units: 'km', 'mi'"),
        (content(["Yes", "yes ", "maybe"]), "'x' has levels that differ only in case or spaces: 'Yes' and 'yes'"),
        (content([f"{'$' if row % 2 else '€'}{row}.50" for row in range(24)]), "'x' has numbers with several units: '$…', '€…'"),
        (
            content(["03/01/65", "14/02/19"]),
            "'x' has years of two digits, which are read as 1969 to 2068: the latest date is 2065-01-03",
        ),
        (
            content(["9999-12-31", "2024-01-07", "2024-02-07"]),
            "'x' is 9999-12-31 in 8 rows. If it means a missing value, add to read",
        ),
        (content(["2024-Q1", "2024-Q2"]), "'x' has quarters or weeks as text ('2024-Q1', '2024-Q2'). It is read as a category"),
        (content(["caf\u00e9", "cafe\u0301"]), "'x' has levels that differ only in case or spaces: 'caf\u00e9' and 'cafe\u0301'"),
        (content([1, 2], header="noise, y,y"), "The columns are numbered: noise, y, y_2"),
        (content([7, 7, 9], header="noise,shopId,y"), "'shopId' has the name of an identifier, but is read as a number"),
        (TABLE.replace("\n", "\nnoise,x,y\n", 1), "The header stands among the rows again (1 times)"),
        (content([-999, 1, 2, 3]), "'x' is -999 in 6 sampled rows, far from its other values"),
        (
            content([1_700_000_000 + 86_400 * row for row in range(20)]),
            "'x' looks like seconds since 1970 (2023-11-14 to 2023-12-03)",
        ),
        (content([45_000, 45_100], header="noise,sold on,y").replace("sold on", "date"), "looks like days as Excel counts them"),
        (content(["1.200", "2.500", "3.700"], ";"), "If the points separate thousands, add to the command: read.decimal=','"),
        (content([1e308, 5, 7]), "'x' has numbers of more than 3.4e+38, with which models cannot compute"),
        ("a,y\n1,2\n", "Rows with a 'y': 1, too few"),
        (content([1, 2]).replace(",y", ",z").replace("noise", "y"), "Rows with a 'y': 24, too few"),
        ("a,y\n" + "".join(f"{row},5\n" for row in range(0, 99, 3)), "'y' has the same value in each row, 5"),
        ("a,y\n" + "".join(f"{row % 7},{row % 2}\n" for row in range(60)), "'y' has two values only"),
        (
            content(["1,2", "3,4"], header="noise,x,x,y"),
            "The header repeats 'x'. The columns are numbered: noise, x, x_2",
        ),
    ],
)
def test_what_may_be_misread_is_warned_of(tmp_path: Path, text: str, warning: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert warning in describe_file(tmp_path / "t.csv").out


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("t.csv", b"\x1f\x8b\x08", r"t.csv looks like gzip, not like CSV. Rename it to end in .csv.gz"),
        ("t.csv.gz", b"a,y\n1,2\n", r"t.csv.gz cannot be read: Not a gzipped file"),
        ("t.csv", b"PK\x03\x04", "looks like a ZIP archive or an Excel file"),
        ("t.zip", b"PK\x03\x04", r".zip files are not supported"),
        ("t.xls", b"\xd0\xcf\x11\xe0", r".xls files are not supported"),
        ("t.xlsx", b"a,y\n1,2\n", "cannot be read as Excel"),
        ("t.parquet", b"a,y\n1,2\n", "cannot be read as Parquet"),
        ("t.csv", b"<!DOCTYPE html><html>", "looks like HTML, not like CSV. Is it a page of errors"),
        ("t.json", b'[{"a": 1}]', "looks like JSON"),
        (
            "t.csv",
            "東京,大阪\n".encode("shift_jis"),
            "neither UTF-8 nor cp1252. Add its encoding, such as read.encoding=shift_jis",
        ),
        ("t.csv", b"\n \n\n", "has a single column with each of the delimiters"),
        ("t.csv", b"y\n1\n2\n", "If it has another delimiter, add it to the command: read.delimiter=CHARACTER"),
        ("t.csv", b"a,y\n1,2,\n3,4,\n", r"2 of 2 rows do not have 2 cells, as the header .* Does the header lack a name"),
        ("t.csv", b"a,b,y\n1,2\n3,4\n", r"Line 2 has 2. If lines above the header .* read.skip_lines=NUMBER"),
        ("t.csv", b"a,y\n1,\n2,NA\n", "The target 'y' is empty in all 2 rows"),
        ("t.csv", b"a,y\n1,yes\n2,no\n", "The target 'y' must be a number, but 2 of its 2 cells are none, such as 'yes', 'no'"),
        ("t.csv", b"2018,2019\n1,2\n3,4\n", r"target='y' is no column .* If the first row has the names, add read.header=first"),
        ("t.csv", b'a,"${b}",y\n1,2,3\n4,5,6\n', r"text in its config must not contain \$\{ \(got '\$\{b\}'\)"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(HousingError, match=message):
        describe_file(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "utf-16"])
def test_utf_16_is_recognised_without_a_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text(content(["Köln", "Bonn"]), encoding=encoding)
    assert describe_file(tmp_path / "t.csv").read == {"encoding": encoding}


def test_a_guessed_encoding_is_shown_with_a_word_and_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content(["Москва", "Тверь"]), encoding="cp1251")
    assert "The encoding is a guess: cp1252. Is 'Ìîñêâà' read correctly?" in describe_file(tmp_path / "t.csv").out
    (tmp_path / "data" / "t.yaml").unlink()
    found = describe_file(tmp_path / "t.csv", encoding="cp1251")
    assert found.declared["columns"]["x"]["categories"] == ["Москва", "Тверь"]


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_read(tmp_path: Path, newline: str) -> None:
    (tmp_path / "t.csv").write_bytes(content(['"a\nb"', "c"]).replace("\n", newline).encode())
    assert describe_file(tmp_path / "t.csv").n_rows == ROWS


def with_title(book: openpyxl.Workbook) -> None:
    """Write a sheet with a title above the header."""
    sheet = book.active
    for row in (["House prices"], [], *typed_rows()):
        sheet.append(row)


def behind_a_note(book: openpyxl.Workbook) -> None:
    """Write the table to the second sheet."""
    book.active.append(["Read me"])
    sheet = book.create_sheet("Data")
    for row in typed_rows():
        sheet.append(row)


def typed_rows() -> list[list[Any]]:
    """Return a header, and rows of numbers and times of which some are midnight."""
    times = [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=6 * row) for row in range(ROWS)]
    return [["noise", "when", "y"], *([float(a), when, float(y)] for a, when, y in zip(NOISE, times, TARGET, strict=True))]


@pytest.mark.parametrize(("write", "read"), [(with_title, {"skip_lines": 2}), (behind_a_note, {"sheet": "Data"})])
def test_the_table_of_an_excel_file_is_found(tmp_path: Path, write: Callable[[openpyxl.Workbook], None], read: object) -> None:
    book = openpyxl.Workbook()
    write(book)
    book.save(tmp_path / "t.xlsx")
    found = describe_file(tmp_path / "t.xlsx")
    assert (found.read, found.n_rows) == (read, ROWS)
    assert found.declared["columns"]["when"] == {"type": "date", "format": "%Y-%m-%d %H:%M:%S"}
    assert ("Add read.sheet=NAME to the command" in found.out) == ("sheet" in found.read)


def test_typed_columns_of_parquet_keep_their_meaning(tmp_path: Path) -> None:
    rows = typed_rows()
    frame = pd.DataFrame(rows[1:], columns=rows[0])
    frame["zoned"] = frame.when.dt.tz_localize("Europe/Berlin")
    frame["kind"] = pd.Categorical(["a", "b"] * (ROWS // 2))
    frame["number"] = pd.array([None, 1, 2] * (ROWS // 3), dtype="Int64")
    frame.to_parquet(tmp_path / "t.parquet")
    found = describe_file(tmp_path / "t.parquet")
    types = {name: (column["type"], column.get("nullable", False)) for name, column in found.declared["columns"].items()}
    assert types["when"] == types["zoned"] == ("date", False)
    assert types["kind"] == ("category", False) and types["number"] == ("int", True)


def test_rows_to_skip_are_skipped_where_they_are_and_only_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{NUMBERS}Total,48,99\n", encoding="utf-8")
    declared = describe_file(tmp_path / "t.csv").declared
    (tmp_path / "new.csv").write_text(NUMBERS, encoding="utf-8")
    assert len(read_table(TableSettings.from_config(OmegaConf.create({**declared, "path": str(tmp_path / "new.csv")})))) == ROWS


def test_a_repeated_name_is_refused_unless_the_columns_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,x,y\n1,2,3\n", encoding="utf-8")
    columns = {"x": {"type": "int"}, "x_2": {"type": "int"}, "y": {"type": "int", "role": "target"}}
    declared = {"name": "t", "path": str(tmp_path / "t.csv"), "columns": columns}
    with pytest.raises(TableError, match="Rename one of them, or set read.duplicates to number"):
        read_table(TableSettings.from_config(OmegaConf.create(declared)))
    table = read_table(TableSettings.from_config(OmegaConf.create({**declared, "read": {"duplicates": "number"}})))
    assert table.matrix.tolist() == [[1, 2]]


def test_a_target_with_many_cells_that_are_no_numbers_is_warned_of_before_training_refuses_it(tmp_path: Path) -> None:
    rows = [f"{7919 * row % 1000};{row}{',' if row % 2 else '.'}5" for row in range(150)]
    (tmp_path / "t.csv").write_text("\n".join(["x;y", *rows, ""]), encoding="utf-8")
    with pytest.raises(TableError, match="Not a number: '1,5'"):
        describe_file(tmp_path / "t.csv")
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "75 or more cells are no numbers, such as" in page
