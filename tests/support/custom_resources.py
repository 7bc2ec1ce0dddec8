"""Schemas of custom resources: the fields that their controllers require, and no misspelt field beside those that are known."""

from typing import Any


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    fields = {**required, **optional}
    return {"type": "object", "required": list(required), "properties": fields, "additionalProperties": False}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
ANY_OBJECT = {"type": "object"}
DURATION = {"type": "string", "pattern": r"^(\d+(ms|[smhdwy]))+$"}
QUANTITY_OR_NUMBER = {"type": "integer", "minimum": 0}

CONTAINER = _object(
    {"name": TEXT, "image": TEXT, "resources": ANY_OBJECT, "securityContext": ANY_OBJECT},
    args=_list(TEXT),
    command=_list(TEXT),
    env=_list(ANY_OBJECT),
    envFrom=_list(ANY_OBJECT),
    ports=_list(_object({"containerPort": QUANTITY_OR_NUMBER}, name=TEXT, protocol={"enum": ["TCP"]})),
    volumeMounts=_list(_object({"name": TEXT, "mountPath": TEXT}, readOnly={"type": "boolean"})),
    startupProbe=ANY_OBJECT,
    livenessProbe=ANY_OBJECT,
    readinessProbe=ANY_OBJECT,
)

RULE = {
    "oneOf": [
        _object({"record": TEXT, "expr": TEXT}, labels=TEXTS),
        _object({"alert": TEXT, "expr": TEXT, "annotations": TEXTS}, labels=TEXTS, **{"for": DURATION}),
    ]
}

SPECS: dict[tuple[str, str], dict[str, Any]] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _object(
        {
            "selector": _object({"matchLabels": TEXTS}),
            "endpoints": _list(_object({"port": TEXT}, path=TEXT, interval=DURATION)),
        },
        jobLabel=TEXT,
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _object(
        {"groups": _list(_object({"name": TEXT, "rules": _list(RULE)}, interval=DURATION))}
    ),
    ("serving.kserve.io/v1alpha1", "ClusterStorageContainer"): _object(
        {
            "container": {**CONTAINER, "properties": {**CONTAINER["properties"], "name": {"const": "storage-initializer"}}},
            "supportedUriFormats": _list(_object({"prefix": TEXT})),
        },
        workloadType={"enum": ["initContainer"]},
    ),
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): _object(
        {
            "supportedModelFormats": _list(_object({"name": TEXT}, autoSelect={"type": "boolean"})),
            "containers": _list(
                {**CONTAINER, "properties": {**CONTAINER["properties"], "name": {"const": "kserve-container"}}},
            ),
        },
        protocolVersions=_list({"enum": ["v1", "v2", "grpc-v2"]}),
        annotations=TEXTS,
        volumes=_list(_object({"name": TEXT, "emptyDir": ANY_OBJECT})),
    ),
    ("serving.kserve.io/v1beta1", "InferenceService"): _object(
        {
            "predictor": _object(
                {
                    "model": _object(
                        {"modelFormat": _object({"name": TEXT}), "storageUri": TEXT}, runtime=TEXT, protocolVersion=TEXT
                    )
                },
                minReplicas=QUANTITY_OR_NUMBER,
                securityContext=ANY_OBJECT,
            )
        }
    ),
}


def schema(custom_resource: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of an object, or None if it is not a known custom resource."""
    spec = SPECS.get((custom_resource["apiVersion"], custom_resource["kind"]))
    metadata = _object({"name": {**TEXT, "pattern": "^[a-z0-9.-]{1,63}$"}}, labels=TEXTS, namespace=TEXT)
    return spec and _object({"apiVersion": TEXT, "kind": TEXT, "metadata": metadata, "spec": spec})
