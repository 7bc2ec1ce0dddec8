"""Download of a table: DVC or the public source, atomic writes, fingerprints and error messages."""

import configparser
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing.core.environment import PROJECT
from housing.core.errors import DataVersionError, DownloadError, HousingError, TableError
from housing.data import dvc
from housing.data.download import fetch_table
from housing.data.settings import TableSettings
from tests.support.commands import NO_NETWORK, command
from tests.support.commands import dvc as run_dvc
from tests.support.tables import TABLES, config

SYNTHETIC = ("data=synthetic", "data.rows=50")


def fetch(*overrides: str) -> str:
    """Fetch a table in this process."""
    return str(fetch_table(TableSettings.from_config(config("fetch", *overrides).data)))


def test_a_synthetic_table_depends_on_its_seed_alone(home: Path) -> None:
    outputs = [fetch("data=synthetic", "data.rows=3000", f"data.seed={seed}") for seed in (0, 1)]
    first, second = (home / "data" / f"synthetic-3000-{seed}.csv" for seed in (0, 1))
    assert f"rows 3,000\nfingerprint {hashlib.sha256(first.read_bytes()).hexdigest()}" in outputs[0]
    assert first.read_bytes() != second.read_bytes()
    content = first.read_bytes()
    first.unlink()
    fetch("data=synthetic", "data.rows=3000")
    assert first.read_bytes() == content


def test_a_synthetic_table_has_a_plausible_structure(home: Path) -> None:
    fetch("data=synthetic")
    frame = pd.read_csv(home / "data" / "synthetic-20640-0.csv")
    inland = frame.Longitude - (-119 - (frame.Latitude - 36) * 0.8)  # degrees east of a line along the coast
    assert frame.MedInc.corr(frame.MedHouseVal) > 0.5
    assert inland.corr(frame.MedHouseVal) < -0.1
    assert 0.02 < (frame.MedHouseVal == frame.MedHouseVal.max()).mean() < 0.08  # capped, as in the census
    assert 0.2 < frame.duplicated(["Latitude", "Longitude"]).mean() < 0.5


def test_an_existing_file_is_kept_and_its_changes_are_reported(home: Path) -> None:
    before = sorted((home / "data").iterdir())
    with pytest.raises(HousingError, match="expected abc"):
        fetch(*SYNTHETIC, "data.fingerprint=abc")
    assert sorted((home / "data").iterdir()) == before  # no partial file
    path = home / "data" / "synthetic-50-0.csv"
    path.write_text("mine\n1\n")
    assert "(modified; published: abc)" in fetch(*SYNTHETIC, "data.fingerprint=abc")
    assert path.read_text() == "mine\n1\n"


def test_a_source_that_does_not_fit_the_schema_writes_nothing(home: Path) -> None:
    before = sorted((home / "data").iterdir())
    with pytest.raises(TableError, match="HouseAge: .*10"):
        fetch(*SYNTHETIC, "data.columns.HouseAge.max=10")
    assert sorted((home / "data").iterdir()) == before


def test_a_missing_table_without_a_source_is_an_error_that_names_its_file(home: Path) -> None:
    (home / "data" / "rentals.csv").unlink()
    with pytest.raises(HousingError, match="rentals.csv does not exist, and table rentals has no source"):
        fetch("data=rentals")


def test_the_california_table_is_the_published_one(real_home: Path) -> None:
    fetched = command(real_home, "housing.fetch")
    assert "rows 20,640" in fetched.out
    assert "(as published)" in fetched.out
    frame = pd.read_csv(real_home / "data" / "california.csv")
    assert list(frame.columns)[:2] == ["MedInc", "HouseAge"]
    np.testing.assert_allclose(
        frame.iloc[0].to_numpy(), [8.3252, 41, 6.98412698, 1.02380952, 322, 2.55555556, 37.88, -122.23, 4.526]
    )


def test_an_unavailable_source_exits_with_69_and_writes_nothing(tmp_path: Path) -> None:
    fetched = command(tmp_path, "housing.fetch", cwd=Path("/"), SCIKIT_LEARN_DATA=str(tmp_path / "empty"), **NO_NETWORK)
    assert fetched.code == 69
    assert "error: Could not download table california: URLError" in fetched.err
    assert not (tmp_path / "data").exists()


def test_a_config_folder_may_declare_other_tables(home: Path) -> None:
    fetched = command(home, "housing.fetch", f"--config-dir={TABLES}", "data=rentals", cwd=Path("/"))
    assert fetched.code == 0, fetched.err
    assert "table rentals" in fetched.out


def test_a_table_under_dvc_is_pulled_and_must_be_the_version_in_git(versioned: Path) -> None:
    table = versioned / "data" / "rentals.csv"
    content = table.read_bytes()
    run_dvc(versioned, "push", "--quiet")
    shutil.rmtree(versioned / ".dvc" / "cache")
    table.unlink()
    assert "rentals.csv pulled by DVC\nrows 600" in fetch("data=rentals")
    assert table.read_bytes() == content
    assert "rentals.csv is up to date" in fetch("data=rentals")


def test_the_public_source_replaces_dvc_only_with_the_same_version(versioned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = versioned / "data" / "synthetic-50-0.csv"
    fetch(*SYNTHETIC)
    run_dvc(versioned, "add", "--quiet", "data/synthetic-50-0.csv")
    shutil.rmtree(versioned / ".dvc" / "cache")
    table.unlink()
    assert "downloaded from housing.data.synthetic.generate" in fetch(*SYNTHETIC)
    assert "using the public source: dvc pull synthetic-50-0.csv: failed" in capsys.readouterr().out
    assert "is up to date" in fetch(*SYNTHETIC)
    pointer = dvc.dvc_file(table)
    pointer.write_text(pointer.read_text().replace("md5: ", "md5: 0"))
    table.unlink()
    with pytest.raises(DownloadError, match="another version than synthetic-50-0.csv.dvc"):
        fetch(*SYNTHETIC)
    assert not table.exists()


def test_a_failed_pull_without_a_source_shows_the_error_of_dvc(versioned: Path) -> None:
    shutil.rmtree(versioned / ".dvc" / "cache")
    (versioned / "data" / "rentals.csv").unlink()
    with pytest.raises(DataVersionError, match="dvc pull rentals.csv: failed to pull data from the cloud"):
        fetch("data=rentals")


def test_unsaved_changes_are_never_overwritten(versioned: Path) -> None:
    table = versioned / "data" / "rentals.csv"
    table.write_text("mine\n1\n")
    with pytest.raises(DataVersionError, match=r"(?s)differs from the version in rentals.csv.dvc.*unsaved.*To keep .*: dvc add "):
        fetch("data=rentals")
    assert table.read_text() == "mine\n1\n"


def test_a_damaged_dvc_file_is_refused(versioned: Path) -> None:
    dvc.dvc_file(versioned / "data" / "rentals.csv").write_text("outs: []\n")
    with pytest.raises(DataVersionError, match="rentals.csv.dvc names no version of rentals.csv .*ValueError"):
        fetch("data=rentals")


def test_the_version_in_git_is_the_published_california_table(real_home: Path) -> None:
    version = dvc.tracked_version(PROJECT / "data" / "california.csv")
    assert version is not None and version.matches(real_home / "data" / "california.csv")


def test_dvc_sends_no_analytics_and_its_config_holds_no_key() -> None:
    settings = configparser.ConfigParser()
    settings.read_string((PROJECT / ".dvc" / "config").read_text(encoding="utf-8"))
    assert {settings["core"][name] for name in ("analytics", "check_update")} == {"false"}
    assert not [name for section in settings.sections() for name in settings[section] if "key" in name or "endpoint" in name]
