"""Real parts of a cluster, on one machine: Slurm with two nodes, PostgreSQL, an MLflow server."""

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


OWNER = "postgres"  # whom PostgreSQL runs as: it refuses root


SLURM_CONF = """\
ClusterName=housing
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Give what this machine lacks for a cluster, or nothing."""
    lacking = [name for name in SLURM if shutil.which(name) is None]
    lacking += [] if _postgres("postgres").exists() else ["postgres"]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return "" if os.getuid() == 0 else "slurmd wants root"


@contextmanager
def place() -> Iterator[Path]:
    """A short path that other users may enter, which pytest's own is not."""
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
    """A process that runs, and does its work, for as long as the block lasts."""
    with log.open("ab") as file:
        environ = {**os.environ, **(environment or {})}
        process = subprocess.Popen(arguments, env=environ, stdout=file, stderr=file, user=user)
    try:
        wait_for(lambda: process.poll() is not None or ready(), f"{arguments[0]} is ready")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield process
    finally:
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end; kill it where it does not."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(SECONDS)


@dataclass(frozen=True)
class Slurm:
    """A running Slurm, for the programs that have its environment."""

    environment: Mapping[str, str]

    def ask(self, *arguments: str) -> str:
        """Run one of Slurm's programs, and give what it prints."""
        environ = {**os.environ, **self.environment}
        return subprocess.run(arguments, env=environ, capture_output=True, text=True, check=True, timeout=SECONDS).stdout

    def idle(self) -> bool:
        """Whether every node is up and has nothing to do."""
        try:
            return self.ask("sinfo", "--noheader", "--Node", "--format=%N %T") == "".join(f"{node} idle\n" for node in NODES)
        except subprocess.CalledProcessError:
            return False


@contextmanager
def slurm(home: Path) -> Iterator[Slurm]:
    """A Slurm with two nodes of one core, both on this machine."""
    for folder in ("state", *NODES):
        (home / folder).mkdir()
    key, conf, munge = home / "munge.key", home / "slurm.conf", home / "munge.socket"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    nodes = [f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1\n" for node in NODES]
    conf.write_text(SLURM_CONF.format(host=host, port=free_port(), place=home) + "".join(nodes), encoding="utf-8")
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
    """Give the path of one of PostgreSQL's programs, which Debian keeps off the PATH."""
    found = shutil.which(program)
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return Path(found) if found else newest[-1] if newest else Path(program)


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """A PostgreSQL with one database; gives its address as MLflow wants it."""
    data, port, address = home / "postgres", str(free_port()), "127.0.0.1"
    data.mkdir()
    shutil.chown(data, OWNER)
    initdb: list[str | Path] = [_postgres("initdb"), "-D", data, "-A", "trust", "-U", "mlflow", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=home, user=OWNER)
    listen = ["-p", port, "-c", f"listen_addresses={address}", "-k", str(data)]
    ask = [str(_postgres("pg_isready")), "-h", address, "-p", port]
    with daemon([_postgres("postgres"), "-D", data, *listen], home / "postgres.log", lambda: _succeeds(*ask), user=OWNER):
        yield f"postgresql+psycopg2://mlflow@{address}:{port}/postgres"  # plain postgresql:// wants psycopg 3


def _succeeds(*arguments: str) -> bool:
    return subprocess.run(arguments, capture_output=True, check=False).returncode == 0


class MlflowServer:
    """An MLflow server that keeps runs in a database and artefacts in its own folder, unless told otherwise.

    It can be taken away and come back.
    """

    def __init__(
        self, home: Path, backend: str, artifacts: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._log, self._running = home / "mlflow.log", ExitStack()
        server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
        self._arguments = [*server, "--backend-store-uri", backend, "--artifacts-destination"]
        self._arguments.append(artifacts or str(home / "artifacts"))
        # without jobs: else seven more processes, none of which we have a use for
        self._environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **(environment or {})}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._running.enter_context(daemon(self._arguments, self._log, self.answers, self._environment))

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._running.close()
        wait_for(lambda: not self.answers(), "the MLflow server is gone")

    def answers(self) -> bool:
        """Whether it is well."""
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
