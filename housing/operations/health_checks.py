"""What the doctor looks at. A check gives what it found, or says what is not right and how to mend it."""

import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from packaging.requirements import Requirement

from housing.bundle.bundle import Bundle
from housing.core.environment import project_home
from housing.core.errors import HousingError
from housing.core.files import sha256
from housing.core.http import NO_PROXY_OPENER
from housing.core.locks import store_file
from housing.data import dvc
from housing.tracking import store as tracking
from housing.tracking.store import Store

EXTRAS = ("train", "data")  # the extras of setup.cfg that these commands need


PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"


SERVE_COMMAND = "./scripts/serve"


TRAIN_COMMAND = "python -m housing.train -m model=linear,decision_tree,xgboost"


class CheckFailed(Exception):
    """What is not right, with what mends it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class CheckSkipped(Exception):
    """What is not there and need not be."""


@dataclass(frozen=True)
class CheckResult:
    """What came of a check: GOOD, ABSENT or ILL, and what mends it."""

    state: str
    message: str
    hint: str = ""


def packages(_cfg: DictConfig) -> str:
    """The versions of the packages are within the bounds of setup.cfg."""
    wanted = [Requirement(line) for line in distribution("housing").requires or ()]
    asked = [one for one in wanted if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *EXTRAS))]
    wrong = [f"{one.name} {_installed_version(one.name)} (allowed: {one.specifier})" for one in asked if not _is_satisfied(one)]
    if wrong:
        raise CheckFailed(", ".join(wrong), "./scripts/setup")
    return f"{len(asked)} packages within the bounds of setup.cfg"


def _is_satisfied(requirement: Requirement) -> bool:
    found = _installed_version(requirement.name)
    return found != "missing" and requirement.specifier.contains(found, prereleases=True)


def _installed_version(name: str) -> str:
    try:
        return distribution(name).version
    except ImportError:
        return "missing"


def threads(_cfg: DictConfig) -> str:
    """Fits do not ask for more threads than this machine has cores."""
    cores, asked = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    if asked is not None and not (asked.isdecimal() and 1 <= int(asked) <= cores):
        raise CheckFailed(f"OMP_NUM_THREADS is {asked} and there are {cores} cores", "unset OMP_NUM_THREADS")
    return f"{cores} cores, OMP_NUM_THREADS {asked or 'not set'}"


def disk(cfg: DictConfig) -> str:
    """There is room where results go."""
    free = shutil.disk_usage(project_home()).free // 1_000_000
    if free < cfg.min_free_disk_mb:
        raise CheckFailed(
            f"{free:,} MB free in {project_home()}", f"free some: {cfg.min_free_disk_mb:,} MB are wanted (min_free_disk_mb=)"
        )
    return f"{free:,} MB free in {project_home()}"


def table(cfg: DictConfig) -> str:
    """The table is there, in the version that git names."""
    path = Path(cfg.data.path)
    if not path.is_file():
        raise CheckFailed(f"{path} is not there", f"python -m housing.fetch data={cfg.data.name}")
    named = dvc.tracked_version(path)
    if named is not None and not named.matches(path):
        raise CheckFailed(f"{path} is not the version that {dvc.dvc_file(path).name} names", f"dvc add {path}, or dvc checkout")
    return f"{path}, fingerprint {sha256(path)[:12]}" + ("" if named else ", not under DVC")


def remote(cfg: DictConfig) -> str:
    """DVC's remote can be reached, and has the version of the table."""
    path = Path(cfg.data.path)
    if dvc.tracked_version(path) is None:
        raise CheckSkipped("the table is not under DVC")
    if not dvc.is_in_remote(path):
        raise CheckFailed(f"DVC's remote does not have {path.name}", f"dvc push {dvc.dvc_file(path)}")
    return f"DVC's remote has {path.name}"


def store(cfg: DictConfig) -> str:
    """The MLflow store answers, under the name by which it is asked."""
    return f"{_store(cfg).client.uri} answers"


def _store(cfg: DictConfig) -> Store:
    uri = str(cfg.mlflow.tracking_uri)
    file = store_file(uri)
    if file is not None and not file.is_file():
        raise CheckFailed(f"{file} is not there", TRAIN_COMMAND)
    if file is None:
        _require_allowed_host(uri, cfg.timeout)
    return tracking.connect(cfg.mlflow)


def _require_allowed_host(uri: str, timeout: float) -> None:
    """Ask what asks for the Host header: /health alone does not."""
    try:
        address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?experiment_name=none"
        with urllib.request.urlopen(address, timeout=timeout):  # by the proxy, if there is one, as MLflow's client goes
            pass
    except urllib.error.HTTPError as error:
        if error.code == 403:
            host = uri.partition("://")[2].rstrip("/")
            raise CheckFailed(
                f"{uri} answers 403: it does not know itself by that name",
                f"mlflow server --allowed-hosts {host},localhost:*,127.0.0.1:*",
            ) from error
    except OSError as error:
        raise CheckFailed(f"{uri}: {error}", "start the MLflow server, or name another: MLFLOW_TRACKING_URI=") from error


def artefacts(cfg: DictConfig) -> str:
    """What is written where artefacts go comes back, and can be removed."""
    known = _store(cfg)
    place = known.artifacts.check_storage(cfg.data.name)
    return f"written to, read from and removed from {place}"


def registry(cfg: DictConfig) -> str:
    """The alias has a version."""
    return f"{cfg.registered_model} version {_version_at_alias(cfg)} at {cfg.serve.alias}"


def _version_at_alias(cfg: DictConfig) -> str:
    version = _store(cfg).registry.version_at(cfg.registered_model, cfg.serve.alias)
    if version is None:
        raise CheckFailed(
            f"{cfg.registered_model} has no version at {cfg.serve.alias}", f"python -m housing.promote data={cfg.data.name}"
        )
    return version


def bundle(cfg: DictConfig) -> str:
    """The bundle at the alias is whole, and gives its golden rows."""
    version = _version_at_alias(cfg)
    with _store(cfg).artifacts.bundle(f"models:/{cfg.registered_model}/{version}") as folder:
        card = Bundle.read(folder).card
    return f"version {version} is whole and gives its golden rows: {card['model']} on {card['features']}"


def server(cfg: DictConfig) -> str:
    """The server is ready, and serves the version at the alias."""
    url = _configured_url(cfg, "serve.url")
    _fetch_text(url, "/readyz", cfg, SERVE_COMMAND)
    served = _fetch_json(("version",), url, "/model", cfg, SERVE_COMMAND)
    version = _version_at_alias(cfg)
    if served != version:
        raise CheckFailed(
            f"{url} serves version {served}, {cfg.serve.alias} is {version}", "look at what the puller says in its log"
        )
    return f"{url} is ready and serves version {served}"


def metrics(cfg: DictConfig) -> str:
    """The server gives its metrics."""
    text = _fetch_text(_configured_url(cfg, "serve.url"), "/metrics", cfg, SERVE_COMMAND)
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE housing_")}
    if not names:
        raise CheckFailed("/metrics has none of ours", "is serve.url the address of this project's server?")
    return f"{len(names)} of ours, {len(text):,} bytes"


def prometheus(cfg: DictConfig) -> str:
    """Prometheus reaches the server, and has our rules."""
    url, remedy = _configured_url(cfg, "prometheus"), "prometheus --config.file=prometheus/prometheus.yml"
    targets = _fetch_json(("data", "activeTargets"), url, "/api/v1/targets?state=active", cfg, remedy)
    ours = [one for one in targets if one["labels"]["job"] == "housing"]
    down = [f"{one['scrapeUrl']}: {one['lastError'] or 'not scraped yet'}" for one in ours if one["health"] != "up"]
    if down or not ours:
        raise CheckFailed(", ".join(down) or "no target of job housing", "mend prometheus/targets/housing.yml")
    groups = _fetch_json(("data", "groups"), url, "/api/v1/rules", cfg, remedy)
    if not any(rule["name"].startswith("housing:") for group in groups for rule in group["rules"]):
        raise CheckFailed("our rules are not loaded", remedy)
    return f"{len(ours)} targets up, {sum(len(group['rules']) for group in groups)} rules"


def grafana(cfg: DictConfig) -> str:
    """Grafana answers; dashboards need no more than its provisioning."""
    url = _configured_url(cfg, "grafana")
    state = _fetch_json(("database",), url, "/api/health", cfg, "start Grafana with grafana/provisioning, as compose.yml does")
    return f"{url}, database {state}"


def _configured_url(cfg: DictConfig, name: str) -> str:
    url = OmegaConf.select(cfg, name)
    if url is None:
        raise CheckSkipped(f"none is named ({name}=)")
    return str(url).rstrip("/")


def _fetch_text(url: str, route: str, cfg: DictConfig, hint: str) -> str:
    try:
        return _http_get(url + route, cfg.timeout, cfg.serve.key if url == cfg.serve.url else "")
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        hint = "name a key with the rights predict and metrics: serve.key=" if error.code in (401, 403) else "mend what it says"
        raise CheckFailed(f"{url}{route} answers {error.code}: {said}", hint) from error
    except (OSError, ValueError) as error:
        raise CheckFailed(f"{url} does not answer: {error}", hint) from error


def _fetch_json(keys: Sequence[str], url: str, route: str, cfg: DictConfig, hint: str) -> Any:
    """Give what an answer in JSON has below some names."""
    found: Any = _fetch_text(url, route, cfg, hint)
    try:
        found = json.loads(found)
        for name in keys:
            found = found[name]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailed(f"{url}{route} answers something else than was expected", f"is {url} the right address?") from error
    return found


def _http_get(url: str, timeout: float, key: str = "") -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with NO_PROXY_OPENER.open(request, timeout=timeout) as answer:
        body: bytes = answer.read()
    return body.decode()


CHECKS: tuple[Callable[[DictConfig], str], ...] = (
    *(packages, threads, disk, table, remote, store, registry, artefacts, bundle, server, metrics, prometheus, grafana),
)


def run_check(check: Callable[[DictConfig], str], cfg: DictConfig) -> CheckResult:
    """Give what a check found."""
    try:
        return CheckResult(PASSED, check(cfg))
    except CheckSkipped as nothing:
        return CheckResult(SKIPPED, str(nothing))
    except CheckFailed as ailment:
        return CheckResult(FAILED, ailment.message, ailment.hint)
    except HousingError as error:
        return CheckResult(FAILED, str(error), "mend what the message names, then ask again")
