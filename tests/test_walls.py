"""The walls of docs/architecture.md: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from housing.core.environment import PROJECT

HEAVY = {"mlflow", "pandas", "sklearn", "xgboost", "hydra", "omegaconf", "dvc"}
FLOOR = {
    *(
        "housing.allowed",
        "housing.errors",
        "housing.files",
        "housing.schema",
        "housing.features",
        "housing.ensemble",
        "housing.interval",
    ),
    *("housing.graph", "housing.onnx_reader", "housing.trees", "housing.bundle.tree_walker"),
    *("housing.bundle", "housing.store_file"),
}


def imported(path: Path) -> set[str]:
    """All modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def floor_files() -> list[Path]:
    """The files of the floor that are Python."""
    places = [PROJECT / "housing" / name.removeprefix("housing.") for name in sorted(FLOOR - {"housing.bundle.tree_walker"})]
    return [file for place in places for file in (sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")])]


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


@pytest.mark.parametrize("path", floor_files(), ids=lambda path: path.name)
def test_the_floor_stands_on_itself(path: Path) -> None:
    names = imported(path)
    assert {".".join(name.split(".")[:2]) for name in names if name.startswith("housing.")} <= FLOOR
    assert not {name.split(".")[0] for name in names} & (HEAVY | {"server"})


@pytest.mark.parametrize(
    "module", ["housing.schema", "housing.features", "housing.ensemble", "housing.interval", "housing.bundle"]
)
def test_the_floor_imports_nothing_heavy(module: str) -> None:
    assert not loaded(f"import {module}") & (HEAVY | {"scipy", "onnxruntime"})


def test_scipy_is_loaded_only_where_a_block_looks_for_neighbours() -> None:
    code = """
import numpy as np
from housing.features import Features
from housing.schema import Schema
columns = {"a": {"type": "float", "role": "latitude"}, "o": {"type": "float", "role": "longitude"}}
schema = Schema.from_dict({"name": "t", "columns": {**columns, "y": {"type": "float", "role": "target"}}})
def use(**blocks):
    features = Features(schema, {"blocks": blocks, "without": [], "reach": None}, "keep")
    features.fit_transform(np.arange(20.0).reshape(10, 2), np.arange(10.0))
    features.transform(np.ones((1, 2)))
use(rotation={"degrees": [15]}, distance={"points": {"p": "1 2"}, "lines": {"l": "1 2, 3 4"}}, ratio={"columns": {"r": {"a": 1}}})
"""
    cells = "use(cells={'counts': [2], 'folds': 2, 'prior_rows': 1, 'seed': 0})"
    assert "scipy" not in loaded(code)
    assert "scipy" in loaded(code + cells)
    assert not loaded(code + cells) & HEAVY


def loaded(code: str) -> set[str]:
    """The packages that a program has loaded at its end."""
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in run.stdout.split()}
