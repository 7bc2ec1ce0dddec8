"""The restricted profile of Kubernetes' pod security standards, and a read-only root, as a check of pods."""

from collections.abc import Iterator
from typing import Any

ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")


def pods(kubernetes_object: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each pod in an object, with a name."""
    kind, spec = kubernetes_object["kind"], kubernetes_object.get("spec", {})
    name = f"{kind} {kubernetes_object['metadata']['name']}"
    match kind:
        case "Deployment":
            yield name, spec["template"]["spec"]
        case "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]["spec"]
        case "ServingRuntime":
            yield name, spec
        case "ClusterStorageContainer":
            yield name, {"containers": [spec["container"]]}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def violations(pod: dict[str, Any]) -> list[str]:
    """Return what the restricted profile forbids in a pod. A setting of a container goes before the one of its pod."""
    context = pod.get("securityContext", {})
    found = [f"{field} is set" for field in HOST_FIELDS if pod.get(field)]
    found += [
        f"volume {volume['name']} has a forbidden type"
        for volume in pod.get("volumes", [])
        if not (volume.keys() - {"name"}) <= ALLOWED_VOLUMES
    ]
    for container in containers(pod):
        own = container.get("securityContext", {})
        merged = {**context, **own}
        capabilities = own.get("capabilities", {})
        conditions = {
            "runs as root": merged.get("runAsNonRoot") is True and merged.get("runAsUser") != 0,
            "may gain privileges": own.get("allowPrivilegeEscalation") is False,
            "is privileged": not own.get("privileged"),
            "keeps capabilities": capabilities.get("drop") == ["ALL"]
            and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "has no seccomp profile": merged.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "can write to its root": own.get("readOnlyRootFilesystem") is True,
            "uses ports of the host": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"container {container['name']} {name}" for name, holds in conditions.items() if not holds]
    return found
