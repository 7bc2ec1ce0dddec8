"""Pods of the manifests on a container engine: what the kubelet, a service and a rollout do with them.

Security context, probes, volumes, environment, life cycle and grace period are those of the pod. What a scheduler, a controller
and the network of a cluster do is only imitated: a service sends new connections to pods that are ready, and hears of the
end of a pod a moment after it began.
"""

import asyncio
import json
import os
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import docker_engine as engine
from tests.support.docker_engine import address, docker, inspect
from tests.support.waiting import wait_for

Object = dict[str, Any]

PROPAGATION_SECONDS = 2.0  # until all nodes know that a pod ends; less than the preStop hook
START_SECONDS = 240  # a busy machine is slower than the probes allow
SIGKILLED = 137


@dataclass
class Cluster:
    """Config maps, secrets and claimed volumes, and the network of the pods."""

    directory: Path
    objects: dict[tuple[str, str], Object]
    secrets: dict[str, dict[str, str]]
    network: str
    pods: list["Pod"] = field(default_factory=list)

    def start(self, spec: Object, alias: str = "", files: dict[str, Path] | None = None) -> "Pod":
        """Start a pod. An alias is the name of its service; files are copied into its volumes before."""
        pod = Pod(self, spec, alias, f"{self.network}-{uuid.uuid4().hex[:6]}")
        self.pods.append(pod)
        pod.start(files or {})
        return pod

    def claim(self, name: str) -> Path:
        """Return the folder of a claimed volume."""
        return self.directory / f"claim-{name}"

    def variables(self, container: Object) -> dict[str, str]:
        """Return the environment of a container from config maps, secrets and its own variables."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.objects["ConfigMap", source["configMapRef"]["name"]]["data"]
            else:
                found |= self.secrets[source["secretRef"]["name"]] if self._has_secret(source["secretRef"]) else {}
        for variable in container.get("env", []):
            key = variable.get("valueFrom", {}).get("secretKeyRef")
            found[variable["name"]] = self.secrets[key["name"]][key["key"]] if key else variable["value"]
        return found

    def _has_secret(self, reference: Object) -> bool:
        exists = reference["name"] in self.secrets
        assert exists or reference.get("optional"), f"there is no secret {reference['name']}"
        return exists


@contextmanager
def cluster(directory: Path, objects: dict[tuple[str, str], Object], secrets: dict[str, dict[str, str]]) -> Iterator[Cluster]:
    """Make a network for pods, and remove it with all pods at the end."""
    network = f"housing-pods-{uuid.uuid4().hex[:6]}"
    docker("network", "create", network)
    created = Cluster(directory, objects, secrets, network)
    try:
        yield created
    finally:
        for pod in created.pods:
            pod.remove()
        docker("network", "rm", network, check=False)


class Pod:  # pylint: disable=too-many-instance-attributes  # a pod has many parts
    """The containers of a pod, in one network namespace."""

    def __init__(self, cluster_: Cluster, spec: Object, alias: str, name: str) -> None:
        self.cluster, self.spec, self.alias, self.name = cluster_, spec, alias, name
        self.is_ready, self.is_ending = False, False
        self.address = ""
        self.failures: list[str] = []  # of the liveness probe, and containers that did not end in time
        self._sandbox = f"{name}-sandbox"
        self._main = spec["containers"]
        init = spec.get("initContainers", [])
        self._sidecars = [container for container in init if container.get("restartPolicy") == "Always"]
        self._init = [container for container in init if container not in self._sidecars]
        self._folders = {volume["name"]: self._folder(volume) for volume in spec["volumes"]}
        self._stop_probing = threading.Event()
        self._prober = threading.Thread(target=self._probe_forever, daemon=True)

    def container(self, name: str) -> str:
        """Return the name of a container in the engine."""
        return f"{self.name}-{name}"

    def start(self, files: dict[str, Path]) -> None:
        """Start init containers one after the other, then sidecars, then the others, and begin to probe."""
        for volume, path in files.items():
            (self._folders[volume] / path.parent.name).mkdir(exist_ok=True)
            copied = self._folders[volume] / path.parent.name / path.name
            copied.write_bytes(path.read_bytes())
            _give(self._folders[volume], self._group)
        sandbox = ("--entrypoint=sleep", f"--network={self.cluster.network}", "--no-healthcheck")
        alias = (f"--network-alias={self.alias}",) if self.alias else ()
        docker("run", "--detach", f"--name={self._sandbox}", *sandbox, *alias, _tagged(self._main[0]["image"]), "infinity")
        self.address = address(self._sandbox)
        for container in self._init:
            docker("run", *self._options(container))
        for container in (*self._sidecars, *self._main):
            docker("run", "--detach", *self._options(container))
        self._prober.start()

    def wait(self) -> str:
        """Wait until all containers have ended, as those of a job. Return their output, which must be one of success."""
        codes = [docker("wait", self.container(container["name"])) for container in self._main]
        output = "".join(docker("logs", self.container(container["name"]), check=False) for container in self._main)
        assert codes == ["0"] * len(codes), output[-4000:]
        return output

    def wait_until_ready(self) -> None:
        """Wait until the readiness probe passes."""
        wait_for(lambda: self.is_ready, f"{self.name} is ready", START_SECONDS)

    def end(self) -> None:
        """End the pod within its grace period: preStop and the image's stop signal, then SIGKILL; sidecars after the others."""
        self.is_ending = True
        deadline = time.monotonic() + self.spec["terminationGracePeriodSeconds"]
        for container in self._main:
            hook = container.get("lifecycle", {}).get("preStop")
            if hook:
                docker("exec", self.container(container["name"]), *hook["exec"]["command"])
        for container in (*self._main, *reversed(self._sidecars)):
            name = self.container(container["name"])
            docker("stop", f"--time={max(1, round(deadline - time.monotonic()))}", name)
            if inspect(name, ".State.ExitCode") == str(SIGKILLED):
                self.failures.append(f"{container['name']} was killed")
        self.remove()

    def remove(self) -> None:
        """Remove all containers."""
        self._stop_probing.set()
        self.is_ready = False
        names = [self.container(container["name"]) for container in (*self._init, *self._sidecars, *self._main)]
        docker("rm", "--force", "--volumes", *names, self._sandbox, check=False)

    def _folder(self, volume: Object) -> Path:
        """Return the folder that stands for a volume. Without memory as a medium, it is on disk."""
        claim = volume.get("persistentVolumeClaim")
        if claim:
            folder = self.cluster.claim(claim["claimName"])
        else:
            assert "emptyDir" in volume, volume
            folder = self.cluster.directory / f"{self.name}-{volume['name']}"
        folder.mkdir(exist_ok=True)
        _give(folder, self._group)
        return folder

    @property
    def _group(self) -> int:
        return int(self.spec.get("securityContext", {}).get("fsGroup", 0))

    def _options(self, container: Object) -> list[str]:
        """Return the arguments of docker for a container, from its security context, volumes, limits and environment."""
        context = {**self.spec.get("securityContext", {}), **container["securityContext"]}
        assert context["runAsNonRoot"] and context["runAsUser"] != 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}  # that of the engine, unless an option changes it
        assert not context["allowPrivilegeEscalation"] and context["readOnlyRootFilesystem"]
        options = [
            f"--name={self.container(container['name'])}",
            f"--network=container:{self._sandbox}",
            f"--user={context['runAsUser']}:{context['runAsGroup']}",
            "--security-opt=no-new-privileges",
            "--read-only",
            "--no-healthcheck",
            f"--memory={container['resources']['limits']['memory'].removesuffix('i').lower()}",
            *(f"--cap-drop={name}" for name in context["capabilities"]["drop"]),
        ]
        options += [f"--group-add={self._group}"] if self._group else []
        options += [f"--env={name}={value}" for name, value in self.cluster.variables(container).items()]
        for mount in container.get("volumeMounts", []):
            mode = ":ro" if mount.get("readOnly") else ""
            options.append(f"--volume={self._folders[mount['name']]}:{mount['mountPath']}{mode}")
        command = container.get("command", [])
        options += [f"--entrypoint={command[0]}"] if command else []
        return [*options, _tagged(container["image"]), *command[1:], *container.get("args", [])]

    def _probe_forever(self) -> None:
        """Probe the first container as the kubelet does, until the pod is removed."""
        container = self._main[0]
        startup, readiness, liveness = (container.get(f"{name}Probe") for name in ("startup", "readiness", "liveness"))
        while not (startup is None or self._passes(startup)) and not self._stop_probing.is_set():
            self._stop_probing.wait(startup["periodSeconds"])
        misses = {"readiness": 0, "liveness": 0}
        next_liveness = 0.0
        while readiness and not self._stop_probing.wait(readiness["periodSeconds"]):
            misses["readiness"] = 0 if self._passes(readiness) else misses["readiness"] + 1
            if misses["readiness"] == 0:
                self.is_ready = not self._stop_probing.is_set()
            elif misses["readiness"] >= readiness.get("failureThreshold", 3):
                self.is_ready = False
            if liveness and time.monotonic() >= next_liveness and not self.is_ending:
                next_liveness = time.monotonic() + liveness["periodSeconds"]
                misses["liveness"] = 0 if self._passes(liveness) else misses["liveness"] + 1
                if misses["liveness"] >= liveness["failureThreshold"] and not self.is_ending:
                    self.failures.append("the liveness probe failed: the container would be restarted")

    def _passes(self, probe: Object) -> bool:
        check = probe["httpGet"]
        port = next(port["containerPort"] for port in self._main[0]["ports"] if port["name"] == check["port"])
        url = f"http://{self.address}:{port}{check['path']}"
        with suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=probe["timeoutSeconds"]) as response:
            return bool(response.status < 400)
        return False


class Service:
    """A service in front of pods: it sends each new connection to one that is ready, and keeps those that it has."""

    def __init__(self, pods: list[Pod]) -> None:
        self.pods = pods
        self._ends: dict[str, float] = {}
        self._turn = 0

    def endpoint(self) -> str | None:
        """Return the address of the next pod. A pod that ends is one of them for a moment."""
        now = time.monotonic()
        for pod in self.pods:
            if pod.is_ending:
                self._ends.setdefault(pod.name, now)
        candidates = [pod for pod in self.pods if pod.is_ready and now - self._ends.get(pod.name, now) < PROPAGATION_SECONDS]
        self._turn += 1
        return candidates[self._turn % len(candidates)].address if candidates else None

    @contextmanager
    def running(self, port: int) -> Iterator[int]:
        """Listen on a free port of this machine and pass connections to the port of the pods. Yield the free port."""
        started = threading.Event()
        found: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                chosen = self.endpoint()
                if chosen is not None:
                    upstream_reader, upstream_writer = await asyncio.open_connection(chosen, port)
                    await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))
            except (OSError, asyncio.CancelledError):
                pass  # the client sees a closed connection
            finally:
                writer.close()

        async def serve() -> None:
            server, stop = await asyncio.start_server(connect, "127.0.0.1", 0), asyncio.Event()
            found.append((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()
            server.close()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)  # run() cancels what is still open
        thread.start()
        started.wait()
        port_here, loop, stop = found[0]
        try:
            yield port_here
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on one direction of a connection, and its end."""
    try:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


def rolling_update(service: Service, cluster_: Cluster, spec: Object) -> None:
    """Replace all pods of a service: a new one is ready before an old one ends."""
    for old in list(service.pods):
        new = cluster_.start(spec)
        service.pods.append(new)
        new.wait_until_ready()
        old.end()
        service.pods.remove(old)


def drain(service: Service, cluster_: Cluster, old: Pod) -> None:
    """Evict a pod from its node: it ends while its replacement starts, and the others answer."""
    new = cluster_.start(old.spec)
    service.pods.append(new)
    old.end()
    service.pods.remove(old)
    new.wait_until_ready()


def _tagged(image: str) -> str:
    """Return an image of the manifests with the tag of the tests."""
    return f"{image.partition(':')[0]}:{engine.VERSION}"


def _give(folder: Path, group: int) -> None:
    """Give a folder to a group as the kubelet does with fsGroup; without a group, everyone may write to it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, -1, group or -1)
        path.chmod(0o2777 if path.is_dir() else 0o664)


def ask(url: str, body: object = None, key: str = "") -> Any:
    """Send a request and return the JSON of the response."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as response:
        return json.load(response)
