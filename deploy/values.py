"""What an installation may choose: the values of the base, and where the Helm chart reads them."""

import json
from dataclasses import dataclass
from typing import Any

from deploy import sources

NAME = "housing"  # the prefix of all names
TAG = "dev"
REQUESTS_PER_SECOND = 500  # of one replica, beyond which there are more: a quarter of what one core answers with features=geo
MIN_REPLICAS, MAX_REPLICAS = 2, 10
LOG_SIZE = "50Gi"  # three replicas with the limits of conf/serve.yaml, and room for more
CPU = {"api": "1", "puller": "50m", "joiner": "50m", "retrain": "1", "mlflow": "250m"}
MEMORY = {"api": "512Mi", "puller": "256Mi", "joiner": "128Mi", "retrain": "2Gi", "mlflow": "1Gi"}
COMPOSE_SERVICES = {"api": "api", "puller": "puller", "joiner": "joiner", "retrain": "train", "mlflow": "mlflow"}


@dataclass(frozen=True)
class Values:  # pylint: disable=too-many-instance-attributes  # one attribute per value
    """The values that differ between installations. In the chart, each is a template."""

    name: str
    serve_image: str
    pull_image: str
    train_image: str
    model: str
    table: str
    alias: str
    tracking_uri: str
    min_replicas: Any
    max_replicas: Any
    requests_per_second: Any
    resources: dict[str, Any]
    keys_secret: str
    mlflow_secret: str
    log_size: str
    log_class: dict[str, Any]
    retrain_schedule: str
    retrain_suspend: Any
    monitoring_namespace: str


def resources(name: str) -> dict[str, dict[str, str]]:
    """Return requests and limits of a container: of memory that of compose.yml, and none of CPU, which would delay requests."""
    limit = sources.service(COMPOSE_SERVICES[name]).memory
    return {"requests": {"cpu": CPU[name], "memory": MEMORY[name]}, "limits": {"memory": limit}}


def base_values() -> Values:
    """Return the values of the kustomize base."""
    api = sources.service("api")
    model = api.environment["HOUSING_MODEL"]
    return Values(
        name=NAME,
        serve_image=f"{api.image}:{TAG}",
        pull_image=f"{sources.service('puller').image}:{TAG}",
        train_image=f"{sources.service('train').image}:{TAG}",
        model=model,
        table=model.removeprefix("housing-"),
        alias=sources.server_defaults()["alias"],
        tracking_uri=api.environment["HOUSING_TRACKING_URI"],
        min_replicas=MIN_REPLICAS,
        max_replicas=MAX_REPLICAS,
        requests_per_second=str(REQUESTS_PER_SECOND),
        resources={name: resources(name) for name in ("api", "puller", "joiner", "retrain")},
        keys_secret=f"{NAME}-keys",
        mlflow_secret=f"{NAME}-mlflow",
        log_size=LOG_SIZE,
        log_class={},
        retrain_schedule=sources.retrain_schedule(),
        retrain_suspend=False,
        monitoring_namespace="monitoring",
    )


class Templates:
    """Words that stand for Helm templates in an object, since YAML would quote the templates themselves."""

    def __init__(self) -> None:
        self._templates: dict[str, str] = {}

    def add(self, template: str) -> str:
        """Return a word that `fill` replaces by a template."""
        word = f"TEMPLATE{len(self._templates):03d}"
        self._templates[word] = template
        return word

    def fill(self, text: str) -> str:
        """Return YAML in which templates have replaced their words, and other double braces are literal."""
        for braces in ("{{", "}}"):
            text = text.replace(braces, f"\0`{braces}`\1")
        text = text.replace("\0", "{{").replace("\1", "}}")
        for word, template in self._templates.items():
            text = text.replace(word, template)
        return text


def chart_values(templates: Templates) -> Values:
    """Return the values as templates of the Helm chart, which read values.yaml."""

    def value(path: str) -> str:
        return templates.add(f"{{{{ toJson .Values.{path} }}}}")

    def image(name: str) -> str:
        return templates.add(f'{{{{ printf "%s{name}:%s" .Values.image.registry (toString .Values.image.tag) | toJson }}}}')

    base = base_values()
    return Values(
        name=templates.add("{{ .Release.Name }}"),
        serve_image=image(sources.service("api").image),
        pull_image=image(sources.service("puller").image),
        train_image=image(sources.service("train").image),
        model=value("model"),
        table=templates.add("{{ .Values.retrain.table }}"),
        alias=value("alias"),
        tracking_uri=value("trackingUri"),
        min_replicas=value("replicas.min"),
        max_replicas=value("replicas.max"),
        requests_per_second=templates.add("{{ toString .Values.requestsPerSecond | toJson }}"),
        resources={name: value(f"resources.{name}") for name in base.resources},
        keys_secret=value("secrets.apiKeys"),
        mlflow_secret=value("secrets.mlflow"),
        log_size=value("log.size"),
        log_class={
            templates.add("{{ with .Values.log.storageClass }}storageClassName"): templates.add("{{ toJson . }}{{ end }}")
        },
        retrain_schedule=value("retrain.schedule"),
        retrain_suspend=value("retrain.suspend"),
        monitoring_namespace=value("monitoringNamespace"),
    )


def values_file() -> dict[str, Any]:
    """Return the content of values.yaml: with it, the chart renders the objects of the base."""
    base = base_values()
    return {
        "image": {"registry": "", "tag": TAG},
        "model": base.model,
        "alias": base.alias,
        "trackingUri": base.tracking_uri,
        "replicas": {"min": base.min_replicas, "max": base.max_replicas},
        "requestsPerSecond": REQUESTS_PER_SECOND,
        "resources": json.loads(json.dumps(base.resources)),
        "secrets": {"apiKeys": base.keys_secret, "mlflow": base.mlflow_secret},
        "log": {"size": base.log_size, "storageClass": ""},
        "retrain": {"table": base.table, "schedule": base.retrain_schedule, "suspend": base.retrain_suspend},
        "monitoringNamespace": base.monitoring_namespace,
    }
