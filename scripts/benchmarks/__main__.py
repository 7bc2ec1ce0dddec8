"""Command that measures and prints the tables of docs/explanation/benchmarks.md.

    scripts/bench [NAME ...]      without a name: all of them
    scripts/bench anytable FOLDER FILE=TARGET ...      tables of your own, instead of the tutorial's; also for `tables`
    scripts/bench automl FOLDER FILE=TARGET ...      the same, beside PEERS=flaml,mljar (default all), in MINUTES=5 (default 1)
    scripts/bench encodings FOLDER TABLE ...      tables of your own (FOLDER/data/TABLE.yaml), instead of a generated one
    scripts/bench texts FOLDER TABLE=COLUMN ...      tables of your own with a text, instead of a generated one
    scripts/bench intervals FOLDER FILE=TARGET ...      tables of your own, instead of California

All need the real table in data/ (python -m housing.fetch). ROUNDS=5 changes the number of rounds (default 3).
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from housing.core.environment import PROJECT
from scripts.benchmarks import (
    adaptive_intervals,
    any_table,
    automl,
    cleaning,
    code_size,
    columns,
    description,
    encodings,
    engines,
    error_estimate,
    footprint,
    grpc_cost,
    inference_protocol,
    intervals,
    many_models,
    models,
    multivariate_drift,
    predictions,
    quality,
    scale,
    splits,
    sweeps,
    tables,
    texts,
    thirds,
)
from scripts.benchmarks import serving as serving_peers
from scripts.benchmarks.processes import PYTHON, ROUNDS, project_environment


def kills() -> None:
    """Print the losses of sweeps that are killed and restarted, and the number of failed cold starts."""
    _run_program("kills", "5")


def serving() -> None:
    """Print requests per second of the server and of its peers, side by side in one run. Needs wrk."""
    _require("wrk")
    serving_peers.print_peers()


def protocol() -> None:
    """Print requests per second of the Open Inference Protocol and of MLServer, and of binary bodies. Needs wrk."""
    _require("wrk")
    inference_protocol.print_protocol()


def grpc() -> None:
    """Print what a request costs the server over gRPC and over REST, without a model. Needs wrk."""
    _require("wrk")
    grpc_cost.print_grpc()


def several_models() -> None:
    """Print memory, latency and failed requests of one worker with 100 models. Needs wrk."""
    _require("wrk")
    many_models.print_many_models()


def attacks() -> None:
    """Print what clients notice of slow and silent ones, with gunicorn's own threaded worker and with the project's."""
    _run_program("attacks")


def endurance() -> None:
    """Print failed requests and latency while versions change, workers are replaced, and a million requests arrive. Needs wrk."""
    _require("wrk")
    _run_program("endurance")


def metrics() -> None:
    """Print the cost of metrics and prediction log per request, and the duration of a scrape."""
    with tempfile.TemporaryDirectory() as directory:
        _run_program("metrics_cost", str(ROUNDS), PROMETHEUS_MULTIPROC_DIR=directory)


def traces() -> None:
    """Print the cost of traces per request: off, with one percent of the requests sampled, and with all of them."""
    _run_program("trace_cost", str(ROUNDS))


def gate() -> None:
    """Print the gate's verdicts on challengers of known quality, the state after kills, and the duration of a rollback."""
    _run_program("promotions")


def canary() -> None:
    """Print how often the canary's sequential test takes equal and worse models back, and how many true values it needs."""
    _run_program("canary_simulation")


def drift() -> None:
    """Print false alarms of the drift alert, the rows that a shift needs, and the accuracy of its rule. Needs Prometheus."""
    _require("prometheus", "prometheus-alertmanager")
    _run_program("drift", "1000")


def retrain() -> None:
    """Print the time from pushed rows to a served version that was trained on them. Needs weed (locks/s3.txt)."""
    _run_program("retraining_environment", "20000")


BENCHMARKS: dict[str, Callable[[], None]] = {
    "quality": quality.print_quality,
    "tables": tables.print_tables,
    "thirds": thirds.print_thirds,
    "anytable": any_table.print_journeys,
    "automl": automl.print_automl,
    "splits": splits.print_splits,
    "columns": columns.print_columns,
    "describe": description.print_description,
    "encodings": encodings.print_methods,
    "levels": encodings.print_row_cost,
    "texts": texts.print_texts,
    "intervals": intervals.print_intervals,
    "adaptive_intervals": adaptive_intervals.print_adaptive_intervals,
    "sweep": sweeps.print_sweeps,
    "search": sweeps.print_search,
    "kills": kills,
    "store": sweeps.print_large_store,
    "nodes": sweeps.print_two_nodes,
    "features": predictions.print_prediction_times,
    "scale": scale.print_scale,
    "engines": engines.print_engines,
    "server": footprint.print_footprint,
    "serving": serving,
    "protocol": protocol,
    "grpc": grpc,
    "many_models": several_models,
    "attacks": attacks,
    "endurance": endurance,
    "metrics": metrics,
    "traces": traces,
    "gate": gate,
    "canary": canary,
    "drift": drift,
    "multivariate": multivariate_drift.print_multivariate_drift,
    "error_estimate": error_estimate.print_error_estimates,
    "retrain": retrain,
    "models": models.print_models,
    "clean": cleaning.print_cleaning,
    "code": code_size.print_code_size,
}

WITH_ARGUMENTS: dict[str, Callable[[Sequence[str]], None]] = {
    "anytable": any_table.print_journeys,
    "automl": automl.print_automl,
    "encodings": encodings.print_methods,
    "tables": tables.print_tables,
    "texts": texts.print_texts,
    "intervals": intervals.print_intervals,
}


def _require(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"error: missing programs: {', '.join(missing)}. On Debian and Ubuntu: apt install {' '.join(programs)}")


def _run_program(name: str, *arguments: str, **environment: str) -> None:
    """Run a program of tests/support, which the tests use as well."""
    environ = project_environment(OMP_NUM_THREADS="1", **environment)
    subprocess.run([PYTHON, "-m", f"tests.support.{name}", *arguments], env=environ, cwd=PROJECT, check=True)


def main() -> None:
    """Print the tables of the named benchmarks, or of all."""
    if sys.argv[1:2] and sys.argv[1] in WITH_ARGUMENTS:
        WITH_ARGUMENTS[sys.argv[1]](sys.argv[2:])
        return
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"error: unknown benchmark: {', '.join(unknown)}. Use: scripts/bench [{' | '.join(BENCHMARKS)}]")
    for name in names:
        print(f"\n{name}\n", flush=True)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
