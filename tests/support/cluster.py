"""Cluster services on one machine: Slurm with two nodes, PostgreSQL and an MLflow server."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.server import free_port
from tests.support.waiting import SECONDS, wait_for

NODES = ("n1", "n2")


SLURM = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")


OWNER = "postgres"  # the user of PostgreSQL, which refuses to run as root


SLURM_CONF = """\
ClusterName=housing
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={home}/munge.socket
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MaxArraySize=4
KillWait=5
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Return why this machine cannot run a cluster, or an empty string."""
    missing_programs = [name for name in SLURM if shutil.which(name) is None]
    missing_programs += [] if _postgres("postgres").exists() else ["postgres"]
    if missing_programs:
        return f"not installed: {', '.join(missing_programs)}"
    return "" if os.getuid() == 0 else "slurmd requires root"


@contextmanager
def shared_directory() -> Iterator[Path]:
    """Create a directory with a short path that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def daemon(
    arguments: Sequence[str | Path],
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a background process and wait until it is ready."""
    with log.open("ab") as file:
        environ = {**os.environ, **(environment or {})}
        process = subprocess.Popen(arguments, env=environ, stdout=file, stderr=file, user=user)
    try:
        wait_for(lambda: process.poll() is not None or ready(), f"{arguments[0]} is ready")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield process
    finally:
        stop_process(process)


def stop_process(process: "subprocess.Popen[bytes]") -> None:
    """Terminate a process, and kill it after a timeout."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(SECONDS)


@dataclass(frozen=True)
class Slurm:
    """A running Slurm cluster and the environment of its clients."""

    environment: Mapping[str, str]

    def ask(self, *arguments: str) -> str:
        """Run one of Slurm's programs and return its output."""
        environ = {**os.environ, **self.environment}
        return subprocess.run(arguments, env=environ, capture_output=True, text=True, check=True, timeout=SECONDS).stdout

    def idle(self) -> bool:
        """Return whether every node is up and idle."""
        try:
            return self.ask("sinfo", "--noheader", "--Node", "--format=%N %T") == "".join(f"{node} idle\n" for node in NODES)
        except subprocess.CalledProcessError:
            return False


@contextmanager
def slurm(home: Path) -> Iterator[Slurm]:
    """Run Slurm with two nodes of one core, both on this machine."""
    for folder in ("state", *NODES):
        (home / folder).mkdir()
    key, conf, munge = home / "munge.key", home / "slurm.conf", home / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    nodes = [f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1\n" for node in NODES]
    conf.write_text(SLURM_CONF.format(host=host, port=free_port(), home=home) + "".join(nodes), encoding="utf-8")
    files = [f"--{name}={home}/munge.{name.partition('-')[0]}" for name in ("pid-file", "log-file", "seed-file")]
    environment = {"SLURM_CONF": str(conf)}
    slurm_ = Slurm(environment)
    with ExitStack() as stack:
        auth = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}", *files]
        stack.enter_context(daemon(auth, home / "munged.log", munge.exists))
        control = ["slurmctld", "-D", "-c", "-f", str(conf)]
        stack.enter_context(daemon(control, home / "slurmctld.log", (home / "slurmctld.pid").exists, environment))
        for node in NODES:
            log = home / f"{node}.log"
            stack.enter_context(daemon(["slurmd", "-D", "-N", node, "-f", conf], log, lambda: True, environment))
        wait_for(slurm_.idle, "both nodes are idle")
        yield slurm_


def _postgres(program: str) -> Path:
    """Return the path of one of PostgreSQL's programs, which Debian keeps off the PATH."""
    on_path = shutil.which(program)
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return Path(on_path) if on_path else newest[-1] if newest else Path(program)


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """Run PostgreSQL with one database, and yield its address in the form that MLflow expects."""
    data, port, address = home / "postgres", str(free_port()), "127.0.0.1"
    data.mkdir()
    shutil.chown(data, OWNER)
    initdb: list[str | Path] = [_postgres("initdb"), "-D", data, "-A", "trust", "-U", "mlflow", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=home, user=OWNER)
    listen = ["-p", port, "-c", f"listen_addresses={address}", "-k", str(data)]
    ask = [str(_postgres("pg_isready")), "-h", address, "-p", port]
    with daemon([_postgres("postgres"), "-D", data, *listen], home / "postgres.log", lambda: _succeeds(*ask), user=OWNER):
        yield f"postgresql+psycopg2://mlflow@{address}:{port}/postgres"  # plain postgresql:// needs psycopg 3


def _succeeds(*arguments: str) -> bool:
    return subprocess.run(arguments, capture_output=True, check=False).returncode == 0


class MlflowServer:
    """An MLflow server with runs in a database and, by default, artifacts in its own folder.

    Tests can stop and restart it.
    """

    def __init__(
        self,
        home: Path,
        backend: str,
        artifacts: str | None = None,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        port = free_port()
        self.address = f"http://{host}:{port}"
        self._log, self._running = home / "mlflow.log", ExitStack()
        server = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "2"]
        self._arguments = [*server, "--backend-store-uri", backend, "--artifacts-destination"]
        self._arguments.append(artifacts or str(home / "artifacts"))
        # without jobs: they would start seven more processes that no test uses
        self._environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        self._running.enter_context(daemon(self._arguments, self._log, self.answers, self._environment))

    def stop(self) -> None:
        """Stop the server, and wait until it no longer responds."""
        self._running.close()
        wait_for(lambda: not self.answers(), "the MLflow server has stopped")

    def answers(self) -> bool:
        """Return whether the health check passes."""
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
