"""The overlays: MLflow and what differs from the base on one machine with local storage, and in production."""

from typing import Any

import yaml

from deploy import sources
from deploy.objects import (
    API,
    HTTP,
    MLFLOW,
    RETRAIN,
    SECURITY_CONTEXT,
    Object,
    allowed,
    dns,
    labels,
    mlflow_port,
    mounts,
    new_object,
    pod,
    pods_of,
)
from deploy.values import Values, resources

PRODUCTION_REPLICAS = 3
MLFLOW_HOME = "/mlflow"
MLFLOW_SIZE = "20Gi"
POSTGRES_PORT = 5432
STORE_SECRET = f"{MLFLOW}-store"
HTTPS, S3_PORT = 443, 8333  # of AWS; of the SeaweedFS in compose.yml


def namespace() -> Object:
    """Return the namespace, in which the cluster itself refuses pods without the restricted profile."""
    mode = {f"pod-security.kubernetes.io/{name}": "restricted" for name in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "housing", "labels": mode}}


def kustomization(resources_: list[str], patches: list[Object] | None = None, name: str = "") -> Object:
    """Return a kustomization of files, with patches and a namespace."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        **({"namespace": name} if name else {}),
        "resources": resources_,
        **({"patches": patches} if patches else {}),
    }


def patch(kind: str, name: str, *operations: tuple[str, str, Any]) -> Object:
    """Return a patch of an object: operations, each with a path and a value."""
    steps = [{"op": operation, "path": path, "value": value} for operation, path, value in operations]
    return {"target": {"kind": kind, "name": name}, "patch": yaml.safe_dump(steps, sort_keys=False)}


def removal(api_version: str, kind: str, name: str) -> Object:
    """Return a patch that removes an object of the base."""
    found = {"$patch": "delete", "apiVersion": api_version, "kind": kind, "metadata": {"name": name}}
    return {"patch": yaml.safe_dump(found, sort_keys=False)}


def single_patches(values: Values) -> list[Object]:
    """Return the patches for one replica: nothing scales it, and no budget holds up the drain of its node."""
    return [
        patch("Deployment", values.name, ("add", "/spec/replicas", 1)),
        patch("PersistentVolumeClaim", f"{values.name}-log", ("replace", "/spec/accessModes", ["ReadWriteOnce"])),
        removal("autoscaling/v2", "HorizontalPodAutoscaler", values.name),
        removal("policy/v1", "PodDisruptionBudget", values.name),
    ]


def production_patches(values: Values) -> list[Object]:
    """Return the patches for three replicas in different zones and on different nodes, which follow `production`.

    Both are preferences: a rollout needs a fourth place, and must not wait for a zone that is down.
    """
    selector = {"matchLabels": labels(values, API)}
    apart = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    spread = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector,
        "matchLabelKeys": ["pod-template-hash"],
    }
    affinity = {
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": apart}]}
    }
    pod_path = "/spec/template/spec"
    return [
        patch(
            "Deployment",
            values.name,
            ("add", f"{pod_path}/topologySpreadConstraints", [spread]),
            ("add", f"{pod_path}/affinity", affinity),
        ),
        patch("HorizontalPodAutoscaler", values.name, ("replace", "/spec/minReplicas", PRODUCTION_REPLICAS)),
        patch("ConfigMap", values.name, ("replace", "/data/HOUSING_ALIAS", "production")),
    ]


def single_objects(values: Values) -> dict[str, Object]:
    """Return MLflow with its database and artifacts on a local volume."""
    store = {
        "--backend-store-uri": f"sqlite:///{MLFLOW_HOME}/mlflow.db",
        "--artifacts-destination": f"{MLFLOW_HOME}/artifacts",
        "--workers": "1",
    }
    claim_name = f"{values.name}-{MLFLOW}"
    volumes: dict[str, Object] = {"store": {"persistentVolumeClaim": {"claimName": claim_name}}}
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": sources.service(MLFLOW).environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": MLFLOW_SIZE}}}
    return {
        "namespace": namespace(),
        "mlflow-volume": new_object("v1", "PersistentVolumeClaim", claim_name, labels(values, MLFLOW), spec=claim),
        "mlflow-configmap": new_object("v1", "ConfigMap", claim_name, labels(values, MLFLOW), data=settings),
        "mlflow-deployment": mlflow_deployment(values, store, volumes, [], "Recreate"),
        "mlflow-service": mlflow_service(values),
        "mlflow-networkpolicy": mlflow_network_policy(values, []),
    }


def production_objects(values: Values) -> dict[str, Object]:
    """Return MLflow on PostgreSQL and S3, whose addresses are settings and whose passwords are in a secret."""
    environment = sources.service(MLFLOW).environment
    settings = {"PGHOST": "postgres", "PGDATABASE": "mlflow", **environment}
    store = {
        "--backend-store-uri": "postgresql+psycopg2://",  # the rest is in PGHOST, PGUSER, PGPASSWORD and PGDATABASE
        "--artifacts-destination": "s3://$(ARTIFACTS)",
    }
    name = f"{values.name}-{MLFLOW}"
    egress = [allowed([], POSTGRES_PORT, HTTPS, S3_PORT)]
    return {
        "namespace": namespace(),
        "mlflow-configmap": new_object("v1", "ConfigMap", name, labels(values, MLFLOW), data=settings),
        "mlflow-deployment": mlflow_deployment(values, store, {}, [{"secretRef": {"name": STORE_SECRET}}], "RollingUpdate"),
        "mlflow-service": mlflow_service(values),
        "mlflow-networkpolicy": mlflow_network_policy(values, [dns(), *egress]),
    }


def mlflow_deployment(
    values: Values, store: dict[str, str], volumes: dict[str, Object], secrets: list[Object], strategy: str
) -> Object:
    """Return MLflow's server with the arguments of compose.yml, and other ones for its store.

    One replica: servers that start together would migrate the database at the same time.
    """
    found = sources.service(MLFLOW)
    command = list(found.command)
    for option, value in store.items():
        command[command.index(option) + 1] = value
    health = {"httpGet": {"path": "/health", "port": HTTP}, "timeoutSeconds": 10}
    server = {
        "name": MLFLOW,
        "image": values.train_image,
        "args": command,
        "envFrom": [{"configMapRef": {"name": f"{values.name}-{MLFLOW}"}}, *secrets],
        "ports": [{"name": HTTP, "containerPort": mlflow_port()}],
        "startupProbe": {**health, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {**health, "periodSeconds": 20, "failureThreshold": 3},
        "readinessProbe": {**health, "periodSeconds": 5},
        "resources": resources(MLFLOW),
        "securityContext": SECURITY_CONTEXT,
        "volumeMounts": mounts((name, MLFLOW_HOME, False) for name in volumes),
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels(values, MLFLOW)},
        "strategy": {"type": strategy},
        "template": {
            "metadata": {"labels": labels(values, MLFLOW)},
            "spec": {**pod(values, volumes, found.tmp_size), "containers": [server]},
        },
    }
    return new_object("apps/v1", "Deployment", f"{values.name}-{MLFLOW}", labels(values, MLFLOW), spec=spec)


def mlflow_service(values: Values) -> Object:
    """Return the service of MLflow. Its name is the one in the tracking URI, which MLflow accepts as a Host header."""
    spec = {"selector": labels(values, MLFLOW), "ports": [{"name": HTTP, "port": mlflow_port(), "targetPort": HTTP}]}
    return new_object("v1", "Service", MLFLOW, labels(values, MLFLOW), spec=spec)


def mlflow_network_policy(values: Values, egress: list[Object]) -> Object:
    """Return what MLflow may do: answer puller and retraining, since it has no login, and reach its store."""
    peers = [pods_of(values, API), pods_of(values, RETRAIN)]
    spec = {
        "podSelector": {"matchLabels": labels(values, MLFLOW)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [allowed(peers, HTTP, direction="from")],
        "egress": egress,
    }
    return new_object("networking.k8s.io/v1", "NetworkPolicy", f"{values.name}-{MLFLOW}", labels(values, MLFLOW), spec=spec)
