"""Server settings from environment variables, with the defaults of conf/serve.yaml, which describes each of them."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_type_hints

import yaml

from housing.core.environment import CONFIG_FOLDER
from housing.core.errors import ConfigError
from housing.core.model_list import ModelList
from housing.core.validators import BOOLEAN, NON_NEGATIVE, POSITIVE, Validator, integer
from housing.server_files.signatures import TrustedKeys

ENV_PREFIX = "HOUSING_"
DEFAULTS_FILE = CONFIG_FOLDER / "serve.yaml"
ORIGIN_PATTERN = re.compile(r"https?://[\w.-]+(:\d+)?|https?://\[[\da-f:]+\](:\d+)?", re.ASCII | re.IGNORECASE)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(BOOLEAN.description)
    return text.lower() == "true"


def _is_origin_list(text: str) -> bool:
    return not text or all(ORIGIN_PATTERN.fullmatch(origin) for origin in text.split(","))


ORIGINS = Validator("origins such as https://a.example, separated by commas without spaces, or empty", _is_origin_list)
PARSERS: dict[Any, Callable[[str], Any]] = {bool: _parse_bool}  # other types are built from their text


@dataclass(frozen=True)
class Settings:  # pylint: disable=too-many-instance-attributes  # one attribute per setting
    """Settings of the workers, the puller and the joiner."""

    model: str
    alias: str
    models: str
    max_memory_mb: Annotated[int, integer(0)]
    tracking_uri: str
    release_dir: Path
    shadow: str
    monitor: bool
    monitor_window_rows: Annotated[int, integer(100, 100_000)]
    poll_seconds: Annotated[float, POSITIVE]
    webhook_port: Annotated[int, integer(0, 65535)]
    webhook_secret_file: str
    forbid_breaking_columns: bool
    verify_memory_mb: Annotated[int, integer(1)]
    verify_seconds: Annotated[float, POSITIVE]
    host: str
    port: Annotated[int, integer(1, 65535)]
    workers: Annotated[int, integer(1, 256)]
    threads: Annotated[int, integer(1)]
    max_body: Annotated[int, integer(1)]
    max_rows: Annotated[int, integer(1)]
    trusted_keys: TrustedKeys
    keys_file: str
    rate_limit: Annotated[float, NON_NEGATIVE]
    cors_origins: Annotated[str, ORIGINS]
    metrics_port: Annotated[int, integer(0, 65535)]
    request_timeout_seconds: Annotated[float, POSITIVE]
    keep_alive_seconds: Annotated[int, integer(1)]
    max_connections_per_client: Annotated[int, integer(0)]
    drain_seconds: Annotated[float, NON_NEGATIVE]
    explain_max_exact_columns: Annotated[int, integer(0, 20)]
    explain_samples: Annotated[int, integer(1)]
    log_dir: Path
    log_queue: Annotated[int, integer(1)]
    log_max_bytes: Annotated[int, integer(1)]
    log_backups: Annotated[int, integer(0)]
    log_retention_days: Annotated[int, integer(0)]
    feedback_timeout_seconds: Annotated[float, NON_NEGATIVE]
    adaptive_intervals: bool

    @property
    def adaptation_dir(self) -> Path | None:
        """The folder of the files by which intervals follow feedback, or None if they do not."""
        return self.log_dir if self.adaptive_intervals else None

    def list_models(self) -> ModelList:
        """Return the list of served models, with their release folders."""
        return ModelList(self.models, f"{self.model}@{self.alias}", self.release_dir)

    @property
    def url_host(self) -> str:
        """The address to listen on as it stands in a URL: IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def local_host(self) -> str:
        """The address at which this machine reaches the server."""
        listens_everywhere = set(self.host) <= set("0.:")  # 0.0.0.0 or ::
        loopback = "::1" if ":" in self.host else "127.0.0.1"
        return loopback if listens_everywhere else self.host

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read all settings.

        Raises
        ------
        ConfigError
            If a setting is missing, cannot be parsed or is out of range.
        """
        variables = {**_default_variables(), **environ}
        return cls(
            **{name: _read_setting(name, hint, variables) for name, hint in get_type_hints(cls, include_extras=True).items()}
        )


def _read_setting(name: str, hint: Any, environ: Mapping[str, str]) -> Any:
    variable = ENV_PREFIX + name.upper()
    if variable not in environ:
        raise ConfigError(
            f"The environment variable {variable} is missing. It has no fixed default; python -m housing.serve sets it."
        )
    kind, validator = get_args(hint) or (hint, None)
    label, text = f"serve.{name} ({variable})", environ[variable]
    try:
        value = PARSERS.get(kind, kind)(text)
    except ValueError as error:
        raise ConfigError(f"{label} must be {validator.description if validator else error} (got {text!r}).") from error
    if validator:
        validator.validate(label, value)
    return value


def _default_variables() -> dict[str, str]:
    """Return the literal values of conf/serve.yaml as variables. Values with an interpolation need Hydra."""
    defaults = yaml.safe_load(DEFAULTS_FILE.read_text(encoding="utf-8"))["serve"]
    return {ENV_PREFIX + name.upper(): str(value) for name, value in defaults.items() if "${" not in str(value)}
