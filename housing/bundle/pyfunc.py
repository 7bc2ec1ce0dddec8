"""TODO docstring."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from housing.bundle.bundle import Bundle
from housing.schema.column import Vector


class _Pyfunc:
    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def predict(self, frame: Any, _params: Mapping[str, Any] | None = None) -> Vector:
        """Predict each row of a frame. Raises TableError for a frame that does not fit the schema."""
        return self._bundle.predict(self._bundle.schema.encode_frame(frame))


def _load_pyfunc(path: str) -> _Pyfunc:
    """Load for `mlflow.pyfunc`, which looks for this name."""
    return _Pyfunc(Bundle.read(Path(path)))
