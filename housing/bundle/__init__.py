"""Model bundles: a fitted model as files without code, and the classes that load and run them."""

from housing.bundle.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]  # logged models name this package as their MLflow loader
