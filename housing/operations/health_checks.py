"""Health checks of an installation: each returns what it found, or raises what failed and how to fix it."""

import json
import os
import shlex
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig
from packaging.requirements import Requirement

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.environment import IS_INSTALLED, SETUP_COMMAND, project_home
from housing.core.errors import HousingError
from housing.core.files import exposed_secret, sha256
from housing.core.http import NO_PROXY_OPENER
from housing.core.locks import store_file
from housing.core.printable import hide_password
from housing.data import dvc
from housing.tracking import store as tracking
from housing.tracking.store import Store

EXTRAS = ("train", "data")  # the extras of setup.cfg that the commands need
PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"
SERVE_COMMAND = "housing serve" if IS_INSTALLED else "./scripts/serve"
PROMETHEUS_COMMAND = "prometheus --config.file=prometheus/prometheus.yml"


class CheckFailed(Exception):
    """A failed check, with a hint on how to fix it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class CheckSkipped(Exception):
    """A check of something that is not configured and not required."""


@dataclass(frozen=True)
class CheckResult:
    """The result of a check: passed, skipped or failed, and a hint on how to fix it."""

    state: str
    message: str
    hint: str = ""

    @property
    def failed(self) -> bool:
        """Whether something must be fixed."""
        return self.state == FAILED


@dataclass(frozen=True)
class HealthReport:
    """The results of all checks by name, and the names of those that failed."""

    checks: Mapping[str, CheckResult]
    failed: list[str]


@dataclass(frozen=True)
class CheckSettings:
    """The parts of an installation to check; a URL is None if there is no such part."""

    table_name: str
    table_path: Path
    mlflow: DictConfig
    registered_model: str
    alias: str
    server_url: str | None
    server_key: str
    keys_file: str
    prometheus_url: str | None
    grafana_url: str | None
    min_free_disk_mb: int
    timeout_seconds: float

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of the command's config."""
        return cls(
            table_name=cfg.data.name,
            table_path=Path(cfg.data.path),
            mlflow=cfg.mlflow,
            registered_model=cfg.registered_model,
            alias=cfg.serve.alias,
            server_url=cfg.serve.url,
            server_key=cfg.serve.key,
            keys_file=cfg.serve.keys_file,
            prometheus_url=cfg.prometheus,
            grafana_url=cfg.grafana,
            min_free_disk_mb=cfg.min_free_disk_mb,
            timeout_seconds=cfg.timeout_seconds,
        )


def run_checks(cfg: DictConfig) -> Iterator[tuple[str, CheckResult]]:
    """Run all checks and yield their names and results.

    A check that fails for the same reason as an earlier one is reported as skipped, so that each problem is fixed once.
    """
    settings = CheckSettings.from_config(cfg)
    failures: dict[CheckResult, str] = {}
    for check in CHECKS:
        name, result = check.__name__, run_check(check, settings)
        if result in failures:
            yield name, CheckResult(SKIPPED, f"needs {failures[result]}")
            continue
        if result.failed:
            failures[result] = name
        yield name, result


def run_check(check: Callable[[CheckSettings], str], settings: CheckSettings) -> CheckResult:
    """Run one check and return its result."""
    try:
        return CheckResult(PASSED, check(settings))
    except CheckSkipped as skipped:
        return CheckResult(SKIPPED, str(skipped))
    except CheckFailed as failure:
        return CheckResult(FAILED, failure.message, failure.hint)
    except HousingError as error:
        return CheckResult(FAILED, str(error), "see the message above, then run this command again")


def packages(_settings: CheckSettings) -> str:
    """Check that the versions of installed packages satisfy setup.cfg."""
    requirements = [Requirement(line) for line in distribution("housing").requires or ()]
    needed = [requirement for requirement in requirements if _is_needed(requirement)]
    wrong = [
        f"{requirement.name} {_installed_version(requirement.name)} (expected {requirement.specifier})"
        for requirement in needed
        if not _is_satisfied(requirement)
    ]
    if wrong:
        raise CheckFailed(", ".join(wrong), SETUP_COMMAND)
    return f"{len(needed)} packages satisfy setup.cfg"


def _is_needed(requirement: Requirement) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *EXTRAS))


def _is_satisfied(requirement: Requirement) -> bool:
    version = _installed_version(requirement.name)
    return version != "missing" and requirement.specifier.contains(version, prereleases=True)


def _installed_version(name: str) -> str:
    try:
        return distribution(name).version
    except ImportError:
        return "missing"


def threads(_settings: CheckSettings) -> str:
    """Check that OMP_NUM_THREADS is not above the number of cores: more threads than cores make fits much slower."""
    cores, n_threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    if n_threads is not None and not (n_threads.isdecimal() and 1 <= int(n_threads) <= cores):
        raise CheckFailed(
            f"OMP_NUM_THREADS must be from 1 to {cores}, the number of cores (got {n_threads})", "unset OMP_NUM_THREADS"
        )
    return f"{cores} cores, OMP_NUM_THREADS {n_threads or 'not set'}"


def disk(settings: CheckSettings) -> str:
    """Check that there is free disk space for results."""
    free_mb = shutil.disk_usage(project_home()).free // 1_000_000
    if free_mb < settings.min_free_disk_mb:
        raise CheckFailed(
            f"{free_mb:,} MB free in {project_home()}, expected at least {settings.min_free_disk_mb:,} MB",
            "free disk space, or lower min_free_disk_mb",
        )
    return f"{free_mb:,} MB free in {project_home()}"


def table(settings: CheckSettings) -> str:
    """Check that the table exists, in the version that git tracks."""
    path = settings.table_path
    if not path.is_file():
        raise CheckFailed(f"{path} does not exist", next_command("fetch", table=settings.table_name))
    tracked = dvc.tracked_version(path)
    if tracked is not None and not tracked.matches(path):
        raise CheckFailed(f"{path} is not the version that {dvc.dvc_file(path).name} tracks", f"dvc add {path}, or dvc checkout")
    return f"{path}, fingerprint {sha256(path)[:12]}" + ("" if tracked else ", not tracked by DVC")


def remote(settings: CheckSettings) -> str:
    """Check that the DVC remote is reachable and has the version of the table."""
    path = settings.table_path
    if dvc.tracked_version(path) is None:
        raise CheckSkipped("the table is not tracked by DVC")
    if not dvc.is_in_remote(path):
        # a table that was downloaded is in no cache yet, and dvc push sends what is in the cache
        fix = f"dvc commit {dvc.dvc_file(path)} && dvc push {dvc.dvc_file(path)}"
        raise CheckFailed(f"the DVC remote does not have this version of {path.name}", fix)
    return f"the DVC remote has {path.name}"


def store(settings: CheckSettings) -> str:
    """Check that the MLflow store is available."""
    return f"{_connect(settings).client.name} is available"


def _connect(settings: CheckSettings) -> Store:
    uri = str(settings.mlflow.tracking_uri)
    file = store_file(uri)
    if file is not None and not file.is_file():  # connecting would create it
        raise CheckFailed(
            f"{file} does not exist", next_command("train", "-m", "model=linear,decision_tree,xgboost", table=settings.table_name)
        )
    if uri.startswith("http"):
        _require_allowed_host(uri, settings.timeout_seconds)
    return tracking.connect(settings.mlflow)


def _require_allowed_host(uri: str, timeout: float) -> None:
    """Check that the MLflow server accepts its host name. It does not validate the Host header of /health, so use its API."""
    try:
        address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?experiment_name=none"
        with urllib.request.urlopen(address, timeout=timeout):  # through the proxy, if there is one, as MLflow's client does
            pass
    except urllib.error.HTTPError as error:
        if error.code == 403:
            host = uri.partition("://")[2].rstrip("/")
            raise CheckFailed(
                f"{hide_password(uri)} answers 403: the server does not allow this host name",
                f"mlflow server --allowed-hosts {host},localhost:*,127.0.0.1:*",
            ) from error
    except OSError as error:
        raise CheckFailed(
            f"{hide_password(uri)} is unavailable: {error}", "start the MLflow server, or set MLFLOW_TRACKING_URI"
        ) from error


def artifacts(settings: CheckSettings) -> str:
    """Check that artifacts can be written, read and deleted, and that those of a local store are in the project."""
    connected = _connect(settings)
    location = connected.artifacts.check_storage(settings.table_name)
    outside = connected.client.addresses.outside() if connected.client.addresses else []
    if outside:
        raise CheckFailed("; ".join(outside), "move these artifacts into the project, or delete the experiment")
    return f"wrote, read and deleted a file in {location}"


def registry(settings: CheckSettings) -> str:
    """Check that the alias points to a version."""
    return f"{settings.registered_model} version {_version_at_alias(settings)} at {settings.alias}"


def _version_at_alias(settings: CheckSettings) -> str:
    version = _connect(settings).registry.version_at(settings.registered_model, settings.alias)
    if version is None:
        raise CheckFailed(
            f"{settings.registered_model} has no version at {settings.alias}",
            next_command("promote", table=settings.table_name),
        )
    return version


def bundle(settings: CheckSettings) -> str:
    """Check that the bundle at the alias is complete and predicts its golden rows."""
    version = _version_at_alias(settings)
    with _connect(settings).artifacts.bundle(f"models:/{settings.registered_model}/{version}") as directory:
        card = Bundle.read(directory).card
    return f"version {version} is complete and predicts its golden rows: {card['model']} on {card['features']}"


def server(settings: CheckSettings) -> str:
    """Check that the server is ready and serves the version at the alias."""
    url = _configured_url(settings.server_url, "serve.url")
    _fetch_text(url, "/readyz", settings, SERVE_COMMAND)
    served = _fetch_json(("version",), url, "/model", settings, SERVE_COMMAND)
    version = _version_at_alias(settings)
    if served != version:
        raise CheckFailed(
            f"{url} serves version {served}, but {settings.alias} is version {version}", "see the log of the puller"
        )
    return f"{url} is ready and serves version {served}"


def keys(settings: CheckSettings) -> str:
    """Check that only the owner can read the file of API keys."""
    if not settings.keys_file:
        raise CheckSkipped("serve.keys_file is not set")
    path = Path(settings.keys_file)
    if not path.is_file():
        raise CheckFailed(f"{path} does not exist", f"python -m server.access NAME predict, and put the line into {path}")
    if exposed := exposed_secret(path):
        raise CheckFailed(exposed, f"chmod 600 {shlex.quote(str(path))}")
    return f"{path} can be read by its owner only"


def metrics(settings: CheckSettings) -> str:
    """Check that the server exports metrics."""
    text = _fetch_text(_configured_url(settings.server_url, "serve.url"), "/metrics", settings, SERVE_COMMAND)
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE housing_")}
    if not names:
        raise CheckFailed("/metrics has no metric housing_*", "set serve.url to the address of this project's server")
    return f"{len(names)} metrics, {len(text):,} bytes"


def prometheus(settings: CheckSettings) -> str:
    """Check that Prometheus scrapes the server and has loaded the project's rules."""
    url = _configured_url(settings.prometheus_url, "prometheus")
    all_targets = _fetch_json(("data", "activeTargets"), url, "/api/v1/targets?state=active", settings, PROMETHEUS_COMMAND)
    targets = [target for target in all_targets if target["labels"]["job"] == "housing"]
    down = [
        f"{target['scrapeUrl']}: {target['lastError'] or 'not scraped yet'}" for target in targets if target["health"] != "up"
    ]
    if down or not targets:
        raise CheckFailed(", ".join(down) or "no target of job housing", "correct prometheus/targets/housing.yml")
    groups = _fetch_json(("data", "groups"), url, "/api/v1/rules", settings, PROMETHEUS_COMMAND)
    if not any(rule["name"].startswith("housing:") for group in groups for rule in group["rules"]):
        raise CheckFailed("no rule housing:* is loaded", PROMETHEUS_COMMAND)
    return f"{len(targets)} targets up, {sum(len(group['rules']) for group in groups)} rules"


def grafana(settings: CheckSettings) -> str:
    """Check that Grafana is available. Its dashboards come from provisioning and need no check."""
    url = _configured_url(settings.grafana_url, "grafana")
    hint = "start Grafana with grafana/provisioning, as in compose.yml"
    return f"{url}, database {_fetch_json(('database',), url, '/api/health', settings, hint)}"


def _configured_url(url: str | None, key: str) -> str:
    if url is None:
        raise CheckSkipped(f"not configured ({key}=URL)")
    return url.rstrip("/")


def _fetch_text(url: str, route: str, settings: CheckSettings, hint: str) -> str:
    key = settings.server_key if settings.server_url is not None and url == settings.server_url.rstrip("/") else ""
    try:
        return http_get(url + route, settings.timeout_seconds, key)
    except urllib.error.HTTPError as error:
        body = error.read().decode(errors="replace")[:300]
        is_denied = error.code in (401, 403)
        fix = "set serve.key to a key with the scopes predict and metrics" if is_denied else "see the server's answer and its log"
        raise CheckFailed(f"{url}{route} answers {error.code}: {body}", fix) from error
    except (OSError, ValueError) as error:
        raise CheckFailed(f"{url} does not answer: {error}", hint) from error


def _fetch_json(fields: Sequence[str], url: str, route: str, settings: CheckSettings, hint: str) -> Any:
    """Return the value below nested fields of a JSON answer."""
    text = _fetch_text(url, route, settings, hint)
    try:
        value: Any = json.loads(text)
        for field in fields:
            value = value[field]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailed(
            f"{url}{route} gave an unexpected answer", f"check the address {url}: another program answers"
        ) from error
    return value


def http_get(url: str, timeout: float, key: str = "") -> str:
    """Return the body of an answer. Raises OSError if there is none, or ValueError if the address is wrong."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with NO_PROXY_OPENER.open(request, timeout=timeout) as response:
        body: bytes = response.read()
    return body.decode()


CHECKS: tuple[Callable[[CheckSettings], str], ...] = (
    *(packages, threads, disk, table, remote, store, registry, artifacts, bundle, keys, server, metrics, prometheus, grafana),
)
