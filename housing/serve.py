"""Entry: serve the model at an alias: a puller that follows the alias, gunicorn workers that predict, a joiner of feedback.

python -m housing.serve serve.port=9000
"""

import sys

from omegaconf import DictConfig

from housing.core.command import command
from server.core.settings import Settings
from server.supervisor import require_free_port, server_environment, supervise


@command("serve")
def main(cfg: DictConfig) -> None:
    """Serve until interrupted, or until gunicorn ends."""
    environ = server_environment(cfg.serve)
    settings = Settings.from_environment(environ)
    for port in (settings.port, settings.metrics_port):
        if port:
            require_free_port(settings.host, port)
    url = f"http://{settings.host}:{settings.port}"
    print(f"serving {cfg.serve.model} at alias {cfg.serve.alias}; Ctrl-C ends it\n")
    for route, meaning in (
        ("", "try the model in a browser"),
        ("docs", "the API, to read and to try"),
        ("predict", "POST a row"),
        ("model", "what is served"),
        ("readyz", "is there a model?"),
        ("metrics", "for Prometheus"),
    ):
        print(f"  {url}/{route:8} {meaning}")
    sys.stdout.flush()
    sys.exit(supervise(environ))


if __name__ == "__main__":
    main()
