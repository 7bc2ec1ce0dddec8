"""The pods of the manifests on a container engine: training, rollout and drain under load, and a model for KServe.

The containers have the security context, probes, volumes, environment, life cycle and grace period of the manifests. No cluster
runs: scheduling, network policies, the autoscaler and KServe's controller are not tested.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy import kserve
from tests.deployment.test_kubernetes import build, by_name
from tests.support import docker_engine as engine
from tests.support.docker_engine import callers, clone
from tests.support.pods import Cluster, Pod, Service, ask, cluster, drain, rolling_update
from tests.support.server import new_key

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "nothing is missing")]

QUICK = 'sweep_overrides=["model=linear","features=none","refit=false","interval=none","figures=false"]'
QUICK_GATE = 'promote_overrides=["evaluate=quick"]'
PORT = 8000


@dataclass(frozen=True)
class Installation:
    """The overlay of one replica, with MLflow and a trained model, and a key of its API."""

    cluster: Cluster
    key: str

    def spec(self, kind: str, name: str) -> Any:
        """Return a copy of the pod of a workload."""
        spec = copy.deepcopy(self.cluster.objects[kind, name]["spec"])
        return (spec["jobTemplate"]["spec"] if kind == "CronJob" else spec)["template"]["spec"]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, real_home: Path) -> Iterator[Installation]:
    """Build the images, start MLflow and run the job that retrains."""
    directory = tmp_path_factory.mktemp("pods")
    objects = by_name(build("overlays/single"))
    engine.build(clone(directory / "clone"))
    key, line = new_key("one", "predict")
    directory.chmod(0o755)
    with cluster(directory, objects, {"housing-keys": {"keys": line}}) as created:
        installed = Installation(created, key)
        mlflow = created.start(installed.spec("Deployment", "housing-mlflow"), alias="mlflow")
        mlflow.wait_until_ready()
        table = directory / "data" / "california.csv"
        table.parent.mkdir()
        shutil.copy(real_home / "data" / "california.csv", table)
        job = installed.spec("CronJob", "housing-retrain")
        job["containers"][0]["args"] += [QUICK, QUICK_GATE]
        assert "PROMOTE" in created.start(job, files={"work": table}).wait()
        yield installed


def example(pod: Pod, key: str) -> object:
    """Return the example row of the model that a pod serves."""
    return ask(f"http://{pod.address}:{PORT}/model", key=key)["example"]


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_rollout_and_a_drain_under_load_fail_no_request(installation: Installation, keep_alive: bool) -> None:
    spec = installation.spec("Deployment", "housing")
    pods = [installation.cluster.start(spec) for _ in range(2)]
    for pod in pods:
        pod.wait_until_ready()
    service, row = Service(list(pods)), example(pods[0], installation.key)
    with (
        service.running(PORT) as port,
        callers("127.0.0.1", row, keep_alive, port=port, key=installation.key) as results,
    ):
        if keep_alive:
            rolling_update(service, installation.cluster, spec)
            updated = list(service.pods)
        else:
            updated = pods
        drain(service, installation.cluster, service.pods[0])
    print(f"keep_alive={keep_alive}: {results.requests} requests, {len(results.failed)} failed")
    everyone = {pod.name: pod for pod in (*pods, *updated, *service.pods)}
    for pod in service.pods:
        pod.remove()
    assert results.requests > 100
    assert not results.failed
    assert {name: pod.failures for name, pod in everyone.items()} == {name: [] for name in everyone}


def test_kserve_serves_a_model_from_mlflow(installation: Installation) -> None:
    objects = by_name(build("kserve"))
    storage = objects["ClusterStorageContainer", "housing-mlflow"]["spec"]["container"]
    runtime = objects["ServingRuntime", "housing"]["spec"]
    name = objects["InferenceService", "housing-california"]["metadata"]["name"]
    runtime = json.loads(json.dumps(runtime).replace("{{.Name}}", name))
    # as KServe: two arguments and a volume for the one, and the volume for the other, read-only
    models = {"name": "kserve-provision-location", "mountPath": kserve.MODEL_DIRECTORY}
    arguments = [f"{kserve.SCHEME}{name}@staging", kserve.MODEL_DIRECTORY]
    runtime["initContainers"] = [{**storage, "args": arguments, "volumeMounts": [models]}]
    runtime["containers"][0]["volumeMounts"].append({**models, "readOnly": True})
    runtime["volumes"].append({"name": models["name"], "emptyDir": {}})
    pod = installation.cluster.start(runtime)
    pod.wait_until_ready()
    url = f"http://{pod.address}:{PORT}/v2/models/{name}"
    assert ask(f"{url}/ready")["ready"] is True
    metadata = ask(url)
    assert (metadata["name"], metadata["versions"]) == (name, ["1"])
    row = example(pod, "")
    assert isinstance(row, dict)
    inputs = [{**column, "shape": [1], "data": [row[column["name"]]]} for column in metadata["inputs"]]
    answer = ask(f"{url}/infer", {"inputs": inputs})
    assert answer["outputs"][0]["data"] == ask(f"http://{pod.address}:{PORT}/predict", row)["predictions"]
    pod.remove()
    assert not pod.failures
