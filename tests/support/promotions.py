"""Kill promotions at each step, take the time of a rollback, and count what the gate decides: what scripts/bench gate prints."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.data import table as data
from housing.data.split import split
from housing.evaluation.slices import SliceMask, SliceSettings, make_slices
from housing.promotion import gate
from housing.promotion.decision import PROMOTE, REJECT, Decision
from housing.promotion.promotion import promote
from housing.promotion.settings import GateSettings
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.store import Store
from housing.training import fitting
from housing.training.fitting import FitSettings
from tests.support.commands import Ended, command
from tests.support.server import children, serving
from tests.support.tables import TABLES, config, rentals_frame, train
from tests.support.waiting import wait_for

WORSE, BETTER = ("model=decision_tree", "figures=false", "model.estimator.max_depth=2"), ("model=linear", "figures=false")


MODEL, TABLE = "housing-rentals", (f"--config-dir={TABLES}", "data=rentals")


CHALLENGERS = 200


@contextmanager
def at_home(place: Path) -> Iterator[Path]:
    """Make a place the home of this process for as long as the block lasts."""
    before = os.environ.get("HOUSING_HOME")
    os.environ["HOUSING_HOME"] = str(place)
    try:
        yield place
    finally:
        os.environ.pop("HOUSING_HOME")
        if before is not None:
            os.environ["HOUSING_HOME"] = before


def one_promoted_and_a_better_one_trained(place: Path) -> None:
    """Make a home where version 1 is at staging, and a better run waits for its promotion."""
    (place / "data").mkdir(parents=True)
    rentals_frame().to_csv(place / "data" / "rentals.csv", index=False)
    with at_home(place):
        train(place, *WORSE)
        assert promote(config("promote", "data=rentals")).version == "1"
        train(place, *BETTER)


def copied(original: Path, place: Path) -> None:
    """Copy a home; artefacts stay where they are, and the copy of the store knows where."""
    shutil.copytree(original, place, ignore=shutil.ignore_patterns("mlartifacts", "outputs"), dirs_exist_ok=True)


def opened(home: Path) -> Store:
    """The store of a home."""
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


def _sees(query: str) -> Callable[[Path, int], bool]:
    def seen(home: Path, _pid: int) -> bool:
        with closing(sqlite3.connect(f"file:{home}/mlflow.db?mode=ro", uri=True, timeout=10)) as store:
            return bool(store.execute(query).fetchone()[0])

    return seen


def _smoke_test_runs(_home: Path, pid: int) -> bool:
    return bool(descendants(pid))


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    try:
        below = children(pid)
    except FileNotFoundError:
        return []
    return below + [deeper for child in below for deeper in descendants(child)]


DECISIONS = "runs join experiments using (experiment_id) where experiments.name = 'rentals-decisions'"


WRITTEN = f"select count(*) from tags where key = 'housing.verdict' and run_uuid in (select run_uuid from {DECISIONS})"


STEPS = {
    "the decision is begun": _sees(f"select count(*) = 2 from {DECISIONS}"),
    "the smoke test runs": _smoke_test_runs,
    "the version is registered": _sees("select count(*) = 2 from model_versions"),
    "the verdict is written": _sees(WRITTEN.replace("count(*)", "count(*) = 2")),
    "the version has its decision": _sees("select count(*) = 1 from model_version_tags where version = 2"),
    "the alias has moved": _sees("select count(*) = 1 from registered_model_aliases where alias = 'staging' and version = 2"),
    "the server is asked": _sees(f"select count(*) = 2 from {DECISIONS} and runs.status = 'FINISHED'"),
}


@dataclass(frozen=True)
class Left:
    """What a promotion that was killed has left: where the alias is, and processes that lived on."""

    version: str | None
    works: bool
    orphans: list[int]


def killed(home: Path, step: str) -> Left:
    """Promote, kill that with SIGKILL as soon as a step is seen, and look at what is left."""
    arguments = [*TABLE, "serve.url=http://127.0.0.1:9"]  # where nobody answers, so that it goes on asking
    silent = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, "-m", "housing.promote", *arguments],
        env={**os.environ, "HOUSING_HOME": str(home)},
        stdout=silent,
        stderr=silent,
    ) as process:
        while not STEPS[step](home, process.pid):
            assert process.poll() is None, f"it ended before: {step}"
            time.sleep(0.002)
        below = descendants(process.pid)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not _living(below), "the server of the smoke test stops too", 30)
    store = opened(home)
    version = store.registry.version_at(MODEL, "staging")
    return Left(version, _works(store, version), _living(below))


def _living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def _works(store: Store, version: str | None) -> bool:
    with store.artifacts.bundle(f"models:/{MODEL}/{version}") as folder:
        Bundle.read(folder)
    return True


def promoted(home: Path, *overrides: str) -> Ended:
    """Promote as a user does."""
    return command(home, "housing.promote", *TABLE, "gate.smoke_test_seconds=null", *overrides)


def rolled_back(home: Path, url: str) -> tuple[float, Ended]:
    """Roll back as a user does; give the seconds until the server answers with the version before, and the command's end."""
    begun = time.monotonic()
    ended = command(home, "housing.rollback", *TABLE, f"serve.url={url}")
    return time.monotonic() - begun, ended


def crashes(original: Path) -> None:
    """Print what is left by a kill at each step."""
    print("| killed with SIGKILL when | alias is at | that version works | then the same command | versions in the registry |")
    print("|---|---:|---|---|---:|")
    for step in STEPS:
        with tempfile.TemporaryDirectory() as place:
            home = Path(place)
            copied(original, home)
            left = killed(home, step)
            again = promoted(home)
            versions = len(opened(home).client.api.search_model_versions(f"name = '{MODEL}'"))
            works = "yes" if left.works else "NO"
            print(f"| {step} | {left.version} | {works} | {again.out.split()[0]} | {versions} |", flush=True)


def rollbacks(home: Path) -> None:
    """Print how long a rollback takes, the start of the command and the server's own proof among it."""
    took = []
    with serving(home, "serve.poll_seconds=1") as server:
        for _ in range(3):
            assert promoted(home, f"serve.url={server.url}", "force=true", "force_reason=to go back from").code == 0
            seconds, ended = rolled_back(home, server.url)
            assert ended.code == 0, ended.out + ended.err
            took.append(seconds)
    print(f"\n| rollback until the server answers with the version before, s: middle | slowest of {len(took)} |\n|---:|---:|")
    print(f"| {sorted(took)[1]:.1f} | {max(took):.1f} |", flush=True)


Errors = NDArray[np.float64]


def held_out_errors() -> tuple[list[Errors], Errors, list[SliceMask]]:
    """Fit three XGBoosts that differ in their seed, and extra trees, on a third of the real table.

    Gives their errors on the rest, and the slices of that.
    """
    asked = ["data=california", "features=none", "refit=false", "interval=none", "split.test=0.6", "split.valid=0.05"]
    seeds = [config("train", *asked, "model=xgboost", f"seed={seed}") for seed in range(3)]
    table = data.load(seeds[0].data)
    parts = split(table, seeds[0].split)

    def errors(cfg: DictConfig) -> Errors:
        fitted = fitting.fit(FitSettings.from_config(cfg), table, parts.train, parts.valid)
        return np.asarray(fitted.predict(table.matrix[parts.test]) - table.target[parts.test])

    other = errors(config("train", *asked, "model=extra_trees"))
    return [errors(cfg) for cfg in seeds], other, make_slices(table, parts.test, SliceSettings.from_config(seeds[0].data))


def decided(champion: Errors, challengers: list[Errors], groups: list[SliceMask], rows: int, better: float) -> Counter[str]:
    """Count the verdicts over challengers that are better by a share, each on test rows of its own, drawn from the held-out ones.

    For each row a coin says which of the two errors is the challenger's. So both are equal in every slice, but for the share.
    """
    rules, random = GateSettings.from_config(config("promote", "data=california")), np.random.default_rng(rows)
    found: Counter[str] = Counter()
    for number in range(CHALLENGERS):
        drawn, swapped = random.integers(len(champion), size=rows), random.random(rows) < 0.5
        mine, theirs = challengers[number % len(challengers)][drawn], champion[drawn]
        mine, theirs = np.where(swapped, theirs, mine) * (1 - better), np.where(swapped, mine, theirs)
        here = [SliceMask(group.kind, group.name, group.mask[drawn]) for group in groups]
        checks = gate.slice_checks(rules, here, mine, theirs)
        found[gate.decide_verdict(gate.compare_overall(rules, mine, theirs), checks)] += 1
        found["vetoed by a slice"] += not all(check.passed for check in checks)
    return found


def simulation() -> None:
    """Print what the gate says of challengers whose true worth is known."""
    (champion, *seeds), other, groups = held_out_errors()
    print(f"| {CHALLENGERS} challengers | test rows | promoted | rejected | vetoed by a slice |\n|---|---:|---:|---:|---:|")
    for kind, challengers in (("another seed", seeds), ("another kind of model", [other])):
        alike = np.corrcoef(champion, challengers[0])[0, 1]
        for better, what in ((0.0, "equal"), (0.02, "better by 2 %")):
            for rows in (500, 1000, 2000, 4000, 8000):
                count = decided(champion, challengers, groups, rows, better)
                shares = [count[one] / CHALLENGERS for one in (PROMOTE, REJECT, "vetoed by a slice")]
                told = " | ".join(f"{share:.1%}" for share in shares)
                print(f"| {what}, {kind} (errors correlate {alike:.2f}) | {rows} | {told} |", flush=True)


def main() -> None:
    """Print the tables."""
    simulation()
    print()
    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "home"
        one_promoted_and_a_better_one_trained(home)
        crashes(home)
        rollbacks(home)


if __name__ == "__main__":
    main()
