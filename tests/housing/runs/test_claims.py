"""Claims: two processes on different machines never fit the same run, although no lock file of one reaches the other."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from housing.tracking.store import Store
from tests.hydra_plugins.test_process_launcher import SLOW, jobs
from tests.support.cluster import MlflowServer
from tests.support.commands import CommandResult, fresh_command
from tests.support.homes import copy_home


@pytest.mark.long
def test_two_equal_sweeps_without_a_shared_disk_fit_each_job_once(home: Path) -> None:
    machines = [home / "machine-1", home / "machine-2"]
    for machine in machines:
        copy_home(home / "data", machine / "data")
        (machine / "tmp").mkdir()

    def sweep(machine: Path) -> CommandResult:
        return fresh_command(machine, *SLOW, "mlflow=server", MLFLOW_TRACKING_URI=server.address, TMPDIR=str(machine / "tmp"))

    with MlflowServer(home, f"sqlite:///{home}/server.db") as server:
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(sweep, machines))
        store = Store(server.address, artifact_root=None, ui="")
        runs = store.client.api.search_runs([store.client.experiment_id("rentals")], "tags.`housing.run_type` = 'run'")
        assert [result.code for result in results] == [0, 0], results
        assert Counter((run.info.status, run.data.params["seed"]) for run in runs) == {("FINISHED", seed): 1 for seed in "123456"}
        assert sum(job["reused"] for machine in machines for job in jobs(machine)) == 6
