"""Objects for KServe: how it downloads `mlflow://` addresses, what serves them, and an example."""

from deploy import sources
from deploy.objects import SECURITY_CONTEXT, Object, mounts, new_object, ports, probes
from deploy.values import Values

MODEL_DIRECTORY = "/mnt/models"  # where KServe mounts what the storage container has downloaded
RELEASES = f"{MODEL_DIRECTORY}/releases"
FORMAT = "housing"
SCHEME = "mlflow://"
LABELS = {"app.kubernetes.io/name": "housing", "app.kubernetes.io/component": "kserve"}


def kserve_objects(values: Values) -> dict[str, Object]:
    """Return all objects by the names of their files."""
    return {
        "clusterstoragecontainer": storage_container(values),
        "servingruntime": serving_runtime(values),
        "inferenceservice": inference_service(values),
    }


def storage_container(values: Values) -> Object:
    """Return what downloads a model. KServe adds two arguments, the address and the directory, and mounts the directory."""
    container = {
        "name": "storage-initializer",  # KServe knows it by this name
        "image": values.pull_image,
        "command": ["python", "-m", "housing.serving.storage_initializer"],
        "env": [
            *({"name": name, "value": value} for name, value in sources.service("puller").environment.items()),
            {"name": "HOME", "value": MODEL_DIRECTORY},
        ],
        "envFrom": [{"secretRef": {"name": values.mlflow_secret, "optional": True}}],
        "resources": values.resources["puller"],
        "securityContext": user_security_context(),
    }
    spec = {"container": container, "supportedUriFormats": [{"prefix": SCHEME}], "workloadType": "initContainer"}
    return new_object("serving.kserve.io/v1alpha1", "ClusterStorageContainer", f"{values.name}-mlflow", LABELS, spec=spec)


def user_security_context() -> Object:
    """Return the security context of a container whose pod KServe writes."""
    user = {"runAsNonRoot": True, "runAsUser": sources.user_id(), "runAsGroup": sources.user_id()}
    return {**SECURITY_CONTEXT, **user, "seccompProfile": {"type": "RuntimeDefault"}}


def serving_runtime(values: Values) -> Object:
    """Return what serves a downloaded model, with the Open Inference Protocol, under the name of its InferenceService."""
    api = sources.service("api")
    volumes = [mount for mount in api.mounts if not mount.read_only]
    settings = {
        "HOUSING_MODEL": "{{.Name}}",
        "HOUSING_RELEASE_DIR": RELEASES,
        "HOUSING_PORT": str(sources.server_defaults()["port"]),
        "HOUSING_METRICS_PORT": str(ports()[1]["containerPort"]),
    }
    container = {
        "name": "kserve-container",
        "image": values.serve_image,
        "env": [{"name": name, "value": value} for name, value in settings.items()],
        "ports": [{**ports()[0], "protocol": "TCP"}],
        **probes(),
        "resources": values.resources["api"],
        "securityContext": user_security_context(),
        "volumeMounts": mounts((mount.volume, mount.path, False) for mount in volumes),
    }
    spec = {
        "supportedModelFormats": [{"name": FORMAT, "autoSelect": True}],
        "protocolVersions": ["v2"],
        "annotations": {"prometheus.kserve.io/port": settings["HOUSING_METRICS_PORT"], "prometheus.kserve.io/path": "/metrics"},
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in (*(mount.volume for mount in volumes), "tmp")],
    }
    return new_object("serving.kserve.io/v1alpha1", "ServingRuntime", values.name, LABELS, spec=spec)


def inference_service(values: Values) -> Object:
    """Return an example: the version at the alias `production` when its pods start."""
    model = {
        "modelFormat": {"name": FORMAT},
        "runtime": values.name,
        "protocolVersion": "v2",
        "storageUri": f"{SCHEME}{values.model}@production",
    }
    predictor = {"minReplicas": 1, "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}, "model": model}
    return new_object("serving.kserve.io/v1beta1", "InferenceService", values.model, LABELS, spec={"predictor": predictor})
