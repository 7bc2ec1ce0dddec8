"""The server's settings, each from an environment variable, or else as conf/serve.yaml says; it says what they mean too."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import yaml

from housing.core.errors import ConfigError
from housing.core.validators import NON_NEGATIVE, POSITIVE, Validator, integer

ENV_PREFIX = "HOUSING_"


DEFAULTS_FILE = Path(__file__).resolve().parents[2] / "conf" / "serve.yaml"


ORIGIN_PATTERN = re.compile(r"https?://[\w.-]+(:\d+)?|https?://\[[\da-f:]+\](:\d+)?", re.ASCII | re.IGNORECASE)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("true, false")
    return text.lower() == "true"


def _is_origin_list(text: str) -> bool:
    return not text or all(ORIGIN_PATTERN.fullmatch(origin) for origin in text.split(","))


ORIGINS = Validator("origins such as https://a.example, with commas between them and nothing else, or none", _is_origin_list)


# What a setting may be where its type alone does not say it.
VALIDATORS = {
    "poll_seconds": POSITIVE,
    "verify_memory": integer(1),
    "verify_seconds": POSITIVE,
    "port": integer(1, 65535),
    "workers": integer(1, 256),
    "threads": integer(1),
    "max_body": integer(1),
    "max_rows": integer(1),
    "rate_limit": NON_NEGATIVE,
    "cors_origins": ORIGINS,
    "metrics_port": integer(0, 65535),
    "request_timeout": POSITIVE,
    "drain_seconds": NON_NEGATIVE,
    "explain_max_exact_columns": integer(0, 20),
    "explain_samples": integer(1),
    "log_queue": integer(1),
    "log_max_bytes": integer(1),
    "log_backups": integer(0),
    "log_retention_days": integer(0),
    "feedback_timeout": NON_NEGATIVE,
}


PARSERS: dict[Any, Callable[[str], Any]] = {bool: _parse_bool}  # of types that are not made from their text


@dataclass(frozen=True)
class Settings:  # pylint: disable=too-many-instance-attributes  # one for each setting
    """What a worker and the puller have to know."""

    model: str
    alias: str
    tracking_uri: str
    release_dir: Path
    poll_seconds: float
    forbid_breaking_columns: bool
    verify_memory: int
    verify_seconds: float
    host: str
    port: int
    workers: int
    threads: int
    max_body: int
    max_rows: int
    keys_file: str
    rate_limit: float
    cors_origins: str
    metrics_port: int
    request_timeout: float
    drain_seconds: float
    explain_max_exact_columns: int
    explain_samples: int
    log_dir: Path
    log_queue: int
    log_max_bytes: int
    log_backups: int
    log_retention_days: int
    feedback_timeout: float

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read all settings. Raises ConfigError, which names the one that is missing, cannot be read or is not allowed."""
        given = {**_default_variables(), **environ}
        return cls(**{item.name: _read_setting(item.name, item.type, given) for item in fields(cls)})


def _read_setting(name: str, kind: Any, environ: Mapping[str, str]) -> Any:
    variable = ENV_PREFIX + name.upper()
    if variable not in environ:
        raise ConfigError(
            f"the environment variable {variable} is missing, and conf/serve.yaml makes its value of others;"
            " python -m housing.serve sets it"
        )
    called, text = f"serve.{name} ({variable})", environ[variable]
    try:
        value = PARSERS.get(kind, kind)(text)
    except ValueError as error:
        allowed = VALIDATORS[name].description if name in VALIDATORS else error
        raise ConfigError(f"{called} is {text!r}; allowed: {allowed}") from error
    if name in VALIDATORS:
        VALIDATORS[name].validate(called, value)
    return value


def _default_variables() -> dict[str, str]:
    """Give the variables of the values that conf/serve.yaml says outright; the others are made by Hydra of the table's name."""
    said = yaml.safe_load(DEFAULTS_FILE.read_text(encoding="utf-8"))["serve"]
    return {ENV_PREFIX + name.upper(): str(value) for name, value in said.items() if "${" not in str(value)}
