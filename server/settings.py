"""The server's settings, each from an environment variable; conf/serve.yaml holds their values and what they mean."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

PREFIX = "HOUSING_"


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("allowed: true, false")
    return text.lower() == "true"


READERS: dict[Any, Callable[[str], Any]] = {bool: _flag}  # of types that are not made from their text


@dataclass(frozen=True)
class Settings:  # pylint: disable=too-many-instance-attributes  # one for each setting
    """What a worker and the puller have to know."""

    model: str
    alias: str
    tracking_uri: str
    folder: Path
    poll: float
    keep_columns: bool
    verify_memory: int
    verify_seconds: float
    host: str
    port: int
    workers: int
    threads: int
    max_body: int
    max_rows: int
    keys_file: str
    rate: float
    cors_origins: str
    metrics_port: int
    patience: float
    drain: float
    explain_exact: int
    explain_rows: int
    log_folder: Path
    log_queue: int
    log_max_bytes: int
    log_keep: int
    log_days: int
    feedback_patience: float

    @classmethod
    def from_environment(cls) -> Self:
        """Read all settings. Raises ValueError, which names the variable that is missing or cannot be read."""
        values = {}
        for item in fields(cls):
            name = PREFIX + item.name.upper()
            if name not in os.environ:
                raise ValueError(
                    f"the environment variable {name} is missing; python -m housing.serve sets it from conf/serve.yaml"
                )
            try:
                read: Any = READERS.get(item.type, item.type)
                values[item.name] = read(os.environ[name])
            except ValueError as error:
                raise ValueError(f"the environment variable {name} is {os.environ[name]!r}: {error}") from error
        return cls(**values)
