"""Program that times a sweep on one and on two nodes of a real Slurm on this machine: HOME ROUNDS."""

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.hydra_plugins.test_process_launcher import QUICK
from tests.support import cluster
from tests.support.commands import command
from tests.support.tables import rentals_frame

N_JOBS = 12


def main() -> None:
    """Print a line for each sweep: number of nodes, seconds, jobs by node."""
    home, rounds = Path(sys.argv[1]), int(sys.argv[2])
    (home / "data").mkdir()
    rentals_frame().to_csv(home / "data" / "rentals.csv", index=False)
    with ExitStack() as stack:
        directory = stack.enter_context(cluster.shared_directory())
        slurm = stack.enter_context(cluster.slurm(directory))
        mlflow = stack.enter_context(cluster.MlflowServer(directory, stack.enter_context(cluster.postgres(directory))))
        os.environ.update({**slurm.environment, "MLFLOW_TRACKING_URI": mlflow.address})
        for round_ in range(rounds):
            for nodes, exclude in ((1, "n1"), (2, "null")):
                first = N_JOBS * (2 * round_ + nodes)
                sweep = ["model=slow", f"seed=range({first},{first + N_JOBS})", f"hydra.launcher.exclude={exclude}"]
                start = time.perf_counter()
                process = command(home, "housing.train", *QUICK, "mlflow=server", "hydra/launcher=slurm", *sweep)
                seconds = time.perf_counter() - start
                assert process.code == 0, process.err
                jobs = [
                    line.split()
                    for line in slurm.ask("squeue", "--noheader", "--array", "--states=all", "--format=%F %N").splitlines()
                ]
                last = max(int(job_id) for job_id, _ in jobs)
                node_names = [node for job_id, node in jobs if int(job_id) == last]
                print(nodes, seconds, *(f"{node}:{node_names.count(node)}" for node in sorted(set(node_names))), flush=True)


if __name__ == "__main__":
    main()
