"""The manifests of deploy/kubernetes: current, valid for an old and a new cluster, restricted, and the same in Helm.

No cluster is needed. The tools are packages that only tests need: locks/ci.txt.
"""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import manifests, objects, sources
from deploy.values import base_values
from tests.support import custom_resources, pod_security

Object = dict[str, Any]

OLD, NEW = "1.29", "1.37"
FOLDERS = ("base", "overlays/single", "overlays/production", "kserve")
WORKLOADS = {"base": 2, "overlays/single": 3, "overlays/production": 3, "kserve": 2}
HINT = "is not installed: locks/ci.txt"


@cache
def build(folder: str) -> list[Object]:
    """Return the objects of a folder, built by kubectl. The test is skipped if it is not installed."""
    kubectl = Path(sys.executable).parent / "kubectl"
    if not kubectl.exists():
        pytest.skip(f"kubectl {HINT}")
    command = [str(kubectl), "kustomize", str(manifests.MANIFEST_DIR / folder)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return list(yaml.safe_load_all(process.stdout))


def by_name(found: Iterable[Object]) -> dict[tuple[str, str], Object]:
    """Return objects by kind and name."""
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


def spec_of(folder: str, kind: str, name: str = "housing") -> Any:
    """Return the spec of an object."""
    return by_name(build(folder))[kind, name]["spec"]


def test_the_files_are_current() -> None:
    assert manifests.outdated() == [], "write them again: ./scripts/manifests"


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_matches_the_schema_of_kubernetes(folder: str, version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=f"kubernetes-validate {HINT}")
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which schemathesis needs, is not installed")
    for item in build(folder):
        own_schema = custom_resources.schema(item)
        if own_schema is not None:
            jsonschema.validate(item, own_schema)
        else:
            assert kubernetes_validate.validate(item, version, strict=True) == version


def test_a_misspelt_field_of_a_custom_resource_is_an_error() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which schemathesis needs, is not installed")
    monitor = objects.service_monitor(base_values())
    own_schema = custom_resources.schema(monitor)
    jsonschema.validate(monitor, own_schema)
    monitor["spec"]["endpoint"] = monitor["spec"].pop("endpoints")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, own_schema)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_is_restricted(folder: str) -> None:
    found = [pod for item in build(folder) for pod in pod_security.pods(item)]
    assert len(found) == WORKLOADS[folder]
    assert {name: pod_security.violations(pod) for name, pod in found} == {name: [] for name, _ in found}


@pytest.mark.parametrize(
    ("part", "change", "complaint"),
    [
        ("pod", {"hostNetwork": True}, "hostNetwork is set"),
        ("pod", {"securityContext": {"runAsNonRoot": True}}, "container api has no seccomp profile"),
        ("pod", {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}, "volume node has a forbidden type"),
        ("context", {"allowPrivilegeEscalation": True}, "container api may gain privileges"),
        ("context", {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}, "container api keeps capabilities"),
        ("context", {"capabilities": {}}, "container api keeps capabilities"),
        ("context", {"privileged": True}, "container api is privileged"),
        ("context", {"readOnlyRootFilesystem": False}, "container api can write to its root"),
        ("context", {"runAsUser": 0}, "container api runs as root"),
        ("container", {"ports": [{"containerPort": 80, "hostPort": 80}]}, "container api uses ports of the host"),
    ],
)
def test_a_pod_that_is_not_restricted_is_noticed(part: str, change: Object, complaint: str) -> None:
    pod = copy.deepcopy(objects.api_pod(base_values()))
    container = pod["containers"][0]
    {"pod": pod, "container": container, "context": container["securityContext"]}[part].update(change)
    assert complaint in pod_security.violations(pod)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_pod_can_talk_to_the_cluster_or_is_configured_by_the_name_of_a_service(folder: str) -> None:
    """A service named housing would set HOUSING_PORT to tcp://ADDRESS:PORT, with which the server does not start."""
    for item in build(folder):
        for name, pod in pod_security.pods(item):
            if item["apiVersion"].startswith("serving.kserve.io"):  # KServe writes these pods
                continue
            assert pod["automountServiceAccountToken"] is False, name
            assert pod["enableServiceLinks"] is False, name
            assert all(container["resources"]["limits"]["memory"] for container in pod_security.containers(pod)), name


def test_secrets_are_references() -> None:
    for folder in FOLDERS:
        built = build(folder)
        assert not [item for item in built if item["kind"] == "Secret"]
        assert not sources.SECRET.search(json.dumps([item.get("data") for item in built if item["kind"] == "ConfigMap"]))


def test_a_replica_is_replaced_before_it_ends_and_answers_until_nobody_asks_it() -> None:
    spec = spec_of("base", "Deployment")
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pod = spec["template"]["spec"]
    defaults = sources.server_defaults()
    assert objects.PRE_STOP_SECONDS > 2 and defaults["drain_seconds"] > 0
    longest = objects.PRE_STOP_SECONDS + defaults["drain_seconds"] + defaults["request_timeout_seconds"]
    assert pod["terminationGracePeriodSeconds"] > longest
    assert [(sidecar["name"], sidecar["restartPolicy"]) for sidecar in pod["initContainers"]] == [
        ("puller", "Always"),
        ("joiner", "Always"),
    ]


def test_ports_paths_and_the_user_are_those_of_the_images() -> None:
    (api,) = spec_of("base", "Deployment")["template"]["spec"]["containers"]
    settings = by_name(build("base"))["ConfigMap", "housing"]["data"]
    assert {port["name"]: str(port["containerPort"]) for port in api["ports"]} == {
        "http": settings["HOUSING_PORT"],
        "metrics": settings["HOUSING_METRICS_PORT"],
    }
    mounted = {mount["name"]: mount["mountPath"] for mount in api["volumeMounts"]}
    paths = {"published": "HOUSING_RELEASE_DIR", "log": "HOUSING_LOG_DIR", "metrics": "PROMETHEUS_MULTIPROC_DIR"}
    assert mounted == {"tmp": "/tmp", **{name: sources.image_path(variable) for name, variable in paths.items()}}


def test_one_replica_is_not_scaled_and_does_not_hold_up_a_drain() -> None:
    single = by_name(build("overlays/single"))
    assert single["Deployment", "housing"]["spec"]["replicas"] == 1
    assert not {"HorizontalPodAutoscaler", "PodDisruptionBudget"} & {kind for kind, _ in single}
    assert single["PersistentVolumeClaim", "housing-log"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_production_has_three_replicas_apart_with_postgresql_and_s3() -> None:
    production = by_name(build("overlays/production"))
    assert production["HorizontalPodAutoscaler", "housing"]["spec"]["minReplicas"] == 3
    pod = production["Deployment", "housing"]["spec"]["template"]["spec"]
    labels = production["Deployment", "housing"]["spec"]["selector"]["matchLabels"]
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone" and spread["labelSelector"]["matchLabels"] == labels
    (apart,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert apart["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    (mlflow,) = production["Deployment", "housing-mlflow"]["spec"]["template"]["spec"]["containers"]
    assert {"postgresql+psycopg2://", "s3://$(ARTIFACTS)"} < set(mlflow["args"])
    assert {"secretRef": {"name": "mlflow-store"}} in mlflow["envFrom"]


@pytest.mark.parametrize("folder", ["overlays/single", "overlays/production"])
def test_every_selector_matches_pods_of_its_overlay(folder: str) -> None:
    found = by_name(build(folder))
    pods = [item["spec"]["template"]["metadata"]["labels"] for (kind, _), item in found.items() if kind == "Deployment"]
    pods.append(found["CronJob", "housing-retrain"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"])
    assert len({json.dumps(labels) for labels in pods}) == len(pods)
    for (kind, name), item in found.items():
        spec = item.get("spec", {})
        selector = {"Service": lambda s: s["selector"], "NetworkPolicy": lambda s: s["podSelector"]["matchLabels"]}.get(kind)
        if selector:
            matching = [labels for labels in pods if selector(spec).items() <= labels.items()]
            assert len(matching) == 1, (kind, name)


def chart_objects(values: Object | None = None, release: str = "housing") -> list[Object]:
    """Return the objects that Helm renders. The test is skipped if its library is not installed."""
    helm = pytest.importorskip("helm_python", reason=f"helm-python-sdk {HINT}")
    with helm.Chart.load(str(manifests.MANIFEST_DIR / "chart")) as chart:
        rendered = chart.render(values or {}, name=release, namespace="housing")
    return [item for text in rendered.values() for item in yaml.safe_load_all(text) if item]


def test_the_chart_renders_the_objects_of_the_base() -> None:
    assert by_name(chart_objects()) == by_name(build("base"))


def test_the_values_of_the_chart_reach_its_objects() -> None:
    values = {
        "image": {"registry": "registry.example/team/", "tag": 1.2},
        "replicas": {"min": 4, "max": 40},
        "trackingUri": "https://mlflow.example",
        "resources": {"api": {"limits": {"memory": "3Gi"}}},
        "secrets": {"apiKeys": "own-keys", "mlflow": "own-login"},
        "log": {"storageClass": "nfs"},
        "retrain": {"suspend": True},
    }
    found = by_name(chart_objects(values, "prices"))
    pod = found["Deployment", "prices"]["spec"]["template"]["spec"]
    (api,) = pod["containers"]
    assert api["image"] == "registry.example/team/housing-serve:1.2"
    assert api["resources"]["limits"] == {"memory": "3Gi"}
    assert api["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "own-keys"
    assert pod["initContainers"][0]["envFrom"][1]["secretRef"]["name"] == "own-login"
    assert found["ConfigMap", "prices"]["data"]["HOUSING_TRACKING_URI"] == "https://mlflow.example"
    assert found["HorizontalPodAutoscaler", "prices"]["spec"]["minReplicas"] == 4
    assert found["PersistentVolumeClaim", "prices-log"]["spec"]["storageClassName"] == "nfs"
    assert found["CronJob", "prices-retrain"]["spec"]["suspend"] is True
    alerts = found["PrometheusRule", "prices"]["spec"]["groups"][-1]["rules"]
    assert "{{ $labels.instance }}" in str(alerts)


def promtool(*arguments: str | Path) -> None:
    """Run promtool, which must succeed. The test is skipped if it is not installed."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    process = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def test_prometheus_accepts_the_rules_which_are_those_of_the_project(tmp_path: Path) -> None:
    spec = spec_of("base", "PrometheusRule")
    assert spec["groups"] == sources.rule_groups()
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(spec), encoding="utf-8")
    promtool("check", "rules", rules)


def test_the_autoscalers_metric_counts_requests_of_clients_by_pod(tmp_path: Path) -> None:
    (rule,) = yaml.safe_load((manifests.MANIFEST_DIR / "prometheus-adapter.yaml").read_text(encoding="utf-8"))["rules"]["custom"]
    (metric,) = spec_of("base", "HorizontalPodAutoscaler")["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="housing"').replace("<<.GroupBy>>", "pod")
    series = 'housing_request_seconds_count{{namespace="housing",pod="{pod}",route="{route}"}}'
    counted = (("a", "/predict", 600), ("a", "/v2/models/<name>/infer", 60), ("a", "/readyz", 30), ("b", "/predict", 1200))
    test = {
        "rule_files": [],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": series.format(pod=pod, route=route), "values": f"0+{per_minute}x10"}
                    for pod, route, per_minute in counted
                ],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": "10m",
                        "exp_samples": [{"labels": '{pod="a"}', "value": 11}, {"labels": '{pod="b"}', "value": 20}],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "adapter.yml"
    path.write_text(yaml.safe_dump(test), encoding="utf-8")
    promtool("test", "rules", path)


def test_kserve_downloads_from_mlflow_into_the_folder_that_the_runtime_serves() -> None:
    found = by_name(build("kserve"))
    (runtime,) = found["ServingRuntime", "housing"]["spec"]["containers"]
    settings = {item["name"]: item["value"] for item in runtime["env"]}
    assert settings["HOUSING_RELEASE_DIR"] == "/mnt/models/releases"
    model = found["InferenceService", "housing-california"]["spec"]["predictor"]["model"]
    assert model["storageUri"] == "mlflow://housing-california@production"
    (supported,) = found["ClusterStorageContainer", "housing-mlflow"]["spec"]["supportedUriFormats"]
    assert model["storageUri"].startswith(supported["prefix"])
