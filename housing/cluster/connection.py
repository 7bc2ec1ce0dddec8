"""Connection to a Dask cluster: an embedded one of processes on this machine, or the scheduler at an address."""

# pylint: disable=import-outside-toplevel  # Dask is an optional package, and its import takes a second

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

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
    """

    address: str | None
    workers: int
    memory_gb: float | None
    timeout_seconds: float

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
        return cls(*(node[key] for key in validators))


def require_dask() -> None:
    """Raise ConfigError if Dask is not installed."""
    if find_spec("distributed") is None:
        raise ConfigError("Work on a Dask cluster needs the package distributed. Install it: pip install 'housing[cluster]'")


@contextmanager
def connected(settings: ClusterSettings) -> Iterator["Client"]:
    """Connect to a Dask cluster that has at least one worker, for the duration of the block.

    An embedded cluster ends with the block. Dask's dashboard is off in it.

    Raises
    ------
    ConfigError
        If Dask is not installed.
    ClusterError
        If no scheduler answers in time, or it has no worker.
    """
    require_dask()
    from distributed import Client

    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    with ExitStack() as stack:
        address = settings.address or stack.enter_context(_embedded_cluster(settings))
        try:
            client = stack.enter_context(Client(address, timeout=settings.timeout_seconds))
        except OSError as error:
            raise ClusterError(
                f"No Dask scheduler answered at {address} within {settings.timeout_seconds:g} s. Start it on that machine:"
                f" dask scheduler --port {address.rpartition(':')[2]}"
            ) from error
        try:
            client.wait_for_workers(1, timeout=settings.timeout_seconds)
        except TimeoutError as error:
            raise ClusterError(
                f"The Dask scheduler at {address} has no worker after {settings.timeout_seconds:g} s. Start workers with the same"
                f" code and environment: dask worker {address} --nthreads 1"
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
