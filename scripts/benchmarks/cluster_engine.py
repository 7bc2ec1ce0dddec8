"""Program that measures one engine for several machines with two workers of one thread on this one: dask|ray HOME [kill].

It prints one JSON object for the engine, whose packages must be installed in the environment that runs it: start-up, memory of
the idle cluster, one XGBoost fit, the end of a worker during a fit, and a sweep of the project's own command.
"""

# pylint: disable=import-outside-toplevel,import-error  # each environment has one of the two engines

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import PYTHON, cpu_seconds, project_environment
from tests.support.tables import RENTALS_SWEEP, rentals_frame

N_WORKERS, N_JOBS = 2, 20
N_ROWS, N_COLUMNS, N_TEST, N_TREES = 200_000, 20, 20_000, 100
PARAMETERS = {"objective": "reg:squarederror", "max_depth": 6, "tree_method": "hist", "nthread": 1, "seed": 0}
LIMIT_SECONDS = 60.0  # of the fit whose worker is killed


class Processes(threading.Thread):
    """The processes below this one, whose processor time is read five times a second: nobody waits for daemons."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seconds: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        """Read the times until this process ends."""
        while True:
            self.read()
            time.sleep(0.2)

    def read(self) -> float:
        """Return the processor time of all processes that were seen, in seconds."""
        for pid in self.ids():
            try:
                self._seconds[pid] = cpu_seconds(pid)
            except OSError:
                continue  # it has ended
        return sum(self._seconds.values())

    @staticmethod
    def ids() -> list[int]:
        """Return this process and all below it."""
        found = [os.getpid()]
        for pid in found:
            for thread in Path(f"/proc/{pid}/task").glob("*"):
                found += _children(pid, thread.name)
        return found

    @classmethod
    def memory_mb(cls) -> float:
        """Return the memory of all processes, with shared pages divided among them."""
        kilobytes = 0
        for pid in cls.ids():
            try:
                kilobytes += int(
                    re.findall(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8"), re.MULTILINE)[0]
                )
            except (OSError, IndexError):
                continue  # it has ended
        return kilobytes / 1000


def _children(pid: int, thread: str) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="utf-8").split()]
    except OSError:
        return []


def table(first: int, n_rows: int) -> tuple[Any, Any]:
    """Return features and target of some rows, which depend on the number of the first one."""
    random = np.random.default_rng(first)
    features = random.normal(size=(n_rows, N_COLUMNS)).astype(np.float32)
    noise = random.normal(scale=0.1, size=n_rows)
    return features, (features[:, 0] * features[:, 1] + np.sin(features[:, 2]) + features[:, 3] + noise).astype(np.float32)


def rmse(booster: Any) -> float:
    """Return the error of a model on rows that it was not fitted on."""
    import xgboost

    features, target = table(N_WORKERS, N_TEST)
    return float(np.sqrt(np.mean((booster.predict(xgboost.DMatrix(features)) - target) ** 2)))


class Dask:
    """An embedded Dask cluster as the project starts it."""

    def __init__(self) -> None:
        from housing.cluster.connection import ClusterSettings, connected

        self._connection = ExitStack()
        self.client = self._connection.enter_context(connected(ClusterSettings(None, N_WORKERS, None, 120)))
        assert self.client.submit(int, 1).result() == 1

    def fit(self) -> Any:
        """Fit over all workers."""
        import xgboost.dask
        from dask import array, delayed

        rows = N_ROWS // N_WORKERS
        parts = [delayed(table, nout=2)(first, rows) for first in range(N_WORKERS)]
        features = array.concatenate([array.from_delayed(part[0], (rows, N_COLUMNS), np.float32) for part in parts])
        target = array.concatenate([array.from_delayed(part[1], (rows,), np.float32) for part in parts])
        matrix = xgboost.dask.DaskDMatrix(self.client, features, target)
        return xgboost.dask.train(self.client, PARAMETERS, matrix, num_boost_round=N_TREES)["booster"]

    def worker(self) -> int:
        """Return the process of a worker."""
        return int(next(iter(self.client.run(os.getpid).values())))

    def stop(self) -> None:
        """End the cluster."""
        self._connection.close()


def _fit_on_ray(_: Any) -> None:
    import ray.train
    import xgboost
    from ray.train.xgboost import RayTrainReportCallback

    features, target = table(ray.train.get_context().get_world_rank(), N_ROWS // N_WORKERS)
    xgboost.train(PARAMETERS, xgboost.DMatrix(features, target), N_TREES, callbacks=[RayTrainReportCallback()])


class Ray:
    """A Ray cluster on this machine, with Ray Train for the fit."""

    def __init__(self) -> None:
        import ray

        ray.init(num_cpus=N_WORKERS, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
        ray.get(ray.remote(lambda: 1).remote())

    def fit(self) -> Any:
        """Fit over all workers, without a CPU of its own for the trainer."""
        import ray.train
        from ray.train.xgboost import RayTrainReportCallback, XGBoostTrainer

        scaling = ray.train.ScalingConfig(num_workers=N_WORKERS, resources_per_worker={"CPU": 1})
        folder = ray.train.RunConfig(storage_path=str(Path(sys.argv[2], "ray").absolute()))
        result = XGBoostTrainer(_fit_on_ray, train_loop_config={}, scaling_config=scaling, run_config=folder).fit()
        return RayTrainReportCallback.get_model(result.checkpoint)

    def worker(self) -> int:
        """Return the process of a worker that trains."""
        while True:
            for pid in Processes.ids():
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "RayTrainWorker" in words or "ray::_RayTrainWorker" in words:
                    return pid
            time.sleep(0.2)

    def stop(self) -> None:
        """End the cluster."""
        import ray

        ray.shutdown()


def timed(processes: Processes, action: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return the value of an action, its seconds and its processor time."""
    cpu, start = processes.read(), time.perf_counter()
    value = action()
    seconds = time.perf_counter() - start
    return value, seconds, processes.read() - cpu


def kill_during_fit(engine: Dask | Ray) -> str:
    """Kill a worker two seconds after a fit has begun, and return what became of the fit."""
    outcome = ["is still waiting"]

    def fit() -> None:
        try:
            outcome[0] = f"finished with RMSE {rmse(engine.fit()):.4f}"
        except Exception as error:  # pylint: disable=broad-exception-caught  # what it is, is the result
            outcome[0] = f"raised {type(error).__name__}: {str(error).splitlines()[0][:200]}"

    thread = threading.Thread(target=fit, daemon=True)
    start = time.perf_counter()
    thread.start()
    worker = engine.worker()
    time.sleep(2)
    os.kill(worker, signal.SIGKILL)
    thread.join(LIMIT_SECONDS)
    return f"{outcome[0]} after {time.perf_counter() - start:.0f} s"


def sweep(name: str, home: Path) -> None:
    """Run a sweep of quick jobs by the project's command."""
    (home / "data").mkdir(parents=True)
    rentals_frame().to_csv(home / "data" / "rentals.csv", index=False)
    options = {
        "dask": [f"hydra.launcher.workers={N_WORKERS}"],
        "ray": [
            f"+hydra.launcher.ray.init.num_cpus={N_WORKERS}",
            "+hydra.launcher.ray.init.include_dashboard=false",
            "+hydra.launcher.ray.remote.num_cpus=1",
        ],
    }
    jobs = ["model=decision_tree", f"model.estimator.max_depth=range(2,{2 + N_JOBS})"]
    command = [PYTHON, "-m", "housing.train", *RENTALS_SWEEP, *jobs, f"hydra/launcher={name}", *options[name]]
    done = subprocess.run(
        command, cwd=PROJECT, env=project_environment(HOUSING_HOME=str(home)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])


def main() -> None:
    """Measure one engine."""
    name, home = sys.argv[1], Path(sys.argv[2])
    processes = Processes()
    before = processes.memory_mb()
    engine, start_seconds, start_cpu = timed(processes, Dask if name == "dask" else Ray)
    figures: dict[str, Any] = {"start_seconds": start_seconds, "start_cpu": start_cpu, "idle_mb": processes.memory_mb() - before}
    print(json.dumps(figures), flush=True)
    booster, figures["fit_seconds"], figures["fit_cpu"] = timed(processes, engine.fit)
    figures["rmse"] = rmse(booster)
    print(json.dumps(figures), flush=True)
    if len(sys.argv) > 3:
        figures["kill"] = kill_during_fit(engine)
        print(json.dumps(figures), flush=True)
    engine.stop()
    _, figures["sweep_seconds"], figures["sweep_cpu"] = timed(processes, lambda: sweep(name, home / "sweep"))
    print(json.dumps(figures), flush=True)
    os._exit(0)  # whatever a killed worker has left behind


if __name__ == "__main__":
    main()
