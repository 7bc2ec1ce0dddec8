"""Synthetic traffic for the pictures of the dashboards: a candidate in the shadow takes over, then a column drifts."""

import json
import math
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from grafana.generate import DASHBOARD_DIR
from housing.core.environment import PROJECT
from tests.support import prometheus
from tests.support.commands import command
from tests.support.dashboard_pictures import draw
from tests.support.monitored_server import Caller, MonitoredServer, monitored

PROMOTED_AT, DRIFT_AFTER, END_AFTER = 180, 60, 120  # seconds until the promotion begins; then to the drift, and to the end
CYCLE_SECONDS = 110  # of the request rate
MAX_ROWS = 30  # of a request
DRIFT_FACTOR = 1.7
PROMOTION = ("force=true", "force_reason=a new version for the pictures", "gate.smoke_test_seconds=null")
INVALID_VALUES = ({"Latitude": 70.0}, {"MedInc": "high"}, {"MedInc": "low"})


def main() -> None:
    """Serve two models of the California table, send traffic, and draw the dashboards into docs/images/."""
    if not prometheus.is_installed() or shutil.which(prometheus.NODE_EXPORTER) is None:
        raise SystemExit(f"error: {prometheus.HINT} {prometheus.NODE_EXPORTER}")
    with tempfile.TemporaryDirectory() as folder:
        home, directory = Path(folder, "home"), Path(folder, "prometheus")
        home.mkdir()
        directory.mkdir()
        os.environ["HOUSING_HOME"] = str(home)
        run(home, "retrain", 'sweep_overrides=["model=linear,xgboost","features=none"]')
        run(home, "promote", "alias=production", *PROMOTION)
        run(home, "train", "features=static")
        run(home, "promote", *PROMOTION)
        run(home, "export_metrics")
        with (
            prometheus.node_exporter(directory, home / "outputs" / "metrics") as node,
            monitored(home, directory, "california", "serve.shadow=staging", alias="production", node=node) as server,
        ):
            send_traffic(server, home)
            draw(server.prometheus, PROJECT / "docs" / "images", DASHBOARD_DIR.glob("*.json"))


def run(home: Path, name: str, *arguments: str) -> None:
    """Run a command on the California table, which must succeed."""
    result = command(home, f"housing.{name}", "data=california", *arguments)
    if result.code:
        raise SystemExit(f"error: housing.{name} failed with exit code {result.code}:\n{result.out}{result.err}")


def send_traffic(server: MonitoredServer, home: Path) -> None:
    """Send requests at a changing rate, while models are trained, the candidate goes to production, and a column drifts."""
    frame, random = pd.read_csv(home / "data" / "california.csv"), np.random.default_rng(0)
    start, promoted_at = time.monotonic(), math.inf
    with ThreadPoolExecutor(1) as commands:
        operator = commands.submit(operate, home, start)
        while (now := time.monotonic()) < promoted_at + DRIFT_AFTER + END_AFTER:
            if operator.done() and promoted_at == math.inf:
                operator.result()
                promoted_at = now
            rows = frame.sample(int(random.integers(1, MAX_ROWS)), random_state=random)
            if now > promoted_at + DRIFT_AFTER:
                rows["MedInc"] = (DRIFT_FACTOR * rows["MedInc"]).clip(upper=20)
            send_requests(server.caller, rows, random)
            time.sleep(0.02 + 0.1 * np.cos(np.pi * (now - start) / CYCLE_SECONDS) ** 2)


def operate(home: Path, start: float) -> None:
    """Train two models, promote the candidate to production, and export the metrics about training after each step."""
    steps = (("train", "model=linear"), ("train", "model=decision_tree"), ("promote", "alias=production", *PROMOTION))
    for position, (name, *arguments) in enumerate(steps):
        at = start + PROMOTED_AT * (position + 1) / len(steps)
        time.sleep(max(0.0, at - time.monotonic()))
        run(home, name, *arguments)
        run(home, "export_metrics")


def send_requests(caller: Caller, rows: pd.DataFrame, random: np.random.Generator) -> None:
    """Request predictions, and sometimes send feedback, an invalid row or a request for an explanation."""
    response = caller.predict(rows, f"/predict{'?interval=0.9' if random.random() < 0.1 else ''}")
    if random.random() < 0.5:
        caller.send_feedback(response, rows["MedHouseVal"].to_numpy())
    row = rows.drop(columns="MedHouseVal").iloc[0].to_dict()
    if random.random() < 0.04:
        caller.ask("/predict", json.dumps({**row, **INVALID_VALUES[random.integers(len(INVALID_VALUES))]}).encode())
    if random.random() < 0.02:
        caller.ask("/explain", json.dumps(row).encode())
        caller.ask("/model")


if __name__ == "__main__":
    main()
