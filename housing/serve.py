"""Serve the model at an alias with gunicorn, a puller that follows the alias, and a joiner of feedback.

python -m housing.serve serve.port=9000
"""

import os
from dataclasses import dataclass

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result, write_result
from housing.core.errors import ConfigError
from housing.core.model_list import split_name
from housing.core.printable import show
from housing.core.traces import exporter_error
from housing.serving.supervisor import require_free_ports, require_writable_folder, server_environment, supervise
from housing.serving.webhook import read_secret
from housing.tracking.aliases import require_declared_alias
from housing.tracking.local_addresses import LocalAddresses
from server.core.settings import Settings

ROUTES = {
    "": "try the model in a browser",
    "docs": "API documentation",
    "predict": "POST a row",
    "models": "the served models, each at /models/NAME",
    "model": "the served model",
    "readyz": "readiness check",
    "metrics": "Prometheus metrics",
}


@dataclass(frozen=True)
class StartedServer:
    """A server that is being started.

    Attributes
    ----------
    models
        The served models, each as NAME@ALIAS.
    routes
        The meaning of its main routes.
    """

    url: str
    models: list[str]
    routes: dict[str, str]


@command("serve")
def main(cfg: DictConfig) -> Result:
    """Serve until interrupted, or until gunicorn exits."""
    if cfg.serve.shadow:
        require_declared_alias(cfg.serve.shadow, cfg.aliases, "serve.shadow")
        if cfg.serve.models:
            raise ConfigError(
                f"serve.shadow must be empty with serve.models (got {cfg.serve.shadow}): it follows a single model."
            )
        if cfg.serve.shadow == cfg.serve.alias:
            raise ConfigError(f"serve.shadow must be another alias than serve.alias (got {cfg.serve.shadow} for both).")
    environ = server_environment(cfg.serve)
    if error := exporter_error(environ):
        raise ConfigError(error)
    settings = Settings.from_environment(environ)
    names = _read_names(settings)
    for name in names:
        require_declared_alias(split_name(name)[1], cfg.aliases, "serve.models" if settings.models else "serve.alias")
    os.umask(0o077)  # the prediction log holds the data of clients
    require_writable_folder("serve.release_dir", settings.release_dir)
    require_writable_folder("serve.log_dir", settings.log_dir)
    if settings.webhook_port:
        read_secret(settings)
    require_free_ports(settings)
    what = f"{len(names)} models, first {names[0]}" if settings.models else f"{settings.model} at alias {settings.alias}"
    _follow_moved_store(cfg)
    show(f"Serving {what}. Press Ctrl-C to stop.\n")
    started = StartedServer(f"http://{settings.url_host}:{settings.port}", names, ROUTES)
    for route, meaning in ROUTES.items():
        show(f"  {started.url}/{route:8} {meaning}")
    write_result(started)
    return Result(started, exit_code=supervise(environ))


def _follow_moved_store(cfg: DictConfig) -> None:
    """Rewrite the addresses of a store that was copied or moved: the puller downloads by them."""
    addresses = LocalAddresses.of_store(cfg.serve.tracking_uri, cfg.mlflow.artifacts)
    if addresses is not None and addresses.database.is_file() and (message := addresses.follow()):
        show(f"{message}\n")


def _read_names(settings: Settings) -> list[str]:
    """Return the names of the served models. Raise ConfigError if they cannot be read."""
    try:
        return list(settings.list_models().folders)
    except OSError as error:
        raise ConfigError(f"Cannot read the list of models {settings.models} (serve.models): {error.strerror}.") from error


if __name__ == "__main__":
    main()
