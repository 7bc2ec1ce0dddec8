"""Former names of modules, which stored configs, files of joblib and projects of one's own may name: they import as before."""

import sys
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

# former name: present name
MOVED_MODULES = {
    "housing.training.callbacks": "housing.fitting.callbacks",
    "housing.training.encoding_choice": "housing.fitting.encoding_choice",
    "housing.training.ensemble_selection": "housing.fitting.ensemble_selection",
    "housing.training.estimators": "housing.fitting.estimators",
    "housing.training.feature_cache": "housing.fitting.feature_cache",
    "housing.training.fitting": "housing.fitting.fitting",
    "housing.training.folds": "housing.scoring.folds",
    "housing.training.holdout": "housing.scoring.holdout",
    "housing.training.intervals": "housing.fitting.intervals",
    "housing.training.member_selection": "housing.fitting.member_selection",
    "housing.training.metrics": "housing.scoring.metrics",
    "housing.training.ranking_metric": "housing.scoring.ranking_metric",
    "housing.training.teacher": "housing.fitting.teacher",
}


def present_name(target: str) -> str:
    """Return the present name of a function or class in a module that moved, or else its name as it is."""
    parts = target.split(".")
    module, members = ".".join(parts[:3]), parts[3:]  # all that moved were in a package of housing
    return ".".join([MOVED_MODULES.get(module, module), *members])


class _Redirection(Loader):
    """Loads the module at its present name under its former name: both are one module, with the same classes."""

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module under the former name."""
        sys.modules[module.__name__] = import_module(MOVED_MODULES[module.__name__])


class _MovedModules:
    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Return how Python loads a module that moved, or None for any other name."""
        return ModuleSpec(fullname, _Redirection()) if fullname in MOVED_MODULES else None


def make_former_names_importable() -> None:
    """Add a finder of moved modules. Python asks it last, so that other imports take no longer."""
    sys.meta_path.append(_MovedModules())
