"""Each table is as its file in conf/data declares it."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def test_tables_are_as_declared(tmp_path: Path) -> None:
    """Read and check the tables that are here; `dvc pull` brings the others."""
    present = {path.name.partition(".")[0] for path in (PROJECT / "data").iterdir() if path.suffix != ".dvc"}
    for table in sorted(present & {path.stem for path in (PROJECT / "conf" / "data").glob("*.yaml")}):
        command = [sys.executable, "-m", "housing.prepare", f"data={table}", f"out={tmp_path}/table.parquet"]
        subprocess.run(command, cwd=PROJECT, check=True)
