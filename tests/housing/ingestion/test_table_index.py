"""Index of a table: an ingest reads only what is new, and notices each change of the table."""

import json
import shutil
from pathlib import Path

import pytest

from housing.core.errors import TableError
from housing.ingestion.ingestion import IngestionSettings, ingest
from housing.ingestion.table_index import CHUNK
from tests.support.tables import config, orders_frame, rentals_frame

MARK = "typical value of the index"  # printed if and only if an ingest used the index that stands there
FILES = ("index.json", "rows.bin", "keys.bin", "text.npz")


def ingest_rows(home: Path, seed: int, *overrides: str, n_rows: int = 30) -> int:
    """Add rows to the rentals."""
    rentals_frame(n_rows, seed).to_csv(home / "new.csv", index=False)
    cfg = config("ingest", "data=rentals", f"file={home / 'new.csv'}", *overrides)
    return ingest(IngestionSettings.from_config(cfg), lambda _: []).added


def index_of(home: Path) -> Path:
    """Return the directory of the index of the rentals."""
    return home / "data" / ".rentals.csv.index"


def mark(home: Path) -> None:
    """Mark the index, so that the next drift report shows whether it was read."""
    content = json.loads((index_of(home) / "index.json").read_text(encoding="utf-8"))
    content["reference"][0]["typical"] = MARK
    (index_of(home) / "index.json").write_text(json.dumps(content), encoding="utf-8")


def is_used(home: Path, capsys: pytest.CaptureFixture[str], seed: int, *overrides: str) -> bool:
    """Add rows, and return whether the marked index was read instead of the table."""
    mark(home)
    assert ingest_rows(home, seed, *overrides) == 30
    return MARK in " ".join(capsys.readouterr().out.split())


def test_the_index_after_several_ingests_is_that_of_the_whole_table(home: Path) -> None:
    rentals_frame(CHUNK + 100).to_csv(home / "data" / "rentals.csv", index=False)
    for seed in (1, 2):
        assert ingest_rows(home, seed, n_rows=400) == 400
    updated = {name: (index_of(home) / name).read_bytes() for name in FILES}
    assert ingest_rows(home, 1, n_rows=400) == 0
    shutil.rmtree(index_of(home))
    assert ingest_rows(home, 2, n_rows=400) == 0
    read = {name: (index_of(home) / name).read_bytes() for name in FILES}
    assert updated["rows.bin"] == read["rows.bin"] and updated["keys.bin"] == read["keys.bin"]
    before, after = json.loads(updated["index.json"]), json.loads(read["index.json"])
    assert [before[name] for name in ("fingerprint", "n_rows")] == [after[name] for name in ("fingerprint", "n_rows")]
    assert [sum(column["counts"]) for column in before["reference"]] == [CHUNK + 900] * 6


def test_an_ingest_reads_the_index_until_the_table_its_config_or_the_index_changes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest_rows(home, 1)
    assert is_used(home, capsys, 2)
    with (home / "data" / "rentals.csv").open("a", encoding="utf-8") as table:  # edited by hand
        table.write("50.25,2,True,hills,,900\n")
    assert not is_used(home, capsys, 3)
    assert is_used(home, capsys, 4)
    assert not is_used(home, capsys, 5, "data.columns.area.max=1000")
    for name in FILES:
        (index_of(home) / name).write_bytes(b"damaged")
        assert ingest_rows(home, 5) == 0
    assert is_used(home, capsys, 6)


def test_an_index_older_than_the_table_after_a_kill_loses_and_repeats_no_row(home: Path) -> None:
    ingest_rows(home, 1)
    shutil.copytree(index_of(home), home / "older")
    ingest_rows(home, 2)
    shutil.rmtree(index_of(home))
    (home / "older").rename(index_of(home))
    assert ingest_rows(home, 2) == 0
    assert ingest_rows(home, 3) == 30


def test_a_table_that_grew_by_half_is_read_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest_rows(home, 1, n_rows=400) == 400  # of 600
    assert not is_used(home, capsys, 2)


def test_rows_that_would_not_be_read_from_the_table_are_refused(home: Path) -> None:
    before = (home / "data" / "rentals.csv").read_bytes()
    (home / "new.csv").write_text("rooms,area,furnished,quarter,built,rent\n2,50.25,True,hills,,900\n", encoding="utf-8")
    cfg = config("ingest", "data=rentals", f"file={home / 'new.csv'}", "+data.read.skip_rows=['50.25']")
    with pytest.raises(TableError, match="The new rows would be read as other rows"):
        ingest(IngestionSettings.from_config(cfg), lambda _: [])
    assert (home / "data" / "rentals.csv").read_bytes() == before


def test_texts_drift_by_the_projection_in_the_index(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orders_frame().to_csv(home / "data" / "orders.csv", index=False)
    index = home / "data" / ".orders.csv.index"
    levels = {}
    for seed, remark in ((1, None), (2, "Продам холодильник, почти новый")):
        rows = orders_frame(200, seed).dropna(subset="price")
        (rows if remark is None else rows.assign(remark=remark)).to_csv(home / "new.csv", index=False)
        ingest(IngestionSettings.from_config(config("ingest", "data=orders", f"file={home / 'new.csv'}")), lambda _: [])
        levels[seed] = next(line for line in capsys.readouterr().out.splitlines() if "remark" in line)
        assert (index / "text.npz").is_file()
    assert "large" in levels[2] and "large" not in levels[1], levels
