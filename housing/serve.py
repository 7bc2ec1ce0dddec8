"""Serve the model at an alias with gunicorn, a puller that follows the alias, and a joiner of feedback.

python -m housing.serve serve.port=9000
"""

import os
import sys

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.core.errors import ConfigError
from housing.core.printable import show
from housing.serving.supervisor import require_free_port, require_writable_folder, server_environment, supervise
from housing.tracking.aliases import require_declared_alias
from server.core.settings import Settings

ROUTES = {
    "": "try the model in a browser",
    "docs": "API documentation",
    "predict": "POST a row",
    "model": "the served model",
    "readyz": "readiness check",
    "metrics": "Prometheus metrics",
}


@command("serve")
def main(cfg: DictConfig) -> None:
    """Serve until interrupted, or until gunicorn exits."""
    require_declared_alias(cfg.serve.alias, cfg.aliases, "serve.alias")
    if cfg.serve.shadow:
        require_declared_alias(cfg.serve.shadow, cfg.aliases, "serve.shadow")
        if cfg.serve.shadow == cfg.serve.alias:
            raise ConfigError(f"serve.shadow must be another alias than serve.alias (got {cfg.serve.shadow} for both).")
    environ = server_environment(cfg.serve)
    settings = Settings.from_environment(environ)
    os.umask(0o077)  # the prediction log holds the data of clients
    require_writable_folder("serve.release_dir", settings.release_dir)
    require_writable_folder("serve.log_dir", settings.log_dir)
    for port in filter(None, (settings.port, settings.metrics_port)):
        require_free_port(settings.host, port)
    show(f"Serving {settings.model} at alias {settings.alias}. Press Ctrl-C to stop.\n")
    for route, meaning in ROUTES.items():
        show(f"  http://{settings.url_host}:{settings.port}/{route:8} {meaning}")
    sys.exit(supervise(environ))


if __name__ == "__main__":
    main()
