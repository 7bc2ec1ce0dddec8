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
from housing.core.environment import home
from housing.core.errors import HousingError
from housing.core.files import sha256
from housing.core.http import DIRECT
from housing.core.locks import store_file
from housing.data import dvc
from housing.tracking import store as tracking
from housing.tracking.store import Store

NEEDED = ("train", "data")  # the extras of setup.cfg that these commands need


GOOD, ABSENT, ILL = "good", "absent", "ill"


SERVE = "./scripts/serve"


TRAIN = "python -m housing.train -m model=linear,decision_tree,xgboost"


class Ailment(Exception):
    """What is not right, with what mends it."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found, self.remedy = found, remedy


class Absent(Exception):
    """What is not there and need not be."""


@dataclass(frozen=True)
class Found:
    """What came of a check: GOOD, ABSENT or ILL, and what mends it."""

    state: str
    what: str
    remedy: str = ""


def packages(_cfg: DictConfig) -> str:
    """The versions of the packages are within the bounds of setup.cfg."""
    wanted = [Requirement(line) for line in distribution("housing").requires or ()]
    asked = [one for one in wanted if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *NEEDED))]
    wrong = [f"{one.name} {_version(one.name)} (allowed: {one.specifier})" for one in asked if not _fits(one)]
    if wrong:
        raise Ailment(", ".join(wrong), "./scripts/setup")
    return f"{len(asked)} packages within the bounds of setup.cfg"


def _fits(one: Requirement) -> bool:
    found = _version(one.name)
    return found != "missing" and one.specifier.contains(found, prereleases=True)


def _version(name: str) -> str:
    try:
        return distribution(name).version
    except ImportError:
        return "missing"


def threads(_cfg: DictConfig) -> str:
    """Fits do not ask for more threads than this machine has cores."""
    cores, asked = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    if asked is not None and not (asked.isdecimal() and 1 <= int(asked) <= cores):
        raise Ailment(f"OMP_NUM_THREADS is {asked} and there are {cores} cores", "unset OMP_NUM_THREADS")
    return f"{cores} cores, OMP_NUM_THREADS {asked or 'not set'}"


def disk(cfg: DictConfig) -> str:
    """There is room where results go."""
    free = shutil.disk_usage(home()).free // 1_000_000
    if free < cfg.disk:
        raise Ailment(f"{free:,} MB free in {home()}", f"free some: {cfg.disk:,} MB are wanted (disk=)")
    return f"{free:,} MB free in {home()}"


def table(cfg: DictConfig) -> str:
    """The table is there, in the version that git names."""
    path = Path(cfg.data.path)
    if not path.is_file():
        raise Ailment(f"{path} is not there", f"python -m housing.fetch data={cfg.data.name}")
    named = dvc.named(path)
    if named is not None and not named.is_in(path):
        raise Ailment(f"{path} is not the version that {dvc.pointer(path).name} names", f"dvc add {path}, or dvc checkout")
    return f"{path}, fingerprint {sha256(path)[:12]}" + ("" if named else ", not under DVC")


def remote(cfg: DictConfig) -> str:
    """DVC's remote can be reached, and has the version of the table."""
    path = Path(cfg.data.path)
    if dvc.named(path) is None:
        raise Absent("the table is not under DVC")
    if not dvc.is_in_remote(path):
        raise Ailment(f"DVC's remote does not have {path.name}", f"dvc push {dvc.pointer(path)}")
    return f"DVC's remote has {path.name}"


def store(cfg: DictConfig) -> str:
    """The MLflow store answers, under the name by which it is asked."""
    return f"{_store(cfg).client.uri} answers"


def _store(cfg: DictConfig) -> Store:
    uri = str(cfg.mlflow.tracking_uri)
    file = store_file(uri)
    if file is not None and not file.is_file():
        raise Ailment(f"{file} is not there", TRAIN)
    if file is None:
        _require_allowed_host(uri, cfg.patience)
    return tracking.connect(cfg.mlflow)


def _require_allowed_host(uri: str, patience: float) -> None:
    """Ask what asks for the Host header: /health alone does not."""
    try:
        address = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?experiment_name=none"
        with urllib.request.urlopen(address, timeout=patience):  # by the proxy, if there is one, as MLflow's client goes
            pass
    except urllib.error.HTTPError as error:
        if error.code == 403:
            host = uri.partition("://")[2].rstrip("/")
            raise Ailment(
                f"{uri} answers 403: it does not know itself by that name",
                f"mlflow server --allowed-hosts {host},localhost:*,127.0.0.1:*",
            ) from error
    except OSError as error:
        raise Ailment(f"{uri}: {error}", "start the MLflow server, or name another: MLFLOW_TRACKING_URI=") from error


def artefacts(cfg: DictConfig) -> str:
    """What is written where artefacts go comes back, and can be removed."""
    known = _store(cfg)
    place = known.artifacts.check_storage(cfg.data.name)
    return f"written to, read from and removed from {place}"


def registry(cfg: DictConfig) -> str:
    """The alias has a version."""
    return f"{cfg.registered_model} version {_at_alias(cfg)} at {cfg.serve.alias}"


def _at_alias(cfg: DictConfig) -> str:
    version = _store(cfg).registry.version_at(cfg.registered_model, cfg.serve.alias)
    if version is None:
        raise Ailment(
            f"{cfg.registered_model} has no version at {cfg.serve.alias}", f"python -m housing.promote data={cfg.data.name}"
        )
    return version


def bundle(cfg: DictConfig) -> str:
    """The bundle at the alias is whole, and gives its golden rows."""
    version = _at_alias(cfg)
    with _store(cfg).artifacts.bundle(f"models:/{cfg.registered_model}/{version}") as folder:
        card = Bundle.read(folder).card
    return f"version {version} is whole and gives its golden rows: {card['model']} on {card['features']}"


def server(cfg: DictConfig) -> str:
    """The server is ready, and serves the version at the alias."""
    url = _url(cfg, "serve.url")
    _ask(url, "/readyz", cfg, SERVE)
    served = _ask_for(("version",), url, "/model", cfg, SERVE)
    version = _at_alias(cfg)
    if served != version:
        raise Ailment(f"{url} serves version {served}, {cfg.serve.alias} is {version}", "look at what the puller says in its log")
    return f"{url} is ready and serves version {served}"


def metrics(cfg: DictConfig) -> str:
    """The server gives its metrics."""
    text = _ask(_url(cfg, "serve.url"), "/metrics", cfg, SERVE)
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE housing_")}
    if not names:
        raise Ailment("/metrics has none of ours", "is serve.url the address of this project's server?")
    return f"{len(names)} of ours, {len(text):,} bytes"


def prometheus(cfg: DictConfig) -> str:
    """Prometheus reaches the server, and has our rules."""
    url, remedy = _url(cfg, "prometheus"), "prometheus --config.file=prometheus/prometheus.yml"
    targets = _ask_for(("data", "activeTargets"), url, "/api/v1/targets?state=active", cfg, remedy)
    ours = [one for one in targets if one["labels"]["job"] == "housing"]
    down = [f"{one['scrapeUrl']}: {one['lastError'] or 'not scraped yet'}" for one in ours if one["health"] != "up"]
    if down or not ours:
        raise Ailment(", ".join(down) or "no target of job housing", "mend prometheus/targets/housing.yml")
    groups = _ask_for(("data", "groups"), url, "/api/v1/rules", cfg, remedy)
    if not any(rule["name"].startswith("housing:") for group in groups for rule in group["rules"]):
        raise Ailment("our rules are not loaded", remedy)
    return f"{len(ours)} targets up, {sum(len(group['rules']) for group in groups)} rules"


def grafana(cfg: DictConfig) -> str:
    """Grafana answers; dashboards need no more than its provisioning."""
    url = _url(cfg, "grafana")
    state = _ask_for(("database",), url, "/api/health", cfg, "start Grafana with grafana/provisioning, as compose.yml does")
    return f"{url}, database {state}"


def _url(cfg: DictConfig, name: str) -> str:
    url = OmegaConf.select(cfg, name)
    if url is None:
        raise Absent(f"none is named ({name}=)")
    return str(url).rstrip("/")


def _ask(url: str, route: str, cfg: DictConfig, remedy: str) -> str:
    try:
        return _get(url + route, cfg.patience, cfg.serve.key if url == cfg.serve.url else "")
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        remedy = "name a key with the rights predict and metrics: serve.key=" if error.code in (401, 403) else "mend what it says"
        raise Ailment(f"{url}{route} answers {error.code}: {said}", remedy) from error
    except (OSError, ValueError) as error:
        raise Ailment(f"{url} does not answer: {error}", remedy) from error


def _ask_for(names: Sequence[str], url: str, route: str, cfg: DictConfig, remedy: str) -> Any:
    """Give what an answer in JSON has below some names."""
    found: Any = _ask(url, route, cfg, remedy)
    try:
        found = json.loads(found)
        for name in names:
            found = found[name]
    except (ValueError, KeyError, TypeError) as error:
        raise Ailment(f"{url}{route} answers something else than was expected", f"is {url} the right address?") from error
    return found


def _get(url: str, patience: float, key: str = "") -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with DIRECT.open(request, timeout=patience) as answer:
        body: bytes = answer.read()
    return body.decode()


CHECKS: tuple[Callable[[DictConfig], str], ...] = (
    *(packages, threads, disk, table, remote, store, registry, artefacts, bundle, server, metrics, prometheus, grafana),
)


def examine(check: Callable[[DictConfig], str], cfg: DictConfig) -> Found:
    """Give what a check found."""
    try:
        return Found(GOOD, check(cfg))
    except Absent as nothing:
        return Found(ABSENT, str(nothing))
    except Ailment as ailment:
        return Found(ILL, ailment.found, ailment.remedy)
    except HousingError as error:
        return Found(ILL, str(error), "mend what the message names, then ask again")
