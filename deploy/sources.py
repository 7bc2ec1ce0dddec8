"""What the manifests are made of: values that compose.yml, the Dockerfile, conf/ and prometheus/ define."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from housing.core.environment import PROJECT

VARIABLE = re.compile(r"\$\{\w+(?::(?:-(?P<default>[^${}]*)|[+?][^${}]*))?\}")
UNITS = {"m": "Mi", "g": "Gi"}  # of compose.yml and of Kubernetes; both count in powers of 1024
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY_ID|HOUSING_KEYS")  # in the name of a variable
RULE_FILES = ("rules.yml", "alerts.yml")
CLIENT_REQUESTS = "status:housing_requests:rate5m"  # the rule that leaves out probes and scrapes


@dataclass(frozen=True)
class Mount:
    """A volume of a service and its path in the container."""

    volume: str
    path: str
    read_only: bool


@dataclass(frozen=True)
class Service:
    """A service of compose.yml: image, arguments, environment, volumes and memory limit."""

    image: str
    command: list[str]
    environment: dict[str, str]
    mounts: list[Mount]
    memory: str
    tmp_size: str


@dataclass(frozen=True)
class HealthCheck:
    """Seconds and retries of the Dockerfile's health check."""

    interval: int
    timeout: int
    start_period: int
    retries: int


@cache
def service(name: str) -> Service:
    """Return a service of compose.yml. Variables have their defaults; secrets are left out."""
    compose = _read_yaml("compose.yml")
    found = compose["services"][name]
    environment = {key: resolve(str(value)) for key, value in found.get("environment", {}).items() if value is not None}
    command = found.get("command", [])
    return Service(
        image=resolve(found["image"]).partition(":")[0],
        command=[resolve(part) for part in (command.split() if isinstance(command, str) else command)],
        environment={key: value for key, value in environment.items() if not SECRET.search(key)},
        mounts=[_mount(text) for text in found.get("volumes", [])],
        memory=quantity(resolve(found["mem_limit"])),
        tmp_size=quantity(str(found["tmpfs"][0]).rpartition("size=")[2]),
    )


def resolve(text: str) -> str:
    """Return a text of compose.yml in which each variable has its default."""
    while VARIABLE.search(text):
        text = VARIABLE.sub(lambda match: match["default"] or "", text)
    return text


def quantity(text: str) -> str:
    """Return an amount of memory as Kubernetes writes it: 1500m is 1500Mi."""
    return text[:-1] + UNITS[text[-1]]


def metrics_size() -> str:
    """Return the size of the volume in memory that holds the metrics."""
    options = _read_yaml("compose.yml")["volumes"]["metrics"]["driver_opts"]["o"]
    return quantity(options.rpartition("size=")[2])


def server_defaults() -> dict[str, Any]:
    """Return the options of conf/serve.yaml."""
    options: dict[str, Any] = _read_yaml("conf/serve.yaml")["serve"]
    return options


def user_id() -> int:
    """Return the number of the user of the images."""
    return int(_search(r"^USER (\d+):\d+$", "Dockerfile"))


def image_path(variable: str) -> str:
    """Return a folder that the images have in a variable."""
    return _search(rf"\b{variable}=(/\w+)", "Dockerfile")


def health_check() -> HealthCheck:
    """Return the health check of the image of the workers."""
    options = {name: int(_search(rf"^HEALTHCHECK .*--{name}=(\d+)", "Dockerfile")) for name in ("interval", "timeout", "retries")}
    return HealthCheck(start_period=int(_search(r"^HEALTHCHECK .*--start-period=(\d+)", "Dockerfile")), **options)


def graceful_timeout() -> int:
    """Return how long an idle connection can delay the exit of a worker, in seconds."""
    return int(_search(r"^graceful_timeout = (\d+)", "server/gunicorn.conf.py"))


def retrain_schedule() -> str:
    """Return when the workflow of GitHub Actions retrains."""
    return _search(r'cron: "([^"]+)"', ".github/workflows/retrain.yml")


def rule_groups() -> list[dict[str, Any]]:
    """Return the groups of recording rules and of alerts."""
    return [group for name in RULE_FILES for group in _read_yaml(f"prometheus/{name}")["groups"]]


def probe_routes() -> str:
    """Return the routes that are no requests of clients, as a regular expression of PromQL."""
    rules = (rule for group in rule_groups() for rule in group["rules"])
    expression = next(rule["expr"] for rule in rules if rule.get("record") == CLIENT_REQUESTS)
    match = re.search(r'route!~"([^"]+)"', expression)
    if match is None:
        raise ValueError(f"{CLIENT_REQUESTS} must leave out routes with route!~ (got {expression!r}).")
    return match[1]


@cache
def _read_yaml(path: str) -> Any:
    return yaml.safe_load((PROJECT / path).read_text(encoding="utf-8"))


def _search(pattern: str, path: str) -> str:
    match = re.search(pattern, Path(PROJECT / path).read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise ValueError(f"{path} must have a line like {pattern}.")
    return match[1]


def _mount(text: str) -> Mount:
    volume, path, *mode = text.split(":")
    return Mount(volume, path, mode == ["ro"])
