"""Promotions killed at each step, the duration of a rollback, and error rates of the gate: scripts/bench gate."""

import os
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from sqlalchemy import event
from sqlalchemy.orm import Session

from housing.bundle.bundle import Bundle
from housing.data import table as data
from housing.data.split import split
from housing.evaluation.slices import SliceMask, SliceSettings, make_slices
from housing.fitting import fitting
from housing.fitting.fitting import FitSettings
from housing.promotion import gate
from housing.promotion.decision import PROMOTE, REJECT, Decision
from housing.promotion.promotion import promote
from housing.promotion.settings import GateSettings
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.store import Store
from tests.support.commands import FORKS, CommandResult, command, fresh_command, run_module
from tests.support.gate_simulation import Errors, print_error_rates
from tests.support.homes import copy_home
from tests.support.server import serving
from tests.support.tables import TABLES, config, rentals_frame, train
from tests.support.waiting import wait_for

WORSE, BETTER = ("model=decision_tree", "figures=false", "model.estimator.max_depth=2"), ("model=linear", "figures=false")


MODEL, TABLE = "housing-rentals", (f"--config-dir={TABLES}", "data=rentals")


CHALLENGERS = 200


@contextmanager
def at_home(directory: Path) -> Iterator[Path]:
    """Set the home of this process during the block."""
    before = os.environ.get("HOUSING_HOME")
    os.environ["HOUSING_HOME"] = str(directory)
    try:
        yield directory
    finally:
        os.environ.pop("HOUSING_HOME")
        if before is not None:
            os.environ["HOUSING_HOME"] = before


def create_promotable_home(directory: Path) -> None:
    """Create a home with version 1 at staging and a better run that is not promoted yet."""
    (directory / "data").mkdir(parents=True)
    rentals_frame().to_csv(directory / "data" / "rentals.csv", index=False)
    with at_home(directory):
        train(directory, *WORSE)
        assert promote(config("promote", "data=rentals")).version == "1"
        train(directory, *BETTER)


def open_store(home: Path) -> Store:
    """Return the store of a home."""
    return tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


def promote_rentals(*overrides: str) -> Decision:
    """Promote on the table `rentals` in this process."""
    return promote(config("promote", "data=rentals", *overrides))


def bundle_directory(store: Store, run_id: str) -> Path:
    """Return the directory of a run's bundle in the artifact store."""
    model = store.client.api.get_logged_model(store.runs.get(run_id).tags[tags.MODEL_ID])
    return Path(model.artifact_location.removeprefix("file://")) / "data" / "bundle"


def config_file(store: Store, run_id: str) -> Path:
    """Return the file of a run's stored config in the artifact store."""
    return Path(store.client.api.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "config" / "config.yaml"


def corrupt(path: Path) -> None:
    """Append a byte to a file."""
    path.write_bytes(path.read_bytes() + b" ")


MARK = "KILLED_PROMOTION_AT"  # environment variable of what a killed promotion starts


SMOKE_TEST_RUNS = "the smoke test runs"


DECISIONS = "runs join experiments using (experiment_id) where experiments.name = 'rentals-decisions'"


N_VERDICTS = f"select count(*) from tags where key = 'housing.verdict' and run_uuid in (select run_uuid from {DECISIONS})"


# What the store contains after each step, or None for the step between two commits that takes seconds.
STEPS = {
    "the decision is started": f"select count(*) = 2 from {DECISIONS}",
    SMOKE_TEST_RUNS: None,
    "the version is registered": "select count(*) = 2 from model_versions",
    "the verdict is written": N_VERDICTS.replace("count(*)", "count(*) = 2"),
    "the version has its decision": "select count(*) = 1 from model_version_tags where version = 2",
    "the alias has moved": "select count(*) = 1 from registered_model_aliases where alias = 'staging' and version = 2",
    "the decision is finished": f"select count(*) = 2 from {DECISIONS} and runs.status = 'FINISHED'",
}


def kill_after_commit(home: Path, query: str) -> None:
    """Let this process kill itself at its first commit after which the query is true."""

    def check(_session: Session) -> None:
        with closing(sqlite3.connect(f"file:{home}/mlflow.db?mode=ro", uri=True, timeout=10)) as store:
            if store.execute(query).fetchone()[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Session, "after_commit", check)


def _promote_until(home: Path, environ: dict[str, str], query: str | None) -> None:
    """Promote in this process, and kill it once the query is true."""
    if query is not None:
        kill_after_commit(home, query)
    run_module(("housing.promote", *TABLE), environ, Path(os.devnull), Path(os.devnull))


def started_by_promotion(home: Path) -> list[int]:
    """Return the pids of the processes that the promotion has started, whoever is their parent now."""
    entry = f"{MARK}={home}".encode()
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if entry in _environment(pid)]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return []


@dataclass(frozen=True)
class StateAfterKill:
    """The version at the alias after a killed promotion, and whether its bundle can be read."""

    version: str | None
    works: bool


def kill_promotion(home: Path, step: str) -> StateAfterKill:
    """Start a promotion that is killed with SIGKILL at a step, and return the state after it."""
    environ = {**os.environ, "HOUSING_HOME": str(home), MARK: str(home)}
    process = FORKS.Process(target=_promote_until, args=(home, environ, STEPS[step]))
    process.start()
    if step == SMOKE_TEST_RUNS:
        wait_for(lambda: bool(started_by_promotion(home)), "the server of the smoke test starts")
        process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"the promotion exited before: {step}"
    wait_for(lambda: not started_by_promotion(home), "the server of the smoke test stops too", 30)
    store = open_store(home)
    version = store.registry.version_at(MODEL, "staging")
    return StateAfterKill(version, _works(store, version))


def _works(store: Store, version: str | None) -> bool:
    with store.artifacts.bundle(f"models:/{MODEL}/{version}") as folder:
        Bundle.read(folder)
    return True


def run_promote(home: Path, *overrides: str) -> CommandResult:
    """Run the promote command."""
    return command(home, "housing.promote", *TABLE, "gate.smoke_test_seconds=null", *overrides)


def run_rollback(home: Path, url: str) -> tuple[float, CommandResult]:
    """Run the rollback command. Return the seconds until the server serves the previous version, and the command's result."""
    started = time.monotonic()
    result = fresh_command(home, "housing.rollback", *TABLE, f"serve.url={url}")
    return time.monotonic() - started, result


def crashes(source: Path) -> None:
    """Print the state after a kill at each step."""
    print("| killed with SIGKILL when | alias is at | that version works | then the same command | versions in the registry |")
    print("|---|---:|---|---|---:|")
    for step in STEPS:
        with tempfile.TemporaryDirectory() as directory:
            home = Path(directory)
            copy_home(source, home)
            state = kill_promotion(home, step)
            repeated = run_promote(home)
            versions = len(open_store(home).client.api.search_model_versions(f"name = '{MODEL}'"))
            works = "yes" if state.works else "NO"
            print(f"| {step} | {state.version} | {works} | {repeated.out.split()[0]} | {versions} |", flush=True)


def rollbacks(home: Path) -> None:
    """Print the duration of a rollback, including the start of the command and the server's verification."""
    durations = []
    with serving(home, "serve.poll_seconds=1") as server:
        for _ in range(3):
            assert run_promote(home, f"serve.url={server.url}", "force=true", "force_reason=to go back from").code == 0
            seconds, result = run_rollback(home, server.url)
            assert result.code == 0, result.out + result.err
            durations.append(seconds)
    print(
        f"\n| rollback until the server answers with the version before, s: middle | slowest of {len(durations)} |\n|---:|---:|"
    )
    print(f"| {sorted(durations)[1]:.1f} | {max(durations):.1f} |", flush=True)


def development_errors() -> tuple[dict[str, Errors], list[SliceMask]]:
    """Fit models on a quarter of the real table. Return their errors on its validation rows, and the slices of these rows.

    Test rows are not used: the gate's method was chosen by these errors.
    """
    overrides = ["data=california", "features=none", "refit=false", "interval=none", "split.valid=0.5"]
    models = {
        "xgboost": ["model=xgboost", "seed=0"],
        "another seed": ["model=xgboost", "seed=1"],
        "a third seed": ["model=xgboost", "seed=2"],
        **{name: [f"model={name}"] for name in ("extra_trees", "linear", "mean")},
    }
    cfgs = {name: config("train", *overrides, *options) for name, options in models.items()}
    table = data.load(cfgs["xgboost"].data)
    parts = split(table, cfgs["xgboost"].split)
    is_stopping = np.arange(len(parts.train)) % 8 == 0

    def errors(cfg: DictConfig) -> Errors:
        fitted = fitting.fit(FitSettings.from_config(cfg), table, parts.train[~is_stopping], parts.train[is_stopping])
        return np.asarray(fitted.predict(table.matrix[parts.valid]) - table.target[parts.valid])

    slices = make_slices(table, parts.valid, SliceSettings.from_config(cfgs["xgboost"].data))
    return {name: errors(cfg) for name, cfg in cfgs.items()}, slices


def count_verdicts(
    champion: Errors, challengers: list[Errors], groups: list[SliceMask], rows: int, better: float
) -> Counter[str]:
    """Count the verdicts on challengers whose errors are smaller by a ratio, each on its own sample of the held-out rows.

    The errors of challenger and champion are swapped at random in each row. Without the ratio, both are therefore equal in
    every slice.
    """
    rules, random = GateSettings.from_config(config("promote", "data=california")), np.random.default_rng(rows)
    verdicts: Counter[str] = Counter()
    for number in range(CHALLENGERS):
        sample, swapped = random.integers(len(champion), size=rows), random.random(rows) < 0.5
        challenger_errors, champion_errors = challengers[number % len(challengers)][sample], champion[sample]
        challenger_errors, champion_errors = (
            np.where(swapped, champion_errors, challenger_errors) * (1 - better),
            np.where(swapped, challenger_errors, champion_errors),
        )
        slices = [SliceMask(group.kind, group.name, group.mask[sample]) for group in groups]
        checks = gate.slice_checks(rules, slices, challenger_errors, champion_errors)
        verdicts[gate.decide_verdict(gate.compare_overall(rules, challenger_errors, champion_errors), checks)] += 1
        verdicts["vetoed by a slice"] += not all(check.passed for check in checks)
    return verdicts


def simulation(errors: dict[str, Errors], groups: list[SliceMask]) -> None:
    """Print the verdicts on challengers with a known true improvement."""
    champion = errors["xgboost"]
    print(f"\n| {CHALLENGERS} challengers | test rows | promoted | rejected | vetoed by a slice |\n|---|---:|---:|---:|---:|")
    for kind, names in (("another seed", ("another seed", "a third seed")), ("another kind of model", ("extra_trees",))):
        challengers = [errors[name] for name in names]
        correlation = np.corrcoef(champion, challengers[0])[0, 1]
        for better, effect in ((0.0, "equal"), (0.02, "better by 2 %")):
            for rows in (500, 1000, 2000, 4000, 8000):
                count = count_verdicts(champion, challengers, groups, rows, better)
                shares = [count[verdict] / CHALLENGERS for verdict in (PROMOTE, REJECT, "vetoed by a slice")]
                rates = " | ".join(f"{share:.1%}" for share in shares)
                print(f"| {effect}, {kind} (errors correlate {correlation:.2f}) | {rows} | {rates} |", flush=True)


def main() -> None:
    """Print the tables."""
    errors, groups = development_errors()
    print_error_rates(errors)
    simulation(errors, groups)
    print()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        create_promotable_home(home)
        crashes(home)
        rollbacks(home)


if __name__ == "__main__":
    main()
