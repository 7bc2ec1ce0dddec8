"""Rows that are pushed on a laptop, a clone that learns from them, a server: scripts/bench retrain prints how long that takes."""

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
    """A laptop and CI, each with a clone of a bare repository; tables on S3, runs in MLflow, a server that follows."""

    laptop: Path
    ci: Path
    table: tuple[str, ...]  # its overrides
    store: Store
    server: Server

    def add(self, frame: pd.DataFrame) -> None:
        """Add rows as a user does, and push them."""
        frame.to_csv(self.laptop / "new.csv", index=False)
        asked = [sys.executable, "-m", "housing.ingest", *self.table, "file=new.csv"]
        done = subprocess.run(asked, cwd=self.laptop, capture_output=True, text=True, check=False)
        assert f"{len(frame):,} rows added" in done.stdout, done.stderr
        (self.laptop / "new.csv").unlink()
        push(self.laptop)

    @contextmanager
    def retraining(self) -> Iterator[None]:
        """Retrain in CI's clone beside the block; at its end that is through."""
        log = self.ci.parent / "retrain.log"
        with log.open("ab") as file:
            asked = ["./scripts/retrain", *self.table, "mlflow=server"]
            with subprocess.Popen(asked, cwd=self.ci, stdout=file, stderr=file) as process:
                yield
        assert process.returncode == 0, log.read_text(encoding="utf-8")

    def serves(self, version: str) -> bool:
        """Whether the server answers with a version."""
        answer = self.server.ask("/model")
        return answer.status == 200 and str(answer.json["version"]) == version


@contextmanager
def scene(place: Path, store: Path, frame: pd.DataFrame, table: tuple[str, ...], sweep: str | None = None) -> Iterator[Scene]:
    """Everything, with the first rows of a table pushed, and cloned by CI. `store` is an empty MLflow store."""
    name, path = (config("retrain", *table).data[what] for what in ("name", "path"))
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        objects = stack.enter_context(object_store(place))
        shutil.copy(store, place / "server.db")
        mlflow = MlflowServer(place, f"sqlite:///{place}/server.db", f"s3://{BUCKET}/mlflow", objects.environment)
        stack.enter_context(mlflow)
        known = {"MLFLOW_TRACKING_URI": mlflow.address, "DVC_SITE_CACHE_DIR": str(place / "site"), **objects.environment}
        for variable, value in known.items():
            patch.setenv(variable, value)
        for variable in ("HOUSING_HOME", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            patch.delenv(variable, raising=False)
        laptop = published(place, frame, Path(path).name, sweep)
        git(place, "clone", "--quiet", "origin.git", "ci")
        (place / "ci" / ".venv").symlink_to(PROJECT / ".venv")
        server = stack.enter_context(serving(place, "mlflow=server", f"data={name}"))
        yield Scene(laptop, place / "ci", table, Store(mlflow.address, artifact_root=None, ui=""), server)


def published(place: Path, frame: pd.DataFrame, file: str, sweep: str | None) -> Path:
    """A clone of the project whose table is in the object store, and which is pushed to a bare repository."""
    laptop = place / "laptop"
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
    git(place, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(laptop, "init", "--quiet", "--initial-branch=main")
    dvc(laptop, "remote", "modify", "s3", "url", TABLES_AT)
    dvc(laptop, "remote", "default", "s3")
    dvc(laptop, "add", "--quiet", f"data/{file}")
    git(laptop, "remote", "add", "origin", str(place / "origin.git"))
    push(laptop)
    return laptop


def push(laptop: Path) -> None:
    """Push content to the object store, then its name to the repository."""
    dvc(laptop, "push")
    git(laptop, "add", ".")
    git(laptop, "commit", "--quiet", "--message=rows")
    git(laptop, "push", "--quiet", "origin", "main")


def main(rows: int) -> None:
    """Print the seconds from rows that are pushed to a version that knows them, and those of a retraining with nothing to do."""
    table = ("data=synthetic", f"data.rows={rows}")
    asked = config("retrain", *table).data
    names = [column.name for column in parse_schema(asked).columns]
    source = asked.source
    frame = pd.DataFrame(generate(rows, source.seed, source.centres, source.coast, source.value_range), columns=names)
    first = rows // 10
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        tracking.Store(f"sqlite:///{place}/mlflow.db", artifact_root=None, ui="")
        with scene(place, place / "mlflow.db", frame[:first], table) as here:
            with here.retraining():
                wait_for(lambda: here.serves("1"), "the first version is served", 600)
            here.add(frame[first:])
            begun = time.perf_counter()
            git(here.ci, "pull", "--quiet")
            with here.retraining():
                wait_for(lambda: here.serves("2"), "the version that knows the new rows is served", 600)
                served = time.perf_counter() - begun
            whole, begun = time.perf_counter() - begun, time.perf_counter()
            with here.retraining():
                pass
            print("| table | pushed to served, s | whole retraining, s | nothing new, s |\n|---|---:|---:|---:|")
            print(f"| synthetic, {rows:,} rows | {served:.0f} | {whole:.0f} | {time.perf_counter() - begun:.1f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]))
