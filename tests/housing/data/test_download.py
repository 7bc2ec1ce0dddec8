"""Getting a table: once, whole, checked, and honest about what could not be had."""

import configparser
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing.core.environment import PROJECT
from housing.core.errors import DataVersionError, DownloadError, HousingError, TableError
from housing.data import dvc as versions
from housing.data.download import fetch_table
from tests.support.commands import NO_NETWORK, command, dvc
from tests.support.tables import TABLES, config


def test_synthetic_rows_are_the_same_for_a_seed_and_fit_the_schema_of_california(home: Path) -> None:
    said = [fetch_table(config("fetch", "data=synthetic", "data.rows=3000", f"data.seed={seed}").data) for seed in (0, 1)]
    first, second = (home / "data" / f"synthetic-3000-{seed}.csv" for seed in (0, 1))
    assert f"rows 3,000\nfingerprint {hashlib.sha256(first.read_bytes()).hexdigest()}" in said[0]
    assert first.read_bytes() != second.read_bytes()
    again = first.read_bytes()
    first.unlink()
    fetch_table(config("fetch", "data=synthetic", "data.rows=3000").data)
    assert first.read_bytes() == again


def test_synthetic_has_believable_structure(home: Path) -> None:
    fetch_table(config("fetch", "data=synthetic").data)
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
        fetch_table(cfg.data)
    assert sorted((home / "data").iterdir()) == before  # nothing half-written
    path = home / "data" / "synthetic-50-0.csv"
    path.write_text("mine\n1\n")
    assert "(changed: the public source's is abc)" in fetch_table(cfg.data)
    assert path.read_text() == "mine\n1\n"


def test_a_source_that_does_not_fit_the_schema_writes_nothing(home: Path) -> None:
    cfg = config("fetch", "data=synthetic", "data.rows=50", "data.columns.HouseAge.max=10")
    before = sorted((home / "data").iterdir())
    with pytest.raises(TableError, match="HouseAge: .* is above 10"):
        fetch_table(cfg.data)
    assert sorted((home / "data").iterdir()) == before


def test_a_table_without_a_source_says_where_its_file_belongs(home: Path) -> None:
    (home / "data" / "rentals.csv").unlink()
    with pytest.raises(HousingError, match="rentals.csv is not there, and data=rentals names no source"):
        fetch_table(config("fetch", "data=rentals").data)


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


def test_a_table_under_dvc_is_pulled_and_checked_to_be_the_version_that_git_names(versioned: Path) -> None:
    table = versioned / "data" / "rentals.csv"
    content = table.read_bytes()
    dvc(versioned, "push", "--quiet")
    shutil.rmtree(versioned / ".dvc" / "cache")
    table.unlink()
    assert "rentals.csv pulled by DVC\nrows 600" in fetch_table(config("fetch", "data=rentals").data)
    assert table.read_bytes() == content
    assert "rentals.csv is there already" in fetch_table(config("fetch", "data=rentals").data)


def test_where_dvc_cannot_give_a_table_the_public_source_may(versioned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg, table = config("fetch", "data=synthetic", "data.rows=50").data, versioned / "data" / "synthetic-50-0.csv"
    fetch_table(cfg)
    dvc(versioned, "add", "--quiet", "data/synthetic-50-0.csv")
    shutil.rmtree(versioned / ".dvc" / "cache")
    table.unlink()
    assert "written, from housing.data.synthetic.generate" in fetch_table(cfg)
    assert (
        "not in DVC's cache or remote, so the public source is asked: dvc pull synthetic-50-0.csv: failed"
        in capsys.readouterr().out
    )
    assert "is there already" in fetch_table(cfg)
    place = versions.dvc_file(table)
    place.write_text(place.read_text().replace("md5: ", "md5: 0"))
    table.unlink()
    with pytest.raises(DownloadError, match="the public source has another version than synthetic-50-0.csv.dvc names"):
        fetch_table(cfg)
    assert not table.exists()


def test_a_table_that_no_source_has_says_what_dvc_says(versioned: Path) -> None:
    shutil.rmtree(versioned / ".dvc" / "cache")
    (versioned / "data" / "rentals.csv").unlink()
    with pytest.raises(DataVersionError, match="dvc pull rentals.csv: failed to pull data from the cloud"):
        fetch_table(config("fetch", "data=rentals").data)


def test_a_change_that_is_not_saved_is_never_overwritten(versioned: Path) -> None:
    table = versioned / "data" / "rentals.csv"
    table.write_text("mine\n1\n")
    with pytest.raises(
        DataVersionError, match=r"(?s)is not the version that rentals.csv.dvc names.*unsaved.*To keep .*: dvc add "
    ):
        fetch_table(config("fetch", "data=rentals").data)
    assert table.read_text() == "mine\n1\n"


def test_a_file_that_names_no_version_is_told(versioned: Path) -> None:
    versions.dvc_file(versioned / "data" / "rentals.csv").write_text("outs: []\n")
    with pytest.raises(DataVersionError, match="rentals.csv.dvc names no version of rentals.csv: ValueError"):
        fetch_table(config("fetch", "data=rentals").data)


def test_the_version_in_git_is_the_public_table(real_home: Path) -> None:
    version = versions.tracked_version(PROJECT / "data" / "california.csv")
    assert version is not None and version.matches(real_home / "data" / "california.csv")


def test_dvc_tells_nobody_and_no_key_is_in_git() -> None:
    settings = configparser.ConfigParser()
    settings.read_string((PROJECT / ".dvc" / "config").read_text(encoding="utf-8"))
    assert {settings["core"][name] for name in ("analytics", "check_update")} == {"false"}
    assert not [name for section in settings.sections() for name in settings[section] if "key" in name or "endpoint" in name]
