"""Tables that are read in chunks: equal to those in memory, with the same errors, and converted once."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, open_dict

from housing.core.environment import PROJECT
from housing.core.errors import ConfigError, TableError
from housing.data import table as tables
from housing.data.split import split
from housing.streaming.conversion import SUFFIX
from housing.streaming.loading import load
from housing.streaming.streamed_table import StreamedTable
from tests.support.tables import config, goods_frame, orders_frame, rentals_frame
from tests.support.waiting import wait_for

STREAM = ("engine=stream", "engine.chunk_rows=50", "features=none")
FRAMES = {"rentals": rentals_frame, "orders": orders_frame, "goods": goods_frame}


def table_config(name: str, path: Path, *overrides: str) -> DictConfig:
    """Return the config of a training run on a file, without a column of type text."""
    cfg = config("train", *STREAM, f"data={name}", f"data.path={path}", *overrides)
    with open_dict(cfg):
        cfg.data.columns.pop("remark", None)
    return cfg


def write(name: str, path: Path) -> Path:
    """Write one of the tests' tables without its column of type text."""
    frame = FRAMES[name]().drop(columns="remark", errors="ignore")
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep=";" if name == "goods" else ",")
    return path


def streamed(cfg: DictConfig) -> StreamedTable:
    """Read the table of a config in chunks."""
    table = load(cfg)
    assert isinstance(table, StreamedTable)
    return table


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("name", FRAMES)
def test_a_streamed_table_is_the_table_in_memory(tmp_path: Path, name: str, suffix: str) -> None:
    cfg = table_config(name, write(name, tmp_path / f"table{suffix}"))
    table, expected = streamed(cfg), tables.load(cfg.data)
    assert table.schema == expected.schema
    assert table.fingerprint == expected.fingerprint
    assert np.array_equal(table.matrix[:], expected.matrix, equal_nan=True)
    assert np.array_equal(table.target, expected.target)
    for values, others in ((table.weight, expected.weight), (table.times, expected.times)):
        assert (values is None and others is None) or np.array_equal(values, others)  # type: ignore[arg-type]
    assert [key for batch in table.key_batches() for key in batch] == expected.keys.tolist()
    assert split(table, cfg.split).fingerprint() == split(expected, cfg.split).fingerprint()


@pytest.mark.parametrize("name", ["orders", "goods"])
def test_levels_that_are_learned_from_some_rows_are_those_in_memory(tmp_path: Path, name: str) -> None:
    cfg = table_config(name, write(name, tmp_path / "table.csv"))
    rows = np.arange(0, 200, 2)
    table, expected = streamed(cfg).learn(rows), tables.load(cfg.data).learn(rows)
    assert table.schema == expected.schema
    assert np.array_equal(table.matrix[:], expected.matrix, equal_nan=True)
    taken = table.take(rows)
    assert np.array_equal(taken.matrix[:], expected.matrix[rows], equal_nan=True)
    assert np.array_equal(taken.target, expected.target[rows])


def test_the_first_rows_of_a_table_are_those_in_memory(tmp_path: Path) -> None:
    cfg = table_config("orders", write("orders", tmp_path / "table.csv"), "max_rows=120")
    table, expected = streamed(cfg), tables.load(cfg.data, 120)
    assert (table.fingerprint, table.schema) == (expected.fingerprint, expected.schema)
    assert np.array_equal(table.matrix[:], expected.matrix, equal_nan=True)
    assert [key for batch in table.key_batches() for key in batch] == expected.keys.tolist()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("area", {423: "many"}),
        ("area", {50: "many", 599: "few"}),
        ("rooms", {423: 2.5}),
        ("quarter", {423: "moon"}),
        ("quarter", {423: None, 500: None, 510: "moon"}),
        ("area", {423: np.nan}),
        ("rent", {423: -(10.0**15)}),
    ],
    ids=["type", "types", "fraction", "level", "missing", "number", "size"],
)
def test_a_bad_value_in_a_late_chunk_has_the_error_and_the_row_of_a_table_in_memory(
    tmp_path: Path, column: str, values: dict[int, object], suffix: str
) -> None:
    frame, path = rentals_frame(), tmp_path / f"rentals{suffix}"
    changed = frame[column].astype(object)
    for row, value in values.items():
        changed[row] = value
    mixed = any(isinstance(value, str) for value in values.values()) and suffix == ".parquet"
    frame[column] = changed.map(lambda value: None if pd.isna(value) else str(value)) if mixed else changed
    _ = frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    cfg = table_config("rentals", path)
    with pytest.raises(TableError) as expected:
        tables.load(cfg.data)
    with pytest.raises(TableError) as error:
        load(cfg)
    assert str(error.value) == str(expected.value)
    assert "423" in str(error.value) or "599" in str(error.value)
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, path.name + SUFFIX}


def test_a_table_with_too_many_bad_values_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("housing.streaming.loading.MAX_VIOLATIONS", 10)
    rentals_frame().assign(area=-1.0).to_parquet(tmp_path / "rentals.parquet")
    cfg = table_config("rentals", tmp_path / "rentals.parquet", "data.columns.area.min=0")
    with pytest.raises(TableError, match=r"^50 values violate"):
        load(cfg)


def test_an_undeclared_column_is_refused_as_in_memory(tmp_path: Path) -> None:
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"rentals{suffix}"
        frame = rentals_frame().assign(floor=1)
        _ = frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
        with pytest.raises(TableError, match="floor: Undeclared column"):
            load(table_config("rentals", path))


def test_a_file_is_converted_once_and_again_when_it_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("rentals", tmp_path / "rentals.csv")
    load(table_config("rentals", path))
    assert "Converting" in capsys.readouterr().out
    converted = path.with_name(path.name + SUFFIX)
    first = converted.stat().st_mtime_ns
    load(table_config("rentals", path, "engine.chunk_rows=60"))
    assert converted.stat().st_mtime_ns == first and not capsys.readouterr().out
    rentals_frame(seed=1).to_csv(path, index=False)
    assert load(table_config("rentals", path)).target[0] == rentals_frame(seed=1).rent[0]
    assert converted.stat().st_mtime_ns > first
    load(table_config("rentals", path, "data.columns.rooms.type=float"))  # the cells could be parsed in another way
    assert "Converting" in capsys.readouterr().out


def test_a_killed_conversion_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rentals.csv"
    rentals_frame(300_000).to_csv(path, index=False)
    code = (
        "from tests.housing.streaming.test_loading import table_config; from housing.streaming.loading import load;"
        f"from pathlib import Path; load(table_config('rentals', Path({str(path)!r})))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and "Converting" in process.stdout.readline()
        wait_for(lambda: written_bytes(process.pid) > 100_000, "rows are written")
        os.kill(process.pid, signal.SIGKILL)
    assert [file.name for file in tmp_path.iterdir()] == ["rentals.csv"]


def written_bytes(pid: int) -> int:
    """Return the size of the largest deleted or unnamed file that a process has open."""
    sizes = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sizes.append(link.stat().st_size if re.search(r"/#\d+ \(deleted\)$", str(link.readlink())) else 0)
        except OSError:
            continue
    return max(sizes, default=0)


def test_what_needs_all_rows_at_once_is_refused_with_the_alternative(tmp_path: Path) -> None:
    path = write("orders", tmp_path / "orders.csv")
    with pytest.raises(ConfigError, match=r"stream and dask have split=hash, time, random and blocks \(got split_by_group"):
        load(table_config("orders", path, "split=grouped"))
    texts = config("train", *STREAM, "data=orders", f"data.path={path}")
    with pytest.raises(ConfigError, match=r"column remark\). Declare remark: \{role: ignore\}, or use engine=memory"):
        load(texts)
    with pytest.raises(ConfigError, match="engine=memory"):
        _ = streamed(table_config("orders", path)).keys
    with pytest.raises(ConfigError, match="values of column customer"):
        streamed(table_config("orders", path)).identify("customer")
