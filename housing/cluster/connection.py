"""Connection to a Dask cluster: processes on this machine, jobs of a batch system (Slurm), or the scheduler at an address."""

# pylint: disable=import-outside-toplevel  # Dask is an optional package, and its import takes a second

import asyncio
import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate

from housing.core.errors import ClusterError, ConfigError
from housing.core.validators import POSITIVE, Validator, integer, optional

if TYPE_CHECKING:
    from distributed import Client

ADDRESS = Validator(
    "the address of a Dask scheduler, such as tcp://10.0.0.1:8786",
    lambda value: isinstance(value, str) and value.partition("://")[0] in ("tcp", "tls") and value.rpartition(":")[2].isdecimal(),
)
LOOPBACK = "127.0.0.1"
EMBEDDED_WORKER = "housing.cluster.embedded_worker"  # a module that each worker imports
GIGABYTE = 10**9  # bytes
POLL_SECONDS = 0.1  # between two looks whether the jobs of a batch system were submitted
REPLACE_SECONDS = 5.0  # between two looks for jobs of a batch system that ended with their workers
# the scheduler warns of each lost worker with all its keys, and a nanny of each process that takes its time to end
LOG_LEVELS = {"distributed": "WARNING", "distributed.scheduler": "ERROR", "distributed.nanny": "ERROR"}
LOG_LEVELS |= {"distributed.nanny.memory": "WARNING"}  # of a worker that is ended at its limit of memory
LOG_LEVELS |= {"distributed.client": "CRITICAL", "distributed.utils": "CRITICAL"}  # a lost scheduler is an error of the command


@dataclass(frozen=True)
class ClusterSettings:
    """Settings of a connection.

    Attributes
    ----------
    address
        Address of a scheduler; None starts an embedded cluster, which nobody on another machine can reach.
    workers
        Number of workers of the embedded cluster. Each is a process of one thread.
    memory_gb
        Memory of each of these workers in gigabytes, at which its supervisor ends it; None sets no limit.
    timeout_seconds
        How long to wait for the scheduler and its first worker.
    cluster
        Class of a Dask cluster (`_target_`) and its options; the command then starts one of `workers` workers.
    """

    address: str | None
    workers: int
    memory_gb: float | None
    timeout_seconds: float
    cluster: Mapping[str, Any] | None = None

    @classmethod
    def from_config(cls, node: Mapping[str, Any], name: str) -> Self:
        """Return the settings in the config node of this name. Raises ConfigError for an invalid value."""
        validators = {
            "address": optional(ADDRESS),
            "workers": integer(1),
            "memory_gb": optional(POSITIVE),
            "timeout_seconds": POSITIVE,
        }
        for key, validator in validators.items():
            validator.validate(f"{name}.{key}", node[key])
        cluster = node.get("cluster")
        if cluster is not None and node["address"] is not None:
            raise ConfigError(
                f"{name}.address must be null if {name}.cluster starts a scheduler of its own (got {node['address']!r})."
            )
        if cluster is not None:
            _import_class(cluster["_target_"], f"{name}.cluster")
        return cls(**{key: node[key] for key in validators}, cluster=cluster)

    def worker_hint(self, address: str) -> str:
        """Return in a sentence what to do if the scheduler at this address has too few workers."""
        if self.cluster is None:
            return f"Start workers with the same code and environment: dask worker {address} --nthreads 1."
        folder = self.cluster.get("log_directory") or "this folder"
        return f"See the queue of the batch system, and the logs of its jobs in {folder}."


def require_dask() -> None:
    """Raise ConfigError if Dask is not installed."""
    if find_spec("distributed") is None:
        raise ConfigError("Work on a Dask cluster needs the package distributed. Install it: pip install 'housing[cluster]'")


@contextmanager
def connected(settings: ClusterSettings) -> Iterator["Client"]:
    """Connect to a Dask cluster that has at least one worker, for the duration of the block.

    A cluster that this command starts ends with the block. Dask's dashboard is off in an embedded one.

    Raises
    ------
    ConfigError
        If Dask is not installed, or a cluster class or one of its options does not exist.
    ClusterError
        If no scheduler answers in time, it has no worker, or the batch system refuses its jobs.
    """
    require_dask()
    from distributed import Client

    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    with ExitStack() as stack:
        if settings.cluster is not None:
            cluster = stack.enter_context(_batch_cluster(settings.cluster, settings.workers))
            address, scheduler = cluster.scheduler_address, cluster
        else:
            address = scheduler = settings.address or stack.enter_context(_embedded_cluster(settings))
        try:
            client = stack.enter_context(Client(scheduler, timeout=settings.timeout_seconds))
        except OSError as error:
            raise ClusterError(
                f"No Dask scheduler answered at {address} within {settings.timeout_seconds:g} s. Start it on that machine:"
                f" dask scheduler --port {address.rpartition(':')[2]}"
            ) from error
        try:
            client.wait_for_workers(1, timeout=settings.timeout_seconds)
        except TimeoutError as error:
            raise ClusterError(
                f"The Dask scheduler at {address} has no worker after {settings.timeout_seconds:g} s."
                f" {settings.worker_hint(address)}"
            ) from error
        yield client


def require_cluster(settings: ClusterSettings) -> None:
    """Raise ConfigError or ClusterError, as `connected` does, if a later connection could not work.

    ConfigError is raised within a job of a Dask worker, too: the workers that the job needs may all be waiting in the same way.
    """
    require_dask()
    from distributed import get_worker

    with suppress(ValueError):  # there is no worker
        get_worker()
        raise ConfigError(
            "engine=dask cannot be used in a job of hydra/launcher=dask, since the jobs take the threads of its workers."
            " Run the jobs one after the other: hydra/launcher=basic"
        )
    if settings.address is not None:
        with connected(settings):
            return


@contextmanager
def _embedded_cluster(settings: ClusterSettings) -> Iterator[str]:
    """Start worker processes on this machine and yield the address of their scheduler, which listens on the loopback only."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=settings.workers,
        threads_per_worker=1,
        processes=True,
        host=LOOPBACK,
        memory_limit=0 if settings.memory_gb is None else int(settings.memory_gb * GIGABYTE),
        dashboard_address=f"{LOOPBACK}:0",  # of the page for health checks, which Dask always serves: any free port
        scheduler_kwargs={"dashboard": False},
        preload=[EMBEDDED_WORKER],
    ) as cluster:
        yield cluster.scheduler_address


@contextmanager
def _batch_cluster(config: Mapping[str, Any], workers: int) -> Iterator[Any]:
    """Start a scheduler in this process and workers as jobs of a batch system, and replace jobs that end with their workers."""
    from tornado.ioloop import PeriodicCallback

    target = config["_target_"]
    logging.getLogger("tornado.application").setLevel(logging.CRITICAL)  # it logs what is raised here, with a traceback
    try:
        cluster = instantiate(config)
    except InstantiationException as error:
        raise ConfigError(
            f"Could not create {target}: {_cause(error)}. Expected options of this class: python -m pydoc {target}"
        ) from error
    with cluster:
        replacement = PeriodicCallback(partial(_replace_jobs, cluster, workers), REPLACE_SECONDS * 1000)
        try:
            cluster.sync(_submit_jobs, cluster, workers)
            cluster.loop.add_callback(replacement.start)
            yield cluster
        finally:
            cluster.loop.add_callback(replacement.stop)
            _forget_refused_jobs(cluster)


def _import_class(target: str, name: str) -> None:
    """Import the class of a cluster. Raises ConfigError if it does not exist.

    dask-jobqueue 0.9 takes Ctrl-C over when it is imported, and would end an interrupted command with exit code 0.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        get_class(target)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"Could not import {name}._target_={target}: {_cause(error)}. Expected the class of a Dask cluster; Slurm's needs:"
            " pip install 'housing[cluster]'"
        ) from error
    finally:
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


async def _submit_jobs(cluster: Any, workers: int) -> None:
    """Submit the jobs of all workers. Raises ClusterError with the message of the batch system if it refuses one."""
    cluster.scale(workers)
    while not cluster.workers:  # Dask submits the jobs in the background, and logs an error instead of raising it
        await asyncio.sleep(POLL_SECONDS)
    try:
        await asyncio.gather(*cluster.workers.values())  # submits a job again that was refused
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"{type(cluster).__name__} could not start its jobs: {_cause(error)}") from error


def _replace_jobs(cluster: Any, workers: int) -> None:
    """Submit jobs in the place of those that ended with their workers."""
    _forget_refused_jobs(cluster)
    cluster.scale(workers)


def _forget_refused_jobs(cluster: Any) -> None:
    """Remove refused jobs from a cluster, which then submits them again and does not wait for their end."""
    from distributed import Status

    for name, job in list(cluster.workers.items()):
        if job.status == Status.created:
            job.status = Status.failed
            del cluster.workers[name]


def _cause(error: BaseException) -> str:
    """Return the last line of an error, which is the message of the program or class that failed."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
