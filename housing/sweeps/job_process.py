"""A job in the process that runs it: what Hydra's `run_job` does, without its copies of the config."""

import os
import socket
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, env_override, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from housing.core.errors import ClusterError
from housing.core.own_project import make_own_modules_importable


def import_libraries() -> None:
    """Import what the first job needs, which takes seconds."""
    import housing.runs.run  # pylint: disable=import-outside-toplevel,unused-import  # noqa: F401


@lru_cache(maxsize=1)
def _load_shared(shared: bytes) -> Any:
    """Return Hydra's context and the task function, and set Hydra's global state, once for the jobs of a launcher."""
    hydra_context, task_function, state = cloudpickle.loads(shared)
    Singleton.set_state(state)
    setup_globals()
    return hydra_context, task_function


def run(shared: bytes, job: bytes) -> tuple[int, Any]:
    """Run one job and return its status with its value or error message: not every error can be pickled."""
    hydra_context, task_function = _load_shared(shared)
    result = _run_pickled_job(hydra_context, task_function, job)
    value = result._return_value  # pylint: disable=protected-access  # the public attribute raises the error
    return result.status.value, value if result.status == JobStatus.COMPLETED else f"{type(value).__name__}: {value}"


def run_on_worker(environment: Mapping[str, str], folder: str, sweep_folder: str, shared: bytes, job: bytes) -> tuple[int, Any]:
    """Run one job on a worker that was not started for it: with variables and working directory of the launcher's process.

    Raises
    ------
    ClusterError
        If the worker has no folder of this name, or does not see the folder of the sweep.
    """
    os.environ.update(environment)
    for path in (Path(folder), Path(folder, sweep_folder)):
        if not path.is_dir():
            raise ClusterError(
                f"The worker on {socket.gethostname()} has no folder {path}. Project and HOUSING_HOME must be at the same path on"
                " all machines, on a shared file system."
            )
    os.chdir(folder)
    make_own_modules_importable()
    return run(shared, job)


def _run_pickled_job(hydra_context: HydraContext, task_function: TaskFunction, pickled_config: bytes) -> JobReturn:
    """Run one job in its folder, and return its status with its value or its error.

    Hydra copies a config four times for each job, which takes 0.03 s of processor time. Unpickling it twice takes 0.003 s: one
    has the node `hydra`, the task gets the other without it. `hydra.output_subdir` is not supported, as each run logs its config.
    """
    config, task_config = cloudpickle.loads(pickled_config), cloudpickle.loads(pickled_config)
    with read_write(task_config), open_dict(task_config):
        del task_config["hydra"]
    folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(folder)
    OmegaConf.set_readonly(config.hydra, True)
    result = JobReturn(overrides=list(config.hydra.overrides.task), cfg=task_config)
    previous_config, previous_folder = HydraConfig.instance().cfg, Path.cwd()
    HydraConfig.instance().cfg = cast(Any, config)
    try:
        if config.hydra.job.chdir:
            os.chdir(folder)
        configure_log(config.hydra.job_logging, config.hydra.verbose)
        with env_override(config.hydra.job.env_set):
            hydra_context.callbacks.on_job_start(config=config, task_function=task_function)
            _call(task_function, task_config, result)
        hydra_context.callbacks.on_job_end(config=config, job_return=result)
    finally:
        HydraConfig.instance().cfg = previous_config
        os.chdir(previous_folder)
    return result


def _call(task_function: TaskFunction, config: DictConfig, result: JobReturn) -> None:
    try:
        result.return_value = task_function(config)
        result.status = JobStatus.COMPLETED
    except Exception as error:  # pylint: disable=broad-exception-caught  # of this job alone; the launcher reports it
        result.return_value, result.status = error, JobStatus.FAILED
