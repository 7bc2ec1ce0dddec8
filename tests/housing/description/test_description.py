"""Descriptions: what is found in unknown files, what is declared, what is warned of, and that training works unedited."""

import gzip
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf

from housing.core.errors import ConfigError, HousingError, TableError, WriteError
from housing.data.read_options import ReadOptions
from housing.data.settings import TableSettings
from housing.data.table import read_table
from housing.description.declaration import path_value
from housing.description.description import DescriptionSettings, describe
from housing.description.sniffing import sniff
from tests.support.commands import command
from tests.support.tables import remarks

ROWS = 60
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.normal(size=ROWS).round(3)


def settings(file: Path, target: str | None = "y", **changes: Any) -> DescriptionSettings:
    """Return settings that write next to the file."""
    folder = file.parent
    values = {"name": "t", "folder": folder, "page": folder / "t.html", "data_folder": folder / "data", **changes}
    return DescriptionSettings(file, target, **values)


def next_command(name: str, *overrides: str) -> str:
    """Return a command without context."""
    return " ".join(["python -m", f"housing.{name}", *overrides])


def described(tmp_path: Path, columns: Mapping[str, Any], **options: Any) -> tuple[dict[str, Any], str, str]:
    """Describe a table with the columns, a feature of noise and a target. Return the YAML's content, its text and the output."""
    frame = pd.DataFrame({"noise": NOISE, **columns})
    if "y" not in frame:
        frame["y"] = (3 * NOISE + RANDOM.normal(size=ROWS)).round(3)
    frame.to_csv(tmp_path / "t.csv", index=False, **options)
    out = describe(settings(tmp_path / "t.csv", overwrite=True), next_command).text
    text = (tmp_path / "data" / "t.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text), text, out


def repeated(*values: object) -> list[object]:
    """Return cells for all rows."""
    return [values[row % len(values)] for row in range(ROWS)]


def days(form: str) -> list[str]:
    """Return a date for each row."""
    return pd.date_range("2024-01-07", periods=ROWS).strftime(form).tolist()


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("a,b\n1,2\n3,4\n", {}),
        ("a;b\n1;2\n3;4\n", {"delimiter": ";"}),
        ("a\tb\n1\tx,y\n3\tz\n", {"delimiter": "\t"}),
        ("a|b\n1|2\n", {"delimiter": "|"}),
        ("a;b\n1,5;2\n3;4\n", {"delimiter": ";", "decimal": ","}),
        ("a;b\n1.200,5;2\n3.000;4\n", {"delimiter": ";", "decimal": ",", "thousands": "."}),
        ('a,b\n"1,200",2\n"3,500",4\n', {"thousands": ","}),
        ('a,b\n"4,25,000",2\n', {"thousands": ","}),
        ('a,b\n"$1,200.50",2\n', {"thousands": ","}),
        ('a,b\n"1,5",2\n"3,25",4\n', {"decimal": ","}),
        ("a;b\n1'200;2\n", {"delimiter": ";", "thousands": "'"}),
        ('a,b\n"x\ny, z",2\n"u",4\n', {}),
        ("1,2\n3,4\n", {"header": "none"}),
        ("a,2\nb,4\n", {"header": "none"}),
        ("\ufeffa,b\n1,2\n", {}),
    ],
)
def test_delimiter_signs_of_numbers_and_header_are_found(tmp_path: Path, content: str, options: dict[str, str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content, encoding="utf-8")
    sniffed = sniff(path)
    keys = ("delimiter", "decimal", "thousands", "encoding", "header")
    assert {key: getattr(sniffed.options, key) for key in keys} == {key: getattr(ReadOptions(**options), key) for key in keys}  # type: ignore[arg-type]
    assert set(sniffed.evidence) == set(options)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("cp1252", "cp1252"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le")],
)
def test_the_encoding_is_found(tmp_path: Path, encoding: str, expected: str) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(("name,y\n" + "plain,1\n" * 200_000 + "Köln,2\n").encode(encoding)))
    assert sniff(path).options.encoding == expected


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        ([0.5, 1.5], {"type": "float"}),
        ([1, 2], {"type": "int"}),
        (["1.0", "2.0"], {"type": "float"}),
        (["a", "b"], {"type": "category", "categories": ["a", "b"]}),
        (["007", "012"], {"type": "category", "categories": ["007", "012"]}),
        (["Q1", "Q2"], {"type": "category", "categories": ["Q1", "Q2"]}),
        (["no", "6E01", "12:30", "on", 'O\'Neil, "x"'], None),
        (["yes", "no"], {"type": "bool"}),
        (["t", "f"], {"type": "bool"}),
        ([f"level {number}" for number in range(30)], {"type": "category", "categories": "auto"}),
        (["${x}", "b"], {"type": "category", "categories": "auto"}),
        (["a", ""], {"type": "category", "categories": ["a"], "nullable": True}),
        ([1.5, "?"], {"type": "float", "nullable": True}),
        ([1.5, "NA"], {"type": "float", "nullable": True}),
        (["a", "b", "-"], {"type": "category", "categories": ["a", "b"], "nullable": True}),
        ([*range(1, 20), "about 3"], {"type": "int", "nullable": True}),
        (days("%Y-%m-%d"), {"type": "date"}),
        (days("%m/%d/%Y"), {"type": "date", "format": "%m/%d/%Y"}),
        ([*days("%d.%m.%Y")[:-1], ""], {"type": "date", "format": "%d.%m.%Y", "nullable": True}),
        (["45,000 kms", "12 kms", "3 kms"], {"type": "int", "parse": "number"}),
        (["12 %", "12.5 %"], {"type": "float", "parse": "number"}),
        (["$1,200", "$900", "?"], {"type": "int", "parse": "number", "nullable": True}),
        ([*[f"{number} kms" for number in range(1, 20)], "Petrol"], {"type": "int", "parse": "number", "nullable": True}),
    ],
)
def test_a_type_is_declared_that_the_table_is_read_with(
    tmp_path: Path, values: list[object], declared: dict[str, object] | None
) -> None:
    content, _, _ = described(tmp_path, {"x": repeated(*values)})
    table_settings = TableSettings.from_config(OmegaConf.create({**content, "path": str(tmp_path / "t.csv")}))
    if declared is not None:
        assert content["columns"]["x"] == declared
    else:
        assert table_settings.schema.columns[1].categories == tuple(sorted(map(str, values)))
    table = read_table(table_settings)
    assert len(table) == ROWS
    assert np.isnan(table.matrix[:, 1]).any() == bool(content["columns"]["x"].get("nullable"))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (range(ROWS), "identifies a row (counts up)"),
        ([f"flat by lake {row * 7919 % 1000}" for row in range(ROWS)], "identifies a row (each value once)"),
        ([f"{row * 7919 % 1000:04d}" for row in range(ROWS)], "identifies a row (each value once)"),
        ([2**60 + row % 9 for row in range(ROWS)], "identifies a row (longer than an exact number)"),
        (repeated(5), "is constant"),
        (repeated(""), "is empty"),
        (repeated("?"), "is empty"),
        (repeated("12k €", "3k €", "40k €"), "has numbers stored as text"),
        ([f"some text {row % 40} of many words" for row in range(ROWS)], "has too many distinct texts"),
    ],
)
def test_a_column_that_no_model_can_use_is_left_out_with_a_warning(tmp_path: Path, values: Any, reason: str) -> None:
    content, text, out = described(tmp_path, {"x": list(values)})
    assert content["columns"]["x"] == {"role": "ignore"}
    assert f"'x' {reason}" in out and reason in " ".join(text.replace("#", " ").split())


def test_texts_of_several_words_are_proposed_as_texts_and_shown_by_their_length(tmp_path: Path) -> None:
    texts = remarks(ROWS)
    assert len(set(texts)) > ROWS / 2
    content, text, _ = described(tmp_path, {"x": texts, "id": [f"{remark} {row}" for row, remark in enumerate(texts)]})
    assert content["columns"]["x"] == {"type": "text", "nullable": True}
    assert content["columns"]["id"] != content["columns"]["x"]
    assert re.search(r"x: .*# \d+ distinct, \d\.\d words on average; \d+ of \d+ missing", text)
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert re.search(r"median \d+ characters", page)
    table = read_table(TableSettings.from_config(OmegaConf.create({**content, "path": str(tmp_path / "t.csv")})))
    assert np.isfinite(table.learn(range(len(table))).matrix[[bool(remark) for remark in texts]]).all()


@pytest.mark.parametrize(
    ("columns", "ignored"),
    [
        ({"x": lambda y: y}, {"x"}),
        ({"x": lambda y: 2 * y + 7}, {"x"}),
        ({"x": lambda y: np.exp(y / 10)}, {"x"}),
        ({"x": lambda y: (y / 3).round(2), "z": lambda y: y - (y / 3).round(2)}, {"z", "x"}),
        ({"x": lambda y: y + NOISE}, {"x", "noise"}),
    ],
)
def test_columns_that_give_the_target_away_are_left_out(tmp_path: Path, columns: Mapping[str, Any], ignored: set[str]) -> None:
    y = (10 * RANDOM.normal(size=ROWS)).round(3)
    other = RANDOM.normal(size=ROWS)
    content, _, out = described(tmp_path, {"other": other, **{name: make(y) for name, make in columns.items()}, "y": y})
    assert {name for name, column in content["columns"].items() if column.get("role") == "ignore"} >= ignored - {"noise"}
    assert content["columns"]["other"] == {"type": "float"}
    assert out.count("gives the target away") >= len(ignored - {"noise"})


def test_a_noisy_copy_of_the_target_is_kept_with_a_question(tmp_path: Path) -> None:
    y = (10 * RANDOM.normal(size=ROWS)).round(3)
    content, _, out = described(tmp_path, {"x": y + RANDOM.normal(size=ROWS), "y": y})
    assert content["columns"]["x"] == {"type": "float"}
    assert "'x' nearly gives the target away (correlation 0.99" in out


def test_duplicates_and_a_capped_or_skewed_target_are_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = np.minimum(np.exp(random.normal(size=600)), 3.0)
    frame = pd.DataFrame({"a": random.normal(size=600), "y": y.round(4)})
    frame.iloc[10] = frame.iloc[3]
    frame["a"] = np.where(frame.index == 20, frame.a[4], frame.a)
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = describe(settings(tmp_path / "t.csv"), next_command).text
    assert "1 of 600 rows are duplicates of an earlier row" in out
    assert "2 of 600 rows have the features of an earlier row" in out
    assert re.search(r"'y' looks capped: .* % of the rows have the highest value, 3\.", out)
    frame.assign(y=np.exp(2 * random.normal(size=600))).to_csv(tmp_path / "t.csv", index=False)
    out = describe(settings(tmp_path / "t.csv", overwrite=True), next_command).text
    assert "'y' is heavily skewed" in out and "Train with target.transform=auto" in out
    frame.assign(y=np.exp(2 * random.normal(size=600)) - 1).to_csv(tmp_path / "t.csv", index=False)
    out = describe(settings(tmp_path / "t.csv", overwrite=True), next_command).text
    assert "'y' is heavily skewed" in out and "target.transform" not in out


def test_rows_of_another_length_and_without_a_target_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,3\n1,2\n4,5,\n7,8,9\n" + "1.5,2,3\n2.5,4,1\n" * 30, encoding="utf-8")
    out = describe(settings(tmp_path / "t.csv"), next_command).text
    assert "Rows without 3 cells: 1 (line 3 has 2). Training refuses the file" in out
    assert "1 of 63 rows have no 'y', the target" in out


def test_cells_of_a_column_of_numbers_are_missing_there_and_levels_elsewhere(tmp_path: Path) -> None:
    content, _, out = described(tmp_path, {"x": repeated(*range(1, 20), "sale"), "state": repeated("sale", "new")})
    assert content["read"]["column_na_values"] == {"x": ["sale"]}
    assert content["columns"]["state"]["categories"] == ["new", "sale"]
    assert "'x': 3 of 60 values do not parse and are taken as missing: 'sale' 3" in out


def test_coordinates_get_their_roles(tmp_path: Path) -> None:
    content, _, _ = described(tmp_path, {"Latitude": 40 + NOISE, "pickup_lon": -100 + NOISE[::-1]})
    assert [content["columns"][name]["role"] for name in ("Latitude", "pickup_lon")] == ["latitude", "longitude"]


def test_each_guess_stands_beside_its_evidence(tmp_path: Path) -> None:
    columns = {"x": repeated("1,5", "2,5", "3", "n/a"), "b": repeated("ja", "nein")}
    _, text, _ = described(tmp_path, {**columns, "noise": NOISE, "y": NOISE[::-1]}, sep=";", decimal=",", encoding="cp1252")
    assert "delimiter: ';'  # it makes 4 cells in 100% of the first 61 rows" in text
    assert "decimal: ','  # " in text and "true_values: [ja]  # words of the columns of type bool" in text
    assert "x: {type: float, nullable: true}  # 1.5 to 3; 15 of 60 missing, 25 % ('n/a')" in text
    assert "b: {type: bool}  # 'ja' 30, 'nein' 30" in text


def test_without_a_target_the_columns_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"Price (EUR)",kind\n1.5,a\n,b\n', encoding="utf-8")
    out = describe(settings(tmp_path / "t.csv", target=None), next_command).text
    assert re.search(r"""'target="Price \(EUR\)"' +number, 1.5 to 1.5, 1 missing""", out)
    assert "target=kind" in out and "text, such as 'a', 'b'" in out
    assert "add its target= to the command:\n  python -m housing.describe file=" in out
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("content", "changes", "error", "message"),
    [
        ("a,y\n1,2\n", {"target": "price"}, ConfigError, "target='price' is no column of the file. Columns: 'a', 'y'"),
        ("a,y\n1,x\n2,z\n", {}, ConfigError, "The target 'y' must be a number, but 2 of its 2 cells are none, such as 'x', 'z'"),
        ("a,y\n1,2\n1,3\n", {}, ConfigError, "has no column that can be a feature. 'a' is constant."),
        ("a\n1\n", {}, TableError, "has a single column with each of the delimiters"),
        ("", {}, TableError, "is empty. Expected a header"),
        ("a,y\n", {}, TableError, "has no rows"),
        (None, {}, HousingError, "does not exist. Set file= to a CSV, Parquet or Excel file"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, content: str | None, changes: dict[str, Any], error: type[HousingError], message: str
) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message):
        describe(settings(tmp_path / "t.csv", **changes), next_command)


def test_an_existing_declaration_is_never_replaced_unasked(tmp_path: Path) -> None:
    described(tmp_path, {})
    with pytest.raises(ConfigError, match=r"t\.yaml exists. Replace it with overwrite=true, or choose another name: name=NAME"):
        describe(settings(tmp_path / "t.csv"), next_command)


def test_a_file_below_the_data_folder_is_declared_relative_to_it(tmp_path: Path) -> None:
    assert path_value(tmp_path / "data" / "t.csv", tmp_path / "data") == "${paths.data}/t.csv"
    assert path_value(tmp_path / "t.csv", tmp_path / "data") == str(tmp_path / "t.csv")


def test_the_page_shows_each_column_and_escapes_foreign_text(tmp_path: Path) -> None:
    described(tmp_path, {"<script>": repeated("<b>", "c")})
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "&lt;script&gt;" in page and "&lt;b&gt;" in page
    assert "prefers-color-scheme: dark" in page and page.count('class="histogram"') == 2
    assert "python -m housing.train data=t" in page


def test_without_its_page_no_declaration_is_written(tmp_path: Path) -> None:
    frame = pd.DataFrame({"noise": NOISE, "y": NOISE})
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "file").touch()
    for page in (tmp_path / "file" / "t.html", tmp_path):
        with pytest.raises(WriteError, match=f"Could not write {page}: "):
            describe(settings(tmp_path / "t.csv", page=page), next_command)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "t.csv"]


def test_parquet_files_are_described(tmp_path: Path) -> None:
    frame = pd.DataFrame({"noise": NOISE, "kind": repeated("a", "b"), "y": NOISE[::-1]})
    frame.to_parquet(tmp_path / "t.parquet")
    describe(settings(tmp_path / "t.parquet"), next_command)
    content = yaml.safe_load((tmp_path / "data" / "t.yaml").read_text(encoding="utf-8"))
    assert [column["type"] for column in content["columns"].values()] == ["float", "category", "float"]


def test_a_described_file_is_trained_on_without_an_edit(home: Path) -> None:
    frame = pd.DataFrame({"id": range(300), "size (m²)": RANDOM.uniform(20, 200, 300).round(1)})
    frame["state"], frame["garden"] = RANDOM.choice(["new", "old", "?"], 300), RANDOM.choice(["ja", "nein"], 300)
    frame["price"] = (1000 * frame["size (m²)"] + 20_000 * (frame.garden == "ja") + RANDOM.normal(size=300)).round()
    frame.to_csv(home / "my houses.csv", sep=";", decimal=",", index=False, encoding="cp1252")
    (home / "my").mkdir()
    run = command(home, "housing.describe", f"--config-dir={home}/my", f"file='{home}/my houses.csv'", "target=price")
    assert run.code == 0, run.err
    train = run.out.splitlines()[-1].partition("python -m ")[2].split()
    assert train == ["housing.train", f"--config-dir={home}/my", "data=my_houses"]
    trained = command(home, *train, "model=linear", "features=none", "figures=false")
    assert trained.code == 0, trained.err


def test_a_repeated_identifier_is_a_group_and_the_next_command_splits_by_it(tmp_path: Path) -> None:
    content, text, out = described(tmp_path, {"customer_id": [1000 + row % 25 for row in range(ROWS)]})
    assert content["columns"]["customer_id"] == {"type": "int", "role": "group"}
    assert "25 values, 2.4 rows each: split=grouped" in " ".join(text.split())
    assert "next         python -m housing.train data=t split=grouped" in out.splitlines()
    content, _, out = described(
        tmp_path, {"Shop": [f"00{row % 25}" for row in range(ROWS)], "user": [*range(25)] * 2 + [""] * 10}
    )
    assert content["columns"]["Shop"] == {"type": "text", "role": "group"}
    assert content["columns"]["user"] == {"type": "int", "role": "group", "nullable": True}
    assert "next         python -m housing.train data=t split=grouped split.by=Shop" in out.splitlines()


UNIQUE = [row * 7919 % 1000 for row in range(ROWS)]


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("id", range(ROWS), "int"),
        ("orderID", UNIQUE, "int"),
        ("customer_id", [10**17 + number for number in UNIQUE], "int"),
        ("key", [f"{number:05d}" for number in UNIQUE], "text"),
        ("code", [f"AB-{number:03d}" for number in UNIQUE], "text"),
        ("code", [str(uuid.UUID(int=number)) for number in UNIQUE], "text"),
    ],
)
def test_an_identifier_of_each_row_is_the_key(tmp_path: Path, name: str, values: Any, kind: str) -> None:
    content, text, out = described(tmp_path, {name: list(values), "other id": UNIQUE[::-1]})
    assert content["columns"][name] == {"type": kind, "role": "key"}
    assert content["columns"]["other id"] == {"role": "ignore"}
    assert "60 different values: a row keeps its part of the split by it" in " ".join(text.replace("#", "").split())
    assert f"{name!r} identifies" not in out
    table_settings = TableSettings.from_config(OmegaConf.create({**content, "path": str(tmp_path / "t.csv")}))
    assert len(set(read_table(table_settings).keys)) == ROWS


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", [*UNIQUE[:-1], ""]),
        ("id", [*UNIQUE[:-1], UNIQUE[0]]),
        ("id", [number + 0.5 for number in UNIQUE]),
        ("id", days("%Y%m%d")),
        ("key", days("%Y-%m-%d %H:%M")),
        ("Unnamed: 0", range(ROWS)),
        ("index", range(ROWS)),
        ("title", [f"flat by lake {number}" for number in UNIQUE]),
        ("population", UNIQUE),
    ],
)
def test_other_columns_are_no_key(tmp_path: Path, name: str, values: Any) -> None:
    content, _, _ = described(tmp_path, {name: list(values)})
    assert content["columns"][name].get("role") != "key"


def test_no_key_parts_rows_with_the_same_features(tmp_path: Path) -> None:
    content, _, out = described(tmp_path, {"id": range(ROWS), "noise": repeated(*range(30))})
    assert content["columns"]["id"] == {"role": "ignore"}
    assert "the default split=hash keeps them together" in out


def test_one_pair_of_equal_rows_is_no_reason_against_a_key(tmp_path: Path) -> None:
    n_rows = 200
    frame = pd.DataFrame({"id": range(n_rows), "x": [*range(n_rows - 1), 0], "y": RANDOM.normal(size=n_rows)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = describe(settings(tmp_path / "t.csv"), next_command).text
    assert yaml.safe_load((tmp_path / "data" / "t.yaml").read_text(encoding="utf-8"))["columns"]["id"]["role"] == "key"
    assert "the default split=hash does that too, since 'id' is the key" in out


def test_texts_with_many_levels_are_a_category_if_they_repeat(tmp_path: Path) -> None:
    n_levels = 10_500
    frame = pd.DataFrame({"street": [f"street {row % n_levels}" for row in range(2 * n_levels)]})
    frame["note"] = [f"note {row}" for row in range(2 * n_levels)]
    frame["y"] = RANDOM.normal(size=len(frame)).round(3)
    frame.to_csv(tmp_path / "t.csv", index=False)
    describe(settings(tmp_path / "t.csv"), next_command)
    text = (tmp_path / "data" / "t.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["columns"] == {
        "street": {"type": "category", "categories": "auto"}, "note": {"role": "ignore"}, "y": {"type": "float", "role": "target"}
    }  # fmt: skip
    assert "10,500 levels, such as 'street " in text


def test_a_date_of_each_row_proposes_a_split_into_past_and_future_and_stays_a_feature(tmp_path: Path) -> None:
    content, text, out = described(tmp_path, {"sale date": days("%Y-%m-%d"), "customer_id": [row % 25 for row in range(ROWS)]})
    assert content["columns"]["sale date"] == {"type": "date"}
    assert "60 different: if rows are observed then, split=time" in " ".join(text.split())
    assert out.splitlines()[-1].startswith("next         python -m housing.train data=t split=time ")
    assert "sale date" in out.splitlines()[-1]


@pytest.mark.parametrize(
    "columns",
    [
        {"birth_date": days("%Y-%m-%d")},
        {"day": [*days("%Y-%m-%d")[:-1], ""]},
        {"day": repeated("2024-01-01", "2024-01-02")},
        {"street": [f"street {row % 25}" for row in range(ROWS)]},
        {"rooms": [row % 25 for row in range(ROWS)]},
        {"shop": [row % 5 for row in range(ROWS)]},
        {"customer": [row // 2 * 2 if row < 20 else row for row in range(ROWS)]},
    ],
)
def test_other_columns_propose_no_split(tmp_path: Path, columns: dict[str, Any]) -> None:
    content, _, out = described(tmp_path, columns)
    assert out.splitlines()[-1] == "next         python -m housing.train data=t"
    assert "role" not in content["columns"][next(iter(columns))]
