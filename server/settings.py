"""The server's settings, each from an environment variable, or else as conf/serve.yaml says; it says what they mean too."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import yaml

PREFIX = "HOUSING_"
DEFAULTS = Path(__file__).resolve().parents[1] / "conf" / "serve.yaml"


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
        given = {**_defaults(), **os.environ}
        values = {}
        for item in fields(cls):
            name = PREFIX + item.name.upper()
            if name not in given:
                raise ValueError(
                    f"the environment variable {name} is missing, and conf/serve.yaml makes its value of others;"
                    " python -m housing.serve sets it"
                )
            try:
                read: Any = READERS.get(item.type, item.type)
                values[item.name] = read(given[name])
            except ValueError as error:
                raise ValueError(f"the environment variable {name} is {given[name]!r}: {error}") from error
        return cls(**values)


def _defaults() -> dict[str, str]:
    """Give the variables of the values that conf/serve.yaml says outright; the others are made by Hydra of the table's name."""
    said = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))["serve"]
    return {PREFIX + name.upper(): str(value) for name, value in said.items() if "${" not in str(value)}
