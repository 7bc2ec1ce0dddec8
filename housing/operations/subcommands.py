"""Subcommands of a retraining: the project's own commands, run with the options that they share with the command line."""

import re
import subprocess
import sys

from hydra.core.hydra_config import HydraConfig

from housing.core.environment import project_folder
from housing.core.printable import show

SHARED_OVERRIDES = re.compile(r"\+*(data|mlflow|paths|experiment_name)[.=]|hydra\.searchpath=")
PROMOTE_OVERRIDES = re.compile(r"\+*(registered_model|decisions_experiment|actor|approval_required|serve|events|signing_key)[.=]")


def run_command(module: str, *arguments: str) -> None:
    """Run a command of the project with the config directories and shared overrides of this command line.

    The exit code is ignored: the results are in the MLflow store.
    """
    sources = HydraConfig.get().runtime.config_sources
    directories = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
    command = [module, *directories, *arguments, *matching_overrides(SHARED_OVERRIDES)]  # options must precede overrides
    show(f"\n$ python -m {' '.join(command)}")
    with subprocess.Popen([sys.executable, "-m", *command], cwd=project_folder()) as process:
        try:
            process.wait()
        except BaseException:  # interrupted: the subcommand closes its runs
            process.terminate()
            raise


def matching_overrides(pattern: re.Pattern[str]) -> list[str]:
    """Return the overrides of this command line that match a pattern."""
    overrides = HydraConfig.get().overrides
    return [override for override in (*overrides.hydra, *overrides.task) if pattern.match(override)]
