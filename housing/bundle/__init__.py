"""A fitted model as files that hold no code, and the classes that run it."""

from housing.bundle.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]  # MLflow calls it: a logged model names this package as its loader
