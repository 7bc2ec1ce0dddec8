"""Pipelines of scikit-learn with named steps, so that each value of a step is an option of the command line."""

from typing import Any


def pipeline(**steps: Any) -> Any:
    """Return a scikit-learn pipeline of the steps, in their order; the last one is the regressor."""
    from sklearn.pipeline import Pipeline  # pylint: disable=import-outside-toplevel  # takes seconds to import

    return Pipeline(list(steps.items()))
