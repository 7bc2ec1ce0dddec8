"""Location of the bundle in an MLflow model."""

from pathlib import Path

import yaml

from housing.core.errors import BundleError

MLMODEL = "MLmodel"  # MLflow's own description of a model


def bundle_directory(model_directory: Path) -> Path:
    """Return the directory of the bundle inside an MLflow model.

    Raises
    ------
    BundleError
        If the model has none, or names a directory outside of itself.
    """
    try:
        flavor = yaml.safe_load((model_directory / MLMODEL).read_text(encoding="utf-8"))["flavors"]["python_function"]
        bundle = (model_directory / flavor["data"]).resolve()
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BundleError(f"The MLflow model has no bundle: {type(error).__name__}: {error}") from error
    if not bundle.is_relative_to(model_directory.resolve()):
        raise BundleError(f"The MLflow model names a bundle outside of itself: {flavor['data']}")
    return bundle
