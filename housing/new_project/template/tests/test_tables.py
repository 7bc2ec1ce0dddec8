"""Each table is as its file in conf/data declares it."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
TABLES = [path.stem for path in sorted((PROJECT / "conf" / "data").glob("*.yaml"))]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_as_declared(table: str, tmp_path: Path) -> None:
    """Read and check the table."""
    if not list((PROJECT / "data").glob(f"{table}.*")):
        pytest.skip("the table is not here: dvc pull")
    command = [sys.executable, "-m", "housing.prepare", f"data={table}", f"out={tmp_path}/table.parquet"]
    subprocess.run(command, cwd=PROJECT, check=True)
