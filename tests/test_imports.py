"""The packages that processes load at run time.

import-linter checks which module may import which (setup.cfg). It does not see imports at run time, nor gunicorn.conf.py, whose
name has a dot.
"""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from housing.core.environment import PROJECT
from housing.serving.supervisor import server_environment
from tests.support.tables import config

HEAVY = {"mlflow", "pandas", "sklearn", "xgboost", "hydra", "omegaconf", "dvc"}
SLOW = {"scipy", "onnxruntime"}  # loaded by the models that need them


@pytest.mark.parametrize("package", ["housing.schema.table_schema", "housing.features.pipeline", "housing.bundle.bundle"])
def test_packages_below_the_server_load_no_heavy_library(package: str) -> None:
    assert not loaded(f"import {package}") & (HEAVY | SLOW)


def test_a_worker_loads_no_heavy_library() -> None:
    code = "import server.app, server.transport.gunicorn_worker"
    assert "flask" in loaded(code)
    assert not loaded(code) & (HEAVY | SLOW)


def test_the_settings_of_gunicorn_load_no_heavy_library() -> None:
    code = f"import runpy; runpy.run_path({str(PROJECT / 'server' / 'gunicorn.conf.py')!r})"
    packages = loaded(code, server_environment(config("serve", "data=rentals").serve))
    assert "server" in packages
    assert not packages & (HEAVY | SLOW)


def test_scipy_is_loaded_only_for_blocks_with_neighbours() -> None:
    code = """
import numpy as np
from housing.features.pipeline import Features
from housing.schema.table_schema import Schema
columns = {"a": {"type": "float", "role": "latitude"}, "o": {"type": "float", "role": "longitude"}}
schema = Schema.from_dict({"name": "t", "columns": {**columns, "y": {"type": "float", "role": "target"}}})
def use(**blocks):
    encoding = {"method": "auto", "max_one_hot_levels": 30, "smoothing": 10}
    config = {"blocks": blocks, "exclude_roles": [], "applicability": None, "encoding": encoding}
    features = Features(schema, config, "native")
    features.fit_transform(np.arange(20.0).reshape(10, 2), np.arange(10.0))
    features.transform(np.ones((1, 2)))
use(rotation={"degrees": [15]}, distance={"points": {"p": "1 2"}, "lines": {"l": "1 2, 3 4"}}, ratio={"columns": {"r": {"a": 1}}})
"""
    neighbours = "use(target_encoding={'n_clusters': [2], 'folds': 2, 'smoothing': 1, 'seed': 0})"
    assert "scipy" not in loaded(code)
    assert "scipy" in loaded(code + neighbours)
    assert not loaded(code + neighbours) & HEAVY


def loaded(code: str, environ: Mapping[str, str] | None = None) -> set[str]:
    """Return the packages that a program has loaded at its end."""
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        cwd=PROJECT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in process.stdout.split()}
