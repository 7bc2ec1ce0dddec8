"""The default model in-process: processor time of features and predictions."""

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import PYTHON, ROUNDS, TABLE, make_home, newest_bundle, project_environment, run

PROGRAM = PROJECT / "scripts" / "benchmarks" / "prediction_time.py"


def print_prediction_times() -> None:
    """Print milliseconds of requests with different rows. BASELINE=DIRECTORY measures an earlier checkout in turn."""
    checkouts = {"this commit": PROJECT}
    if "BASELINE" in os.environ:
        checkouts = {"before": Path(os.environ["BASELINE"]), **checkouts}
    with tempfile.TemporaryDirectory() as directory:
        home = make_home(directory)
        run("-m", "housing.train", "experiment=default", "figures=false", home=home)
        bundle = newest_bundle(Path(home))
        rounds = [{name: _measure(checkout, bundle) for name, checkout in checkouts.items()} for _ in range(ROUNDS)]
    print("| the default model, 1 / 100 / 1000 rows | features, ms | prediction, ms | with interval, ms |")
    print("|---|---|---|---|")
    for name in checkouts:
        cells = [
            " / ".join(f"{statistics.median(times):.3g}" for times in zip(*(row[name][call] for row in rounds), strict=True))
            for call in rounds[0][name]
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def _measure(checkout: Path, bundle: Path) -> dict[str, list[float]]:
    """Run the program of this checkout with the packages of another."""
    environ = project_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(checkout))
    command = [PYTHON, str(PROGRAM), str(bundle), str(TABLE)]
    output = subprocess.run(command, env=environ, cwd=checkout, capture_output=True, text=True, check=True).stdout
    times: dict[str, list[float]] = json.loads(output)
    return times
