"""Experiments on tables: Hydra composes them, MLflow tracks them, the best is promoted and served."""

import gc
import os
from typing import TYPE_CHECKING, Any

from housing.core.moved_modules import make_former_names_importable

if TYPE_CHECKING:
    from housing.api.model import Model
    from housing.api.project import Project

# ONNX Runtime tells its makers what is used, unless this is said before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# New objects until Python looks for circles among them, where its own 700 are few: a fifth of what a command's start takes went
# into looking while MLflow was imported, and a third of a request of 1000 rows, which are lists and make no circle.
gc.set_threshold(50_000)

make_former_names_importable()

__all__ = ["Project", "load"]


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is used: the server and --help must not wait for its libraries."""
    if name == "Project":
        from housing.api.project import Project  # pylint: disable=import-outside-toplevel

        return Project
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(source: str | None = None) -> "Model":
    """Load a model from the store of the present project. See `housing.api.project.Project.load`."""
    # pylint: disable=import-outside-toplevel
    from housing.api.project import Project
    from housing.core.environment import project_home

    return Project(project_home()).load(source)
