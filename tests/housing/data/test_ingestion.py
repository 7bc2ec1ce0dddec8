"""New rows: each is checked, told, added once and whole, and the table is a new version."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from housing.core.errors import ConfigError, DataVersionError, HousingError, TableError
from housing.data import dvc as versions
from housing.data import table as data
from housing.data.download import fetch_table
from housing.data.drift import psi
from housing.data.ingestion import ingest
from server.prediction_log.reader import read_joined_rows
from tests.support.commands import command, dvc, git
from tests.support.tables import FLAT, TABLES, config, rentals_frame
from tests.support.waiting import wait_for

HEADER = "area,rooms,furnished,quarter,built,rent"
BAD = ("wide,2,True,moon,,900", "50,2,True", "", "50,2.5,True,hills,,900", "NaN,1,True,hills,1700,900,1")
REASONS = (
    "line 3: area: 'wide' is not a number; quarter: 'moon' is not a category; allowed: old town, harbour, hills",
    "line 4: has 3 fields; the header has 6",
    "line 5: has 0 fields; the header has 6",
    "line 6: rooms: 2.5 is not a whole number",
    "line 7: has 7 fields; the header has 6",
)


def write(home: Path, *lines: str, header: str = HEADER, name: str = "new.csv") -> Path:
    """Write a file of new rentals, line by line."""
    path = home / name
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


def add(file: Path, *overrides: str) -> int:
    """Add the rows of a file to the rentals."""
    return ingest(config("ingest", "data=rentals", f"file={file}", *overrides), read_joined_rows)


def table(home: Path) -> Path:
    """Where the rentals lie."""
    return home / "data" / "rentals.csv"


def test_one_row_that_does_not_fit_keeps_all_out_and_each_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = table(home).read_bytes()
    with pytest.raises(TableError, match="5 rows of .*new.csv do not fit, so nothing is added"):
        add(write(home, "50.25,2,True,hills,,900", *BAD))
    said = capsys.readouterr().out
    for reason in REASONS:
        assert f"new.csv, {reason}\n" in said
    assert table(home).read_bytes() == before
    assert [path.name for path in table(home).parent.glob("*quarantine*")] == []


def test_quarantine_keeps_bad_rows_apart_and_adds_the_others_once(home: Path) -> None:
    file = write(home, "50.25,2,True,hills,,900", *BAD)
    assert add(file, "quarantine=true") == 1
    assert add(file, "quarantine=true") == 0
    apart = pd.read_csv(home / "data" / "rentals.quarantine.csv", dtype="str", keep_default_na=False)
    assert [f"line {line}: {reason}" for line, reason in zip(apart.line, apart.reason, strict=True)] == list(REASONS)
    assert list(apart.row) == list(BAD)
    assert set(apart.file) == {str(file)}
    assert table(home).read_text(encoding="utf-8").endswith("\n50.25,2,True,hills,,900\n")


def test_columns_may_be_in_any_order_and_the_table_keeps_its_own(home: Path) -> None:
    before = rentals_frame()
    content = table(home).read_bytes().rstrip(b"\n")  # as an editor may leave it
    table(home).write_bytes(content)
    add(write(home, '900,1950,"old town",0,1,1.5e2', "901,,harbour,true,2, 20.5", header=",".join(reversed(HEADER.split(",")))))
    assert table(home).read_bytes().startswith(content + b"\n")
    after = data.load(config("train", "data=rentals").data)
    assert len(after) == len(before) + 2
    np.testing.assert_array_equal(after.matrix[-2:], [[150, 1, 0, 0, 1950], [20.5, 2, 1, 1, np.nan]])
    np.testing.assert_array_equal(after.target[-2:], [900, 901])


def test_a_table_and_a_file_as_a_spreadsheet_saves_them_are_taken(home: Path) -> None:
    table(home).write_bytes(b"\xef\xbb\xbf" + table(home).read_bytes().replace(b"\n", b"\r\n"))
    assert (
        add(write(home, "90.5,2,True,hills,,900", "\xa050,2,True,hills,,900", header=f"\ufeff{HEADER}"), "quarantine=true") == 1
    )
    assert len(data.load(config("train", "data=rentals").data)) == len(rentals_frame()) + 1


def test_rows_that_are_there_are_told_and_left_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = rentals_frame().iloc[:7]
    other = there.iloc[:2].assign(rent=5.5)  # the same flats for another rent
    pd.concat([there, other, other]).to_csv(home / "new.csv", index=False)
    assert add(home / "new.csv") == 2
    said = capsys.readouterr().out
    assert "11 rows, of which 11 fit table rentals" in said
    assert "9 of them are in the table already, or there twice, and are left out" in said
    assert "2 of them have the key of a present row and differ elsewhere: both rows stay in the table" in said
    before = table(home).read_bytes()
    assert add(table(home)) == 0
    assert table(home).read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"area,rooms,area\n", "furnished: the column is missing(?s:.*)area: the column is there twice"),
        (HEADER.encode() + b",colour\n", "colour: the column is not declared"),
        (b"", "area: the column is missing"),
        (b"\xff\xfe\n", "is not a table of comma-separated values in UTF-8"),
        (HEADER.encode() + b'\n50,"2,True\n', "is not a table of comma-separated values in UTF-8: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_whole(home: Path, content: bytes, message: str) -> None:
    (home / "new.csv").write_bytes(content)
    with pytest.raises(TableError, match=message):
        add(home / "new.csv")
    with pytest.raises(HousingError, match="file=.*nothing.csv is not there"):
        add(home / "nothing.csv")


def test_what_differs_is_told_by_column_and_what_chance_does_is_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = rentals_frame(120, seed=9)
    new.assign(area=new.area + 200, quarter="hills").to_csv(home / "new.csv", index=False)
    assert add(home / "new.csv") == 120
    said = capsys.readouterr().out
    assert "how 120 new rows differ from the 600 present ones" in said
    assert "- area is very different: median 2" in said and "120 rows are out of the present range" in said
    assert "- quarter is very different: hills 100%, it was harbour" in said
    assert said.count("as before") == 4
    rentals_frame(12, seed=10).to_csv(home / "few.csv", index=False)
    add(home / "few.csv")
    assert " different" not in capsys.readouterr().out


def test_the_index_is_the_published_one_but_for_half_a_row_in_each_bin() -> None:
    before, now = np.array([500_000.0, 300_000.0, 200_000.0]), np.array([200_000.0, 300_000.0, 500_000.0])
    assert psi(before, now) == pytest.approx(0.6 * np.log(0.5 / 0.2), rel=1e-4)
    assert psi(before, before / 10) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(psi(before, np.array([10.0, 0.0, 0.0])))


def joined(home: Path, *lines: str, name: str = "joined-20261124T100000.000000Z.jsonl") -> None:
    """Write what the server's joiner writes."""
    folder = home / "serving" / "rentals-staging.log"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(lines), encoding="utf-8")


def told(request: str, row: int, value: float, time: float, **columns: object) -> str:
    """One joined row."""
    asked = {**FLAT, **columns}
    known = {"id": request, "row": row, "value": value, "time": time, "prediction": 1.0, "version": "1", "columns": asked}
    return json.dumps(known) + "\n"


def test_feedback_becomes_rows_of_the_table_once_and_the_last_word_counts(home: Path) -> None:
    lines = [
        told("a", 0, 900.5, 2.0),
        told("a", 0, 800, 1.0),
        told("b", 1, 700, 3.0, built=None, area=33.1),
        told("c", 0, 5, 4.0),
    ]
    joined(home, *lines[:2])
    joined(home, lines[2], lines[2], lines[3][:-1], name="joined-20261125T100000.000000Z.jsonl")  # the last is being written
    asked = config("ingest", "data=rentals", "source=feedback")
    assert ingest(asked, read_joined_rows) == 2
    assert ingest(asked, read_joined_rows) == 0
    table_ = data.load(config("train", "data=rentals").data)
    np.testing.assert_array_equal(table_.matrix[-2:], [[50.5, 2, 1, 2, 1950], [33.1, 2, 1, 2, np.nan]])
    np.testing.assert_array_equal(table_.target[-2:], [900.5, 700])


def test_feedback_goes_through_the_same_check(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("data=rentals", "source=feedback")
    with pytest.raises(HousingError, match="rentals-staging.log has no joined rows"):
        ingest(config("ingest", *asked), read_joined_rows)
    joined(home, told("a", 0, 900, 1.0), told("b", 0, -5, 2.0))
    with pytest.raises(TableError, match="1 rows of .* do not fit"):
        ingest(config("ingest", *asked), read_joined_rows)
    assert "rentals-staging.log, line 2: rent: -5.0 is below 0" in capsys.readouterr().out
    joined(home, told("a", 0, 900, 1.0, colour="red"))
    with pytest.raises(TableError, match="do not have the columns of table rentals: colour"):
        ingest(config("ingest", *asked), read_joined_rows)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("overrides", [[], ["source=feedback", "file=new.csv"], ["source=there", "file=new.csv"]])
def test_rows_come_from_one_place(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="source.*allowed: "):
        ingest(config("ingest", "data=rentals", *overrides), read_joined_rows)


def started(home: Path, file: Path) -> "subprocess.Popen[bytes]":
    """Begin to add the rows of a file, in a process of its own."""
    arguments = [f"--config-dir={TABLES}", "data=rentals", f"file={file}"]
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-m", "housing.ingest", *arguments], env=environ, stdout=subprocess.DEVNULL)


@pytest.mark.long
def test_a_kill_leaves_the_table_whole_and_the_same_command_goes_on(home: Path) -> None:
    before = table(home).read_bytes()
    rentals_frame(30_000, seed=1).to_csv(home / "new.csv", index=False)
    process = started(home, home / "new.csv")
    wait_for(lambda: any(table(home).parent.glob(".rentals.csv-*")), "the new table is being written")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert table(home).read_bytes() == before
    assert add(home / "new.csv") > 29_000
    assert not list(table(home).parent.glob(".rentals.csv-*"))


@pytest.mark.long
def test_two_at_once_both_add_their_rows(home: Path) -> None:
    files = [home / "one.csv", home / "two.csv"]
    for seed, file in enumerate(files, start=1):
        rentals_frame(50, seed=seed).to_csv(file, index=False)
    processes = [started(home, file) for file in files]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(data.load(config("train", "data=rentals").data)) == 700


def test_who_waits_too_long_is_told(home: Path) -> None:
    with FileLock(home / "data" / ".rentals.csv.lock"), pytest.raises(HousingError, match="another process has been adding rows"):
        add(write(home, "50.25,2,True,hills,,900"), "lock_timeout=0.1")


def test_a_table_under_dvc_becomes_a_version_and_the_one_before_can_be_had_again(versioned: Path) -> None:
    before = table(versioned).read_bytes()
    file = write(versioned, "50.25,2,True,hills,,900")
    shutil.rmtree(versioned / ".dvc" / "cache")  # as where the table came from its public source
    ended = command(versioned, "housing.ingest", f"--config-dir={TABLES}", "data=rentals", f"file={file}", cwd=versioned)
    assert ended.code == 0, ended.err
    assert f"  git add {versioned / 'data' / 'rentals.csv.dvc'}\n  git commit" in ended.out
    assert git(versioned, "status", "--porcelain") == " M data/rentals.csv.dvc\n"
    after = versions.tracked_version(table(versioned))
    assert after is not None and after.matches(table(versioned))
    dvc(versioned, "push", "--quiet")
    git(versioned, "checkout", "--quiet", "data/rentals.csv.dvc")
    assert "pulled by DVC" in fetch_table(config("fetch", "data=rentals").data)
    assert table(versioned).read_bytes() == before


def test_a_killed_ingest_is_saved_by_the_next_but_no_other_change_is(versioned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(versioned, "50.25,2,True,hills,,900")
    with table(versioned).open("a", encoding="utf-8") as rows:
        rows.write("50.25,2,True,hills,,900\n")  # added, and killed before DVC was asked
    assert add(file) == 0
    assert "DVC has the new version" in capsys.readouterr().out
    version = versions.tracked_version(table(versioned))
    assert version is not None and version.matches(table(versioned))
    rentals_frame(100).to_csv(table(versioned), index=False)
    with pytest.raises(DataVersionError, match=r"rentals.csv is not the version that rentals.csv.dvc names"):
        add(file)
