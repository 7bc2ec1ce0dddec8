"""The server beside its peers, under the same load in one run: scripts/bench serving prints the tables."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.tracking import store as tracking
from tests.support.commands import command
from tests.support.server import children, free_port
from tests.support.waiting import wait_for

MODEL = ("model=xgboost", "features=none", "interval=none", "refit=false", "figures=false", "log_model=best")


TREES = ("model.estimator.n_estimators=500", "model.estimator.max_depth=6")


SIZES, CONNECTIONS, SECONDS = (1, 100, 1000), 8, 5


FASTAPI = """
import pickle
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

class Row(BaseModel):
    MedInc: float
    HouseAge: float
    AveRooms: float
    AveBedrms: float
    Population: float
    AveOccup: float
    Latitude: float
    Longitude: float

class Rows(BaseModel):
    instances: list[Row]

with open("model.pkl", "rb") as file:
    model = pickle.load(file)
app = FastAPI()

@app.post("/predict")
def predict(rows: Rows) -> dict:
    return {"predictions": model.predict(pd.DataFrame([row.model_dump() for row in rows.instances])).tolist()}
"""


FITTED = """
import pickle, sys
from hydra import compose, initialize_config_dir
from housing.data import table as data
from housing.core.config import CONF, instantiate
from housing.data.split import split

with initialize_config_dir(CONF, version_base="1.3"):
    cfg = compose("train", sys.argv[2:])
table = data.load(cfg.data)
train = split(table, cfg.split).train
with open(sys.argv[1], "wb") as file:
    pickle.dump(instantiate(cfg.model.estimator).fit(table.matrix[train], table.target[train]), file)
"""


EMPTY = """
from flask import Flask, Response, request
app = Flask(__name__)

@app.post("/predict")
def predict():
    request.get_data()
    return Response('{"predictions":[1.0]}', mimetype="application/json")
"""


GTHREAD = ("-m", "gunicorn", "--workers=1", "--threads=8", "--worker-class=gthread", "--keep-alive=30")


@dataclass
class Peer:
    """A server, its route, and the form in which it takes rows."""

    name: str
    url: str
    form: str
    process: "subprocess.Popen[bytes]"
    found: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def cpu(self) -> float:
        """Processor seconds of all its processes so far."""
        return sum(_cpu_seconds(pid) for pid in _tree(self.process.pid))

    def load(self, body: bytes, rows: int, place: Path) -> None:
        """Send a body again and again over all connections; take note of requests a second and processor ms of each."""
        script = place / "post.lua"
        text = body.decode().replace("\\", "\\\\").replace("'", "\\'")
        script.write_text(
            f"wrk.method='POST'\nwrk.body='{text}'\nwrk.headers['Content-Type']='application/json'\n", encoding="utf-8"
        )
        before = self.cpu()
        arguments = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script), self.url]
        said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        used = self.cpu() - before
        assert "Non-2xx" not in said and "Socket errors" not in said, f"{self.name}: {said}"
        done = int(re.findall(r"(\d+) requests in", said)[0])
        per_second = float(re.findall(r"Requests/sec: +([\d.]+)", said)[0])
        self.found.setdefault(rows, []).append((per_second, 1000 * used / done))


def main(rounds: int) -> None:
    """Print requests a second of each server as a ratio to MLflow's, and the processor time of a request."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        place = Path(name)
        matrix, names = promoted(place)
        peers = [stack.enter_context(server(place)) for server in (_mlflow, _fastapi, _empty, _ours)]
        peers += [
            Peer(
                f"{peers[-1].name}, columns + rows", peers[-1].url.replace("invocations", "predict"), "columns", peers[-1].process
            )
        ]
        bodies = {rows: bodies_of(names, matrix[:rows].tolist()) for rows in SIZES}
        for rows in SIZES:
            _check_replies(peers, bodies[rows])
        for round_ in range(rounds):
            for rows in SIZES:
                for peer in peers[round_ % 2 :] + peers[: round_ % 2]:
                    peer.load(bodies[rows][peer.form], rows, place)
            print(f"round {round_ + 1} of {rounds}", file=sys.stderr, flush=True)
        with urllib.request.urlopen(peers[-1].url.replace("predict", "metrics"), timeout=60) as answer:
            assert b"\nhousing_log_dropped_total 0.0\n" in answer.read(), "the prediction log lacks requests"
        _print(peers)


def _print(peers: list[Peer]) -> None:
    sizes = " / ".join(map(str, SIZES))
    print(f"| one worker, {sizes} rows | requests a second | x mlflow | each round, 1 row | processor ms per request |")
    print("|---|---|---|---|---|")
    base = peers[0]
    for peer in peers:
        middle = {rows: [statistics.median(each) for each in zip(*found, strict=True)] for rows, found in peer.found.items()}
        ratios = {
            rows: [mine[0] / its[0] for mine, its in zip(peer.found[rows], base.found[rows], strict=True)] for rows in SIZES
        }
        speed = " / ".join(f"{middle[rows][0]:.0f}" for rows in SIZES)
        times = " / ".join(f"{statistics.median(ratios[rows]):.1f}" for rows in SIZES)
        cost = " / ".join(f"{middle[rows][1]:.2f}" for rows in SIZES)
        print(f"| {peer.name} | {speed} | **{times}** | {' '.join(f'{one:.1f}' for one in ratios[1])} | {cost} |", flush=True)


def promoted(home: Path) -> tuple[Any, list[str]]:
    """Train and promote the model; give rows of the table, and the names of their columns."""
    (home / "data").mkdir()
    (home / "data" / "california.csv").symlink_to(PROJECT / "data" / "california.csv")
    for arguments in (("housing.train", *MODEL, *TREES), ("housing.promote",)):
        ended = command(home, *arguments)
        assert ended.code == 0, ended.out + ended.err
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    with store.artifacts.bundle("models:/housing-california@staging") as folder:
        schema = Bundle.read(folder).schema
    table = np.genfromtxt(home / "data" / "california.csv", delimiter=",", skip_header=1, max_rows=max(SIZES))
    return table[:, : len(schema.features)], [column.name for column in schema.features]


def bodies_of(names: list[str], rows: list[list[float]]) -> dict[str, bytes]:
    """Give a request for rows in each form."""
    forms = {
        "split": {"dataframe_split": {"columns": names, "data": rows}},
        "columns": {"columns": names, "rows": rows},
        "instances": {"instances": [dict(zip(names, row, strict=True)) for row in rows]},
    }
    return {form: json.dumps(body, separators=(",", ":")).encode() for form, body in forms.items()}


def _check_replies(peers: list[Peer], bodies: dict[str, bytes]) -> None:
    said = {peer.name: np.array(_ask(peer.url, bodies[peer.form])["predictions"]) for peer in peers}
    first = said[peers[0].name]
    for name, predictions in said.items():
        assert "empty" in name or np.allclose(predictions, first, atol=1e-4), name


def _ask(url: str, body: bytes) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=60) as answer:
        return json.load(answer)


def _mlflow(home: Path) -> Any:
    port = free_port()
    arguments = (
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/housing-california@staging",
        "--env-manager=local",
        "-p",
        str(port),
    )
    return _started(
        home, "mlflow models serve", port, "/invocations", "split", *arguments, MLFLOW_TRACKING_URI=f"sqlite:///{home}/mlflow.db"
    )


def _fastapi(home: Path) -> Any:
    (home / "fast.py").write_text(FASTAPI, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", FITTED, str(home / "model.pkl"), *MODEL, *TREES], cwd=PROJECT, env=_environ(home), check=True
    )
    port = free_port()
    arguments = ("-m", "uvicorn", "fast:app", "--port", str(port), "--log-level=warning")
    return _started(home, "FastAPI + Pydantic + DataFrame", port, "/predict", "instances", *arguments)


def _empty(home: Path) -> Any:
    (home / "empty.py").write_text(EMPTY, encoding="utf-8")
    port = free_port()
    return _started(
        home, "an empty Flask endpoint", port, "/predict", "columns", *GTHREAD, f"--bind=127.0.0.1:{port}", "empty:app"
    )


def _ours(home: Path) -> Any:
    port = free_port()
    arguments = ("-m", "housing.serve", f"serve.port={port}", "serve.workers=1")
    return _started(PROJECT, "housing", port, "/invocations", "split", *arguments, HOUSING_HOME=str(home))


@contextmanager
def _started(cwd: Path, name: str, port: int, route: str, form: str, *arguments: str, **environment: str) -> Iterator[Peer]:
    """Keep a server running for as long as the block lasts."""
    url = f"http://127.0.0.1:{port}{route}"
    environ = {**_environ(cwd), **environment}
    with subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=environ, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/ping"), f"{name} answers")
            yield Peer(name, url, form, process)
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 404  # it lives, and has no such route
    except OSError:
        return False


def _environ(home: Path) -> dict[str, str]:
    found = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # mlflow looks for uvicorn there
    return {**os.environ, "HOUSING_HOME": str(home), "OMP_NUM_THREADS": "1", "PATH": found}


def _tree(pid: int) -> list[int]:
    return [pid, *(other for child in children(pid) for other in _tree(child))]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(int(sys.argv[1]))
