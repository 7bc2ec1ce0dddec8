"""MLflow's python_function interface of a bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from housing.bundle.bundle import Bundle
from housing.schema.column import Vector


class _Pyfunc:
    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def predict(self, frame: Any, _params: Mapping[str, Any] | None = None) -> Vector:
        """Predict the rows of a DataFrame. Raises TableError if it violates the schema."""
        return self._bundle.predict(self._bundle.schema.encode_frame(frame))


def _load_pyfunc(path: str) -> _Pyfunc:
    """Load a bundle for `mlflow.pyfunc`, which requires this function name."""
    return _Pyfunc(Bundle.read(Path(path)))
