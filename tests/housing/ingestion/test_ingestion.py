"""Ingestion: validation, quarantine, duplicates, drift, feedback, locks and versions."""

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

from housing.core.errors import ConfigError, DataVersionError, HousingError, TableError
from housing.core.locks import file_lock
from housing.data.download import fetch_table
from housing.data.dvc import tracked_version
from housing.data.settings import TableSettings
from housing.data.table import Table, load
from housing.feedback.log_reader import read_joined_rows
from housing.ingestion.drift import psi
from housing.ingestion.ingestion import IngestionSettings, ingest
from tests.support.commands import command, dvc, git
from tests.support.tables import FLAT, TABLES, config, rentals_frame
from tests.support.waiting import wait_for

HEADER = "area,rooms,furnished,quarter,built,rent"
BAD = ("wide,2,True,moon,,900", "50,2,True", "", "50,2.5,True,hills,,900", "NaN,1,True,hills,1700,900,1")
REASONS = (
    "line 3: area: Not a number: 'wide'. quarter: Must be one of old town, harbour, hills (got 'moon').",
    "line 4: Expected 6 fields as in the header, got 3.",
    "line 6: rooms: Not a whole number: 2.5.",
    "line 7: Expected 6 fields as in the header, got 7.",
)


def write_file(home: Path, *lines: str, header: str = HEADER) -> Path:
    """Write a CSV file of new rentals."""
    path = home / "new.csv"
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


def ingest_rentals(*overrides: str) -> int:
    """Run the ingestion of the rentals in this process."""
    return ingest(IngestionSettings.from_config(config("ingest", "data=rentals", *overrides)), read_joined_rows).added


def ingest_file(file: Path, *overrides: str) -> int:
    """Add the rows of a file to the rentals."""
    return ingest_rentals(f"file={file}", *overrides)


def table_path(home: Path) -> Path:
    """Return the path of the rentals."""
    return home / "data" / "rentals.csv"


def load_rentals() -> Table:
    """Read the rentals."""
    return load(config("train", "data=rentals").data)


def test_a_single_bad_row_keeps_all_rows_out_and_is_printed_with_its_reason(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = table_path(home).read_bytes()
    with pytest.raises(TableError, match="4 rows of .*new.csv do not fit, so no row was added"):
        ingest_file(write_file(home, "50.25,2,True,hills,,900", *BAD))
    output = capsys.readouterr().out
    for reason in REASONS:
        assert f"new.csv, {reason}\n" in output
    assert table_path(home).read_bytes() == before
    assert [path.name for path in table_path(home).parent.glob("*quarantine*")] == []


def test_quarantine_sets_bad_rows_aside_once_and_adds_the_others(home: Path) -> None:
    file = write_file(home, "50.25,2,True,hills,,900", *BAD)
    assert ingest_file(file, "quarantine=true") == 1
    assert ingest_file(file, "quarantine=true") == 0
    quarantined = pd.read_csv(home / "data" / "rentals.quarantine.csv", dtype="str", keep_default_na=False)
    assert [f"line {line}: {reason}" for line, reason in zip(quarantined.line, quarantined.reason, strict=True)] == list(REASONS)
    assert list(quarantined.row) == [row for row in BAD if row]  # a blank line is no row
    assert set(quarantined.file) == {str(file)}
    assert table_path(home).read_text(encoding="utf-8").endswith("\n50.25,2,True,hills,,900\n")


def test_columns_may_be_in_any_order_and_the_table_keeps_its_order(home: Path) -> None:
    before = rentals_frame()
    content = table_path(home).read_bytes().rstrip(b"\n")  # some editors remove the last newline
    table_path(home).write_bytes(content)
    ingest_file(
        write_file(
            home, '900,1950,"old town",0,1,1.5e2', "901,,harbour,true,2, 20.5", header=",".join(reversed(HEADER.split(",")))
        )
    )
    assert table_path(home).read_bytes().startswith(content + b"\n")
    after = load_rentals()
    assert len(after) == len(before) + 2
    np.testing.assert_array_equal(after.matrix[-2:], [[150, 1, 0, 0, 1950], [20.5, 2, 1, 1, np.nan]])
    np.testing.assert_array_equal(after.target[-2:], [900, 901])


def test_byte_order_marks_and_windows_newlines_are_accepted(home: Path) -> None:
    table_path(home).write_bytes(b"\xef\xbb\xbf" + table_path(home).read_bytes().replace(b"\n", b"\r\n"))
    assert (
        ingest_file(
            write_file(home, "90.5,2,True,hills,,900", "\xa050,2,True,hills,,900", header=f"\ufeff{HEADER}"), "quarantine=true"
        )
        == 1
    )
    assert len(load_rentals()) == len(rentals_frame()) + 1


def test_duplicates_are_skipped_and_conflicting_keys_are_reported(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    present = rentals_frame().iloc[:7]
    changed = present.iloc[:2].assign(rent=5.5)  # the same flats for another rent
    pd.concat([present, changed, changed]).to_csv(home / "new.csv", index=False)
    assert ingest_file(home / "new.csv") == 2
    output = capsys.readouterr().out
    assert "11 rows, 11 fit table rentals" in output
    assert "9 duplicates skipped" in output
    assert "2 new rows have the key of a present row but other values" in output
    before = table_path(home).read_bytes()
    assert ingest_file(table_path(home)) == 0
    assert table_path(home).read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"area,rooms,area\n", "the header has column 'area' more than once"),
        (b"area,rooms\n", "furnished: Missing column"),
        (HEADER.encode() + b",colour\n", "colour: Undeclared column"),
        (b"", "new.csv is empty"),
        (b"\xff\xfe\n", "is not a CSV file in UTF-8"),
        (HEADER.encode() + b'\n50,"2,True\n', "line 2: a quote is opened in this row and never closed"),
    ],
)
def test_a_file_that_is_no_csv_with_the_columns_of_the_table_is_refused(home: Path, content: bytes, message: str) -> None:
    (home / "new.csv").write_bytes(content)
    with pytest.raises(TableError, match=message):
        ingest_file(home / "new.csv")
    with pytest.raises(HousingError, match="nothing.csv does not exist"):
        ingest_file(home / "nothing.csv")


def test_drift_is_reported_by_column_unless_chance_explains_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = rentals_frame(120, seed=9)
    new.assign(area=new.area + 200, quarter="hills").to_csv(home / "new.csv", index=False)
    assert ingest_file(home / "new.csv") == 120
    output = capsys.readouterr().out
    assert "Drift of 120 new rows against 600 present rows" in output
    assert "- large drift of area: median 2" in output and "120 rows out of the present range" in output
    assert "- large drift of quarter: hills 100% (present rows: harbour" in output
    assert output.count("none") == 4
    rentals_frame(12, seed=10).to_csv(home / "few.csv", index=False)
    ingest_file(home / "few.csv")
    assert " drift of " not in capsys.readouterr().out


def test_psi_is_the_published_formula_and_stays_finite_for_empty_bins() -> None:
    before, after = np.array([500_000.0, 300_000.0, 200_000.0]), np.array([200_000.0, 300_000.0, 500_000.0])
    assert psi(before, after) == pytest.approx(0.6 * np.log(0.5 / 0.2), rel=1e-4)
    assert psi(before, before / 10) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(psi(before, np.array([10.0, 0.0, 0.0])))


def write_joined_rows(home: Path, *lines: str, name: str = "joined-20261124T100000.000000Z.jsonl") -> None:
    """Write a log file of the server's joiner."""
    folder = home / "serving" / "rentals-staging.log"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(lines), encoding="utf-8")


def joined_row(request: str, row: int, value: float, time: float, **columns: object) -> str:
    """Return one line of such a file."""
    joined = {"id": request, "row": row, "value": value, "time": time, "prediction": 1.0, "version": "1"}
    return json.dumps({**joined, "columns": {**FLAT, **columns}}) + "\n"


def test_feedback_is_added_once_with_the_latest_true_value(home: Path) -> None:
    lines = [
        joined_row("a", 0, 900.5, 2.0),
        joined_row("a", 0, 800, 1.0),
        joined_row("b", 1, 700, 3.0, built=None, area=33.1),
        joined_row("c", 0, 5, 4.0),
    ]
    write_joined_rows(home, *lines[:2])
    write_joined_rows(
        home, lines[2], lines[2], lines[3][:-1], name="joined-20261125T100000.000000Z.jsonl"
    )  # the last line is incomplete
    assert ingest_rentals("source=feedback") == 2
    assert ingest_rentals("source=feedback") == 0
    table = load_rentals()
    np.testing.assert_array_equal(table.matrix[-2:], [[50.5, 2, 1, 2, 1950], [33.1, 2, 1, 2, np.nan]])
    np.testing.assert_array_equal(table.target[-2:], [900.5, 700])


def test_feedback_is_validated_like_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(HousingError, match="rentals-staging.log has no joined rows"):
        ingest_rentals("source=feedback")
    write_joined_rows(home, joined_row("a", 0, 900, 1.0), joined_row("b", 0, -5, 2.0))
    with pytest.raises(TableError, match="1 rows of .* do not fit"):
        ingest_rentals("source=feedback")
    assert "rentals-staging.log, line 2: rent: Must be at least 0 (got -5.0)." in capsys.readouterr().out
    write_joined_rows(home, joined_row("a", 0, 900, 1.0, colour="red"))
    with pytest.raises(TableError, match="do not have the columns of table rentals.*colour"):
        ingest_rentals("source=feedback")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "source=file needs a file"),
        (["source=feedback", "file=new.csv"], "source=feedback takes no file .got file=new.csv"),
        (["source=there", "file=new.csv"], "source must be file or feedback .got 'there'"),
    ],
)
def test_source_and_file_must_agree(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ingest_rentals(*overrides)


def start_ingest(home: Path, file: Path) -> "subprocess.Popen[bytes]":
    """Start adding the rows of a file, in a process of its own."""
    arguments = [f"--config-dir={TABLES}", "data=rentals", f"file={file}"]
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-m", "housing.ingest", *arguments], env=environ, stdout=subprocess.DEVNULL)


@pytest.mark.long
def test_a_kill_leaves_the_table_intact_and_the_same_command_completes_it(home: Path) -> None:
    before = table_path(home).read_bytes()
    rentals_frame(30_000, seed=1).to_csv(home / "new.csv", index=False)
    process = start_ingest(home, home / "new.csv")
    wait_for(lambda: any(table_path(home).parent.glob(".rentals.csv-*")), "the new table is being written")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert table_path(home).read_bytes() == before
    assert ingest_file(home / "new.csv") > 29_000
    assert not list(table_path(home).parent.glob(".rentals.csv-*"))


@pytest.mark.long
def test_two_ingests_at_once_both_add_their_rows(home: Path) -> None:
    files = [home / "first.csv", home / "second.csv"]
    for seed, file in enumerate(files, start=1):
        rentals_frame(50, seed=seed).to_csv(file, index=False)
    processes = [start_ingest(home, file) for file in files]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(load_rentals()) == 700


def test_an_ingest_gives_up_when_the_lock_is_held_too_long(home: Path) -> None:
    with (
        file_lock(home / "data" / ".rentals.csv.lock"),
        pytest.raises(HousingError, match="another process has been adding rows"),
    ):
        ingest_file(write_file(home, "50.25,2,True,hills,,900"), "lock_timeout_seconds=0.1")


def test_an_ingest_saves_a_new_version_and_the_previous_one_stays_available(versioned: Path) -> None:
    before = table_path(versioned).read_bytes()
    file = write_file(versioned, "50.25,2,True,hills,,900")
    shutil.rmtree(versioned / ".dvc" / "cache")  # as after a download from the public source
    ingested = command(versioned, "housing.ingest", f"--config-dir={TABLES}", "data=rentals", f"file={file}", cwd=versioned)
    assert ingested.code == 0, ingested.err
    assert f"  git add {versioned / 'data' / 'rentals.csv.dvc'}\n  git commit" in ingested.out
    assert git(versioned, "status", "--porcelain") == " M data/rentals.csv.dvc\n"
    after = tracked_version(table_path(versioned))
    assert after is not None and after.matches(table_path(versioned))
    dvc(versioned, "push", "--quiet")
    git(versioned, "checkout", "--quiet", "data/rentals.csv.dvc")
    assert "pulled by DVC" in fetch_table(TableSettings.from_config(config("fetch", "data=rentals").data)).state
    assert table_path(versioned).read_bytes() == before


def test_rows_of_a_killed_ingest_are_saved_by_the_next_one_but_other_changes_are_refused(
    versioned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_file(versioned, "50.25,2,True,hills,,900")
    with table_path(versioned).open("a", encoding="utf-8") as rows:
        rows.write("50.25,2,True,hills,,900\n")  # appended, and killed before dvc add
    assert ingest_file(file) == 0
    assert "The table is saved in DVC's cache" in capsys.readouterr().out
    version = tracked_version(table_path(versioned))
    assert version is not None and version.matches(table_path(versioned))
    rentals_frame(100).to_csv(table_path(versioned), index=False)
    with pytest.raises(DataVersionError, match=r"rentals.csv differs from the version in rentals.csv.dvc"):
        ingest_file(file)


@pytest.mark.long
def test_rows_are_never_written_into_dvcs_cache_through_a_link(versioned: Path) -> None:
    dvc(versioned, "config", "--local", "cache.type", "symlink")
    dvc(versioned, "checkout", "--quiet", "--relink")
    cached = table_path(versioned).resolve()
    assert cached.is_relative_to(versioned / ".dvc" / "cache")
    before = cached.read_bytes()
    assert ingest_file(write_file(versioned, "50.25,2,True,hills,,900")) == 1
    assert cached.read_bytes() == before
    assert table_path(versioned).read_bytes() == before + b"50.25,2,True,hills,,900\n"
