"""The objects of the base: API with puller and joiner, retraining, and what exposes, scales, protects and watches them."""

from collections.abc import Iterable
from typing import Any

from deploy import sources
from deploy.values import COMPOSE_SERVICES, Values

Object = dict[str, Any]

API, RETRAIN, MLFLOW = "api", "retrain", "mlflow"  # components
HTTP, METRICS = "http", "metrics"  # names of ports
METRIC = "housing_requests_per_second"  # what deploy/kubernetes/prometheus-adapter.yaml makes of the request counter
PRE_STOP_SECONDS = 5  # until every node has stopped sending new connections; the server still keeps its connections
SPARE_SECONDS = 3  # of the grace period
TMP = "/tmp"  # nosec B108  # a volume of the pod

SECURITY_CONTEXT: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def pod_security_context() -> Object:
    """Return the security context of every pod."""
    user = sources.user_id()
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def labels(values: Values, component: str) -> dict[str, str]:
    """Return the labels of an object. Alerts know the API by the first one."""
    prefix = "app.kubernetes.io"
    return {f"{prefix}/name": "housing", f"{prefix}/instance": values.name, f"{prefix}/component": component}


def new_object(api_version: str, kind: str, name: str, object_labels: dict[str, str], **fields: Any) -> Object:
    """Return an object with its metadata."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": object_labels}, **fields}


def base_objects(values: Values) -> dict[str, Object]:
    """Return the objects of the base by the names of their files."""
    return {
        "serviceaccount": service_account(values),
        "configmap": config_map(values),
        "log": log_claim(values),
        "deployment": deployment(values),
        "service": service(values),
        "poddisruptionbudget": disruption_budget(values),
        "horizontalpodautoscaler": autoscaler(values),
        "networkpolicy": network_policy(values),
        "cronjob": retraining(values),
        "networkpolicy-retrain": retraining_network_policy(values),
        "servicemonitor": service_monitor(values),
        "prometheusrule": prometheus_rule(values),
    }


def service_account(values: Values) -> Object:
    """Return an account without a token: no container talks to the cluster's API."""
    return new_object("v1", "ServiceAccount", values.name, labels(values, API), automountServiceAccountToken=False)


def config_map(values: Values) -> Object:
    """Return the settings. conf/serve.yaml has all others."""
    defaults = sources.server_defaults()
    settings = {
        **sources.service("api").environment,
        "HOUSING_MODEL": values.model,
        "HOUSING_ALIAS": values.alias,
        "HOUSING_TRACKING_URI": values.tracking_uri,
        "HOUSING_PORT": str(defaults["port"]),
        "HOUSING_DRAIN_SECONDS": str(defaults["drain_seconds"]),
        "MLFLOW_TRACKING_URI": values.tracking_uri,
    }
    return new_object("v1", "ConfigMap", values.name, labels(values, API), data=settings)


def log_claim(values: Values) -> Object:
    """Return the volume of the prediction log. Replicas share it: feedback can reach another one than its prediction."""
    spec = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": values.log_size}},
        **values.log_class,
    }
    return new_object("v1", "PersistentVolumeClaim", f"{values.name}-log", labels(values, API), spec=spec)


def deployment(values: Values) -> Object:
    """Return the API with its sidecars. The autoscaler sets the number of replicas."""
    spec = {
        "selector": {"matchLabels": labels(values, API)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "minReadySeconds": 5,
        "revisionHistoryLimit": 5,
        "template": {"metadata": {"labels": labels(values, API)}, "spec": api_pod(values)},
    }
    return new_object("apps/v1", "Deployment", values.name, labels(values, API), spec=spec)


def api_pod(values: Values) -> Object:
    """Return the pod of the API. Its sidecars end after it, so that the joiner sees the last feedback."""
    metrics: Object = {"medium": "Memory", "sizeLimit": sources.metrics_size()}
    volumes: dict[str, Object] = {
        "published": {"emptyDir": {}},
        "metrics": {"emptyDir": metrics},
        "log": {"persistentVolumeClaim": {"claimName": f"{values.name}-log"}},
    }
    puller = {**container(values, "puller", values.pull_image), "envFrom": settings_and_login(values)}
    joiner = container(values, "joiner", values.pull_image)
    return {
        **pod(values, volumes, sources.service("api").tmp_size),
        "terminationGracePeriodSeconds": grace_period(),
        "initContainers": [{**sidecar, "restartPolicy": "Always"} for sidecar in (puller, joiner)],
        "containers": [api_container(values)],
    }


def grace_period() -> int:
    """Return the seconds between the end of a pod's life and SIGKILL: every request that began in time is answered."""
    defaults = sources.server_defaults()
    drain, request = defaults["drain_seconds"], defaults["request_timeout_seconds"]
    return PRE_STOP_SECONDS + int(drain) + int(request) + sources.graceful_timeout() + SPARE_SECONDS


def pod(values: Values, volumes: dict[str, Object], tmp_size: str) -> Object:
    """Return what all pods have in common."""
    return {
        "serviceAccountName": values.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # else a service named housing would set HOUSING_PORT to an address
        "securityContext": pod_security_context(),
        "volumes": [
            *({"name": name, **volume} for name, volume in volumes.items()),
            {"name": "tmp", "emptyDir": {"sizeLimit": tmp_size}},
        ],
    }


def container(values: Values, name: str, image: str) -> Object:
    """Return a container with command, environment and volumes of its service in compose.yml."""
    found = sources.service(COMPOSE_SERVICES[name])
    settings = sources.service("api").environment
    environment = {key: value for key, value in found.environment.items() if key not in settings}
    return {
        "name": name,
        "image": image,
        **({"args": found.command} if found.command else {}),
        "envFrom": [{"configMapRef": {"name": values.name}}],
        **({"env": [{"name": key, "value": value} for key, value in environment.items()]} if environment else {}),
        "resources": values.resources[name],
        "securityContext": SECURITY_CONTEXT,
        "volumeMounts": mounts((mount.volume, mount.path, mount.read_only) for mount in found.mounts),
    }


def mounts(volumes: Iterable[tuple[str, str, bool]]) -> list[Object]:
    """Return the mounts of volumes (name, path, whether it is read-only) and of /tmp."""
    found = [{"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})} for name, path, read_only in volumes]
    return [*found, {"name": "tmp", "mountPath": TMP}]


def settings_and_login(values: Values) -> list[Object]:
    """Return the sources of variables of a container that talks to MLflow, which needs no login by default."""
    return [{"configMapRef": {"name": values.name}}, {"secretRef": {"name": values.mlflow_secret, "optional": True}}]


def api_container(values: Values) -> Object:
    """Return the container of the workers, with keys, ports and probes."""
    keys = {"secretKeyRef": {"name": values.keys_secret, "key": "keys"}}
    return {
        **container(values, API, values.serve_image),
        "env": [{"name": "HOUSING_KEYS", "valueFrom": keys}],
        "ports": ports(),
        **probes(),
        # the node sends SIGTERM after it; meanwhile endpoints disappear everywhere
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP_SECONDS)]}}},
    }


def ports() -> list[Object]:
    """Return the ports of the workers."""
    metrics_port = int(sources.service("api").environment["HOUSING_METRICS_PORT"])
    return [
        {"name": HTTP, "containerPort": sources.server_defaults()["port"]},
        {"name": METRICS, "containerPort": metrics_port},
    ]


def probes() -> Object:
    """Return the probes. A server without a model is alive and not ready, so that it is not restarted for it."""
    check = sources.health_check()
    alive, ready = (
        {"httpGet": {"path": path, "port": HTTP}, "timeoutSeconds": check.timeout} for path in ("/healthz", "/readyz")
    )
    return {
        "startupProbe": {**alive, "periodSeconds": 1, "failureThreshold": 2 * check.start_period},
        "livenessProbe": {**alive, "periodSeconds": check.interval, "failureThreshold": check.retries},
        "readinessProbe": {**ready, "periodSeconds": 2, "failureThreshold": 3},
    }


def service(values: Values) -> Object:
    """Return the service of the API."""
    exposed = [
        {"name": HTTP, "port": 80, "targetPort": HTTP},
        {"name": METRICS, "port": ports()[1]["containerPort"], "targetPort": METRICS},
    ]
    return new_object("v1", "Service", values.name, labels(values, API), spec={"selector": labels(values, API), "ports": exposed})


def disruption_budget(values: Values) -> Object:
    """Return the budget of evictions: one replica at a time, and those that are not ready at once."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": labels(values, API)},
    }
    return new_object("policy/v1", "PodDisruptionBudget", values.name, labels(values, API), spec=spec)


def autoscaler(values: Values) -> Object:
    """Return the autoscaler on requests of clients per second and replica."""
    metric = {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": values.requests_per_second}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": values.name},
        "minReplicas": values.min_replicas,
        "maxReplicas": values.max_replicas,
        "metrics": [{"type": "Pods", "pods": metric}],
        "behavior": {
            "scaleDown": {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
        },
    }
    return new_object("autoscaling/v2", "HorizontalPodAutoscaler", values.name, labels(values, API), spec=spec)


def allowed(peers: list[Object], *numbers: int | str, direction: str = "to") -> Object:
    """Return a rule of a network policy for TCP ports; without peers, for all of them."""
    rule: Object = {"ports": [{"port": number, "protocol": "TCP"} for number in numbers]}
    return {direction: peers, **rule} if peers else rule


def dns() -> Object:
    """Return the rule that lets a pod look up names."""
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    peer = {"namespaceSelector": namespace, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    return {"to": [peer], "ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]}


def pods_of(values: Values, component: str) -> Object:
    """Return the peer of a network policy that stands for the pods of a component."""
    return {"podSelector": {"matchLabels": labels(values, component)}}


def mlflow_port() -> int:
    """Return the port of MLflow's server."""
    command = sources.service("mlflow").command
    return int(command[command.index("--port") + 1])


def network_policy(values: Values) -> Object:
    """Return what the API may do: answer clients, let Prometheus scrape it, and read from MLflow."""
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": values.monitoring_namespace}}}
    spec = {
        "podSelector": {"matchLabels": labels(values, API)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [allowed([], HTTP), allowed([monitoring], METRICS, direction="from")],
        "egress": [dns(), allowed([], mlflow_port(), 443)],  # the address of MLflow is a setting
    }
    return new_object("networking.k8s.io/v1", "NetworkPolicy", values.name, labels(values, API), spec=spec)


def retraining(values: Values) -> Object:
    """Return the job that retrains on a schedule. What it has finished is in MLflow, so it keeps no volume."""
    train = sources.service("train")
    run = {
        **container(values, RETRAIN, values.train_image),
        "command": ["python", "-m", "housing.retrain"],
        "args": ["mlflow=server", f"data={values.table}"],
        "envFrom": settings_and_login(values),
    }
    template = {
        "metadata": {"labels": labels(values, RETRAIN)},
        "spec": {
            **pod(values, {"work": {"emptyDir": {}}}, train.tmp_size),
            "restartPolicy": "Never",
            "containers": [run],
        },
    }
    spec = {
        "schedule": values.retrain_schedule,
        "suspend": values.retrain_suspend,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "metadata": {"labels": labels(values, RETRAIN)},
            "spec": {"backoffLimit": 2, "activeDeadlineSeconds": 6 * 3600, "template": template},
        },
    }
    return new_object("batch/v1", "CronJob", f"{values.name}-retrain", labels(values, RETRAIN), spec=spec)


def retraining_network_policy(values: Values) -> Object:
    """Return what a retraining may do: write to MLflow, and download the table."""
    spec = {
        "podSelector": {"matchLabels": labels(values, RETRAIN)},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [dns(), allowed([], mlflow_port(), 443)],
    }
    return new_object("networking.k8s.io/v1", "NetworkPolicy", f"{values.name}-retrain", labels(values, RETRAIN), spec=spec)


def service_monitor(values: Values) -> Object:
    """Return what Prometheus scrapes. The label makes the job `housing`, which alerts name."""
    spec = {
        "jobLabel": "app.kubernetes.io/name",
        "selector": {"matchLabels": labels(values, API)},
        "endpoints": [{"port": METRICS, "path": "/metrics", "interval": "15s"}],
    }
    return new_object("monitoring.coreos.com/v1", "ServiceMonitor", values.name, labels(values, API), spec=spec)


def prometheus_rule(values: Values) -> Object:
    """Return the recording rules and alerts of prometheus/."""
    spec = {"groups": sources.rule_groups()}
    return new_object("monitoring.coreos.com/v1", "PrometheusRule", values.name, labels(values, API), spec=spec)


def adapter_rules() -> Object:
    """Return the values of the prometheus-adapter chart that give the autoscaler its metric."""
    counter = "housing_request_seconds_count"
    query = f'sum by (<<.GroupBy>>) (rate({counter}{{<<.LabelMatchers>>,route!~"{sources.probe_routes()}"}}[2m]))'
    rule = {
        "seriesQuery": f'{counter}{{namespace!="",pod!=""}}',
        "resources": {"overrides": {name: {"resource": name} for name in ("namespace", "pod")}},
        "name": {"as": METRIC},
        "metricsQuery": query,
    }
    return {"rules": {"custom": [rule]}}
