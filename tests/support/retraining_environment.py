"""Retraining end to end, from rows pushed on a laptop to the server: scripts/bench retrain prints the durations."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from housing.core.environment import PROJECT
from housing.data.settings import parse_schema
from housing.data.synthetic import generate
from housing.tracking import store as tracking
from housing.tracking.store import Store
from tests.support.cluster import MlflowServer
from tests.support.commands import dvc, git
from tests.support.object_store import BUCKET, object_store
from tests.support.server import Server, serving
from tests.support.tables import TABLES, config
from tests.support.waiting import wait_for

TABLES_AT = f"s3://{BUCKET}/tables"


@dataclass(frozen=True)
class Scene:
    """A laptop and CI with clones of a bare repository, tables on S3, runs in MLflow, and a server."""

    laptop: Path
    ci: Path
    table: tuple[str, ...]  # the overrides that select it
    store: Store
    server: Server

    def add(self, frame: pd.DataFrame) -> None:
        """Ingest rows on the laptop and push them."""
        frame.to_csv(self.laptop / "new.csv", index=False)
        arguments = [sys.executable, "-m", "housing.ingest", *self.table, "file=new.csv"]
        process_ = subprocess.run(arguments, cwd=self.laptop, capture_output=True, text=True, check=False)
        assert f"{len(frame):,} rows added" in process_.stdout, process_.stderr
        (self.laptop / "new.csv").unlink()
        push(self.laptop)

    @contextmanager
    def retraining(self) -> Iterator[None]:
        """Run the retraining in CI's clone during the block, and wait for its end."""
        log = self.ci.parent / "retrain.log"
        with log.open("ab") as file:
            arguments = ["./scripts/retrain", *self.table, "mlflow=server"]
            with subprocess.Popen(arguments, cwd=self.ci, stdout=file, stderr=file) as process:
                yield
        assert process.returncode == 0, log.read_text(encoding="utf-8")

    def serves(self, version: str) -> bool:
        """Return whether the server serves a version."""
        answer = self.server.ask("/model")
        return answer.status == 200 and str(answer.json["version"]) == version


@contextmanager
def scene(directory: Path, store: Path, frame: pd.DataFrame, table: tuple[str, ...], sweep: str | None = None) -> Iterator[Scene]:
    """Start all services, push the first rows of a table and clone it for CI. `store` is an empty MLflow store."""
    name, path = (config("retrain", *table).data[key] for key in ("name", "path"))
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        objects = stack.enter_context(object_store(directory))
        shutil.copy(store, directory / "server.db")
        mlflow = MlflowServer(directory, f"sqlite:///{directory}/server.db", f"s3://{BUCKET}/mlflow", objects.environment)
        stack.enter_context(mlflow)
        environment = {
            "MLFLOW_TRACKING_URI": mlflow.address,
            "DVC_SITE_CACHE_DIR": str(directory / "site"),
            **objects.environment,
        }
        for variable, value in environment.items():
            patch.setenv(variable, value)
        for variable in ("HOUSING_HOME", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            patch.delenv(variable, raising=False)
        laptop = published(directory, frame, Path(path).name, sweep)
        git(directory, "clone", "--quiet", "origin.git", "ci")
        (directory / "ci" / ".venv").symlink_to(PROJECT / ".venv")
        server = stack.enter_context(serving(directory, "mlflow=server", f"data={name}"))
        yield Scene(laptop, directory / "ci", table, Store(mlflow.address, artifact_root=None, ui=""), server)


def published(directory: Path, frame: pd.DataFrame, file: str, sweep: str | None) -> Path:
    """Create a clone of the project with its table in the object store, and push it to a bare repository."""
    laptop = directory / "laptop"
    listed = git(PROJECT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in [name for name in listed if (PROJECT / name).is_file() and not name.startswith("data/")]:
        (laptop / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, laptop / name)
    shutil.copy(TABLES / "data" / "rentals.yaml", laptop / "conf" / "data")
    if sweep is not None:
        conf = laptop / "conf" / "retrain.yaml"
        text = re.sub(r"sweep_overrides: .*", f"sweep_overrides: {sweep}", conf.read_text(encoding="utf-8"), count=1)
        conf.write_text(text, encoding="utf-8")
    (laptop / "data").mkdir()
    frame.to_csv(laptop / "data" / file, index=False)
    git(directory, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(laptop, "init", "--quiet", "--initial-branch=main")
    dvc(laptop, "remote", "modify", "s3", "url", TABLES_AT)
    dvc(laptop, "remote", "default", "s3")
    dvc(laptop, "add", "--quiet", f"data/{file}")
    git(laptop, "remote", "add", "origin", str(directory / "origin.git"))
    push(laptop)
    return laptop


def push(laptop: Path) -> None:
    """Push the table to the object store, then its DVC file to the repository."""
    dvc(laptop, "push")
    git(laptop, "add", ".")
    git(laptop, "commit", "--quiet", "--message=rows")
    git(laptop, "push", "--quiet", "origin", "main")


def main(rows: int) -> None:
    """Print the seconds from pushed rows to a served version, and those of a retraining without new rows."""
    table = ("data=synthetic", f"data.rows={rows}")
    data = config("retrain", *table).data
    names = [column.name for column in parse_schema(data).columns]
    source = data.source
    frame = pd.DataFrame(generate(rows, source.seed, source.centres, source.coast, source.value_range), columns=names)
    first = rows // 10
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tracking.Store(f"sqlite:///{directory}/mlflow.db", artifact_root=None, ui="")
        with scene(directory, directory / "mlflow.db", frame[:first], table) as environment_:
            with environment_.retraining():
                wait_for(lambda: environment_.serves("1"), "the first version is served", 600)
            environment_.add(frame[first:])
            started = time.perf_counter()
            git(environment_.ci, "pull", "--quiet")
            with environment_.retraining():
                wait_for(lambda: environment_.serves("2"), "the version trained on the new rows is served", 600)
                served = time.perf_counter() - started
            total, started = time.perf_counter() - started, time.perf_counter()
            with environment_.retraining():
                pass
            print("| table | pushed to served, s | whole retraining, s | nothing new, s |\n|---|---:|---:|---:|")
            print(f"| synthetic, {rows:,} rows | {served:.0f} | {total:.0f} | {time.perf_counter() - started:.1f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]))
