"""The walls of docs/architecture.md: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from housing.config import PROJECT

HEAVY = {"mlflow", "pandas", "sklearn", "xgboost", "hydra", "omegaconf", "dvc"}
FLOOR = {"housing.errors", "housing.files", "housing.schema", "housing.features", "housing.bundle", "housing.store_file"}


def imported(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", sorted((PROJECT / "server").rglob("*.py")), ids=lambda path: path.name)
def test_the_server_stands_on_the_floor_alone(path: Path) -> None:
    names = imported(path)
    modules = {".".join(name.split(".")[:2]) for name in names if name.startswith("housing.")}
    assert modules <= FLOOR
    assert {name.split(".")[0] for name in names} & HEAVY <= ({"mlflow"} if path.name == "puller.py" else set())


def test_mlflow_has_one_room_in_housing() -> None:
    users = [
        path.name for path in (PROJECT / "housing").rglob("*.py") if "mlflow" in {name.split(".")[0] for name in imported(path)}
    ]
    assert users == ["tracking.py"]


@pytest.mark.parametrize("module", ["housing.schema", "housing.features", "housing.bundle"])
def test_the_floor_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.split(".")[0] for name in loaded} & (HEAVY | {"scipy"})
