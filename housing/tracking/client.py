"""TODO docstring."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from housing.tracking.store import Store


class _Patient:
    """MLflow's client, every call of which has the patience of its store."""

    def __init__(self, client: MlflowClient, store: "Store") -> None:
        self._client, self._store = client, store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._store.patiently, getattr(self._client, name))


def _is_away(error: MlflowException) -> bool:
    """Whether MLflow means that a server or a file cannot be reached; it has no error of its own for a server."""
    no_answer = error.error_code == "INTERNAL_ERROR" and "API request to" in str(error)
    return no_answer or error.error_code == "TEMPORARILY_UNAVAILABLE"


def _reason(error: MlflowException) -> str:
    """Give the line of a long message that tells the cause: the database's own, where there is one."""
    lines = str(error).splitlines()
    return next((line for line in lines if "Error)" in line), lines[0])[:200]
