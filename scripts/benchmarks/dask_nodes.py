"""Program that times a sweep on one and on two nodes of a Dask cluster on this machine, beside the process launcher: HOME ROUNDS.

A node is a network namespace with one worker of one thread and a limit of memory. Run it as root.
"""

import os
import resource
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.hydra_plugins.test_process_launcher import QUICK
from tests.support import network_nodes
from tests.support.cluster import MlflowServer
from tests.support.commands import fresh_command
from tests.support.tables import rentals_frame

N_JOBS = 40
SWEEP = ("housing.train", *QUICK, "mlflow=server", "model=slow", f"model.estimator.n_estimators=range(100,{100 + N_JOBS})")
PLACES = ("processes, 2 at a time", "Dask, 1 node", "Dask, 2 nodes")


def main() -> None:
    """Print the medians of all rounds for each place where the jobs can run. The places alternate."""
    home, rounds = Path(sys.argv[1]), int(sys.argv[2])
    (home / "data").mkdir()
    rentals_frame().to_csv(home / "data" / "rentals.csv", index=False)
    figures: dict[str, list[tuple[float, float]]] = {place: [] for place in PLACES}
    with ExitStack() as stack:
        network = stack.enter_context(network_nodes.network())
        mlflow = stack.enter_context(MlflowServer(home, f"sqlite:///{home}/server.db", host=network.address))
        os.environ["MLFLOW_TRACKING_URI"] = mlflow.address
        for round_ in range(rounds):
            for index, place in enumerate(PLACES):
                figures[place].append(_measure(place, home, network, f"round-{round_}-{index}"))
    print(f"| {N_JOBS} jobs | wall time, s | CPU, s |\n|---|---:|---:|")
    for place, pairs in figures.items():
        seconds, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"| {place} | {seconds:.0f} | {cpu:.0f} |")


def _measure(place: str, home: Path, network: network_nodes.Network, experiment: str) -> tuple[float, float]:
    """Return the seconds of a sweep, and its processor time with that of its cluster but not of MLflow's server."""
    launcher, number = place.split(", ")
    count, before = int(number.split()[0]), _cpu()
    with ExitStack() as stack:
        if launcher == "Dask":
            cluster = stack.enter_context(network_nodes.DaskCluster(network, home, range(count)))
            options = ["hydra/launcher=dask", f"hydra.launcher.address={cluster.address}"]
        else:
            options = ["hydra/launcher=processes", f"hydra.launcher.n_jobs={count}"]
        start = time.perf_counter()
        result = fresh_command(home, *SWEEP, *options, f"experiment_name={experiment}", OMP_NUM_THREADS="1")
        seconds = time.perf_counter() - start
        assert result.code == 0, result.out + result.err
    return seconds, _cpu() - before  # now that all processes of the cluster have ended


def _cpu() -> float:
    """Return the processor time of all processes that have ended below this one, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
