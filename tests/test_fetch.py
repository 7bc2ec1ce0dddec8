"""Getting a table: once, whole, checked, and honest about what could not be had."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import NO_NETWORK, TABLES, command, config
from housing.errors import HousingError, TableError
from housing.fetch import fetch


def test_synthetic_rows_are_the_same_for_a_seed_and_fit_the_schema_of_california(home: Path) -> None:
    said = [fetch(config("fetch", "data=synthetic", "data.rows=3000", f"data.seed={seed}").data) for seed in (0, 1)]
    first, second = (home / "data" / f"synthetic-3000-{seed}.csv" for seed in (0, 1))
    assert f"rows 3,000\nfingerprint {hashlib.sha256(first.read_bytes()).hexdigest()}" in said[0]
    assert first.read_bytes() != second.read_bytes()
    again = first.read_bytes()
    first.unlink()
    fetch(config("fetch", "data=synthetic", "data.rows=3000").data)
    assert first.read_bytes() == again


def test_synthetic_has_believable_structure(home: Path) -> None:
    fetch(config("fetch", "data=synthetic").data)
    frame = pd.read_csv(home / "data" / "synthetic-20640-0.csv")
    inland = frame.Longitude - (-119 - (frame.Latitude - 36) * 0.8)  # degrees east of a line along the coast
    assert frame.MedInc.corr(frame.MedHouseVal) > 0.5
    assert inland.corr(frame.MedHouseVal) < -0.1
    assert 0.02 < (frame.MedHouseVal == frame.MedHouseVal.max()).mean() < 0.08  # capped, as the census is
    assert 0.2 < frame.duplicated(["Latitude", "Longitude"]).mean() < 0.5


def test_a_table_that_is_there_is_left_alone_and_a_change_is_told(home: Path) -> None:
    cfg = config("fetch", "data=synthetic", "data.rows=50", "data.fingerprint=abc")
    before = sorted((home / "data").iterdir())
    with pytest.raises(HousingError, match="the config pins abc"):
        fetch(cfg.data)
    assert sorted((home / "data").iterdir()) == before  # nothing half-written
    path = home / "data" / "synthetic-50-0.csv"
    path.write_text("mine\n1\n")
    assert "(changed: the public source's is abc)" in fetch(cfg.data)
    assert path.read_text() == "mine\n1\n"


def test_a_source_that_does_not_fit_the_schema_writes_nothing(home: Path) -> None:
    cfg = config("fetch", "data=synthetic", "data.rows=50", "data.columns.HouseAge.max=10")
    before = sorted((home / "data").iterdir())
    with pytest.raises(TableError, match="HouseAge: .* is above 10"):
        fetch(cfg.data)
    assert sorted((home / "data").iterdir()) == before


def test_a_table_without_a_source_says_where_its_file_belongs(home: Path) -> None:
    (home / "data" / "rentals.csv").unlink()
    with pytest.raises(HousingError, match="rentals.csv is not there, and data=rentals names no source"):
        fetch(config("fetch", "data=rentals").data)


def test_the_real_table_is_the_public_one(real_home: Path) -> None:
    again = command(real_home, "housing.fetch")
    assert "rows 20,640" in again.out
    assert "(the public source's)" in again.out
    frame = pd.read_csv(real_home / "data" / "california.csv")
    assert list(frame.columns)[:2] == ["MedInc", "HouseAge"]
    np.testing.assert_allclose(
        frame.iloc[0].to_numpy(), [8.3252, 41, 6.98412698, 1.02380952, 322, 2.55555556, 37.88, -122.23, 4.526]
    )


def test_a_source_out_of_reach_ends_with_a_code_of_its_own_and_nothing_half_written(tmp_path: Path) -> None:
    ended = command(tmp_path, "housing.fetch", cwd=Path("/"), SCIKIT_LEARN_DATA=str(tmp_path / "empty"), **NO_NETWORK)
    assert ended.code == 69
    assert "error: table california cannot be had: URLError" in ended.err
    assert not (tmp_path / "data").exists()


def test_a_table_of_the_users_own_is_found_by_its_config_folder(home: Path) -> None:
    ended = command(home, "housing.fetch", f"--config-dir={TABLES}", "data=rentals", cwd=Path("/"))
    assert ended.code == 0, ended.err
    assert "table rentals" in ended.out
