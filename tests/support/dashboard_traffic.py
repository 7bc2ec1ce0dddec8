"""Synthetic traffic for the pictures of the dashboards: a new version takes over, then a column drifts."""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from housing.core.environment import PROJECT
from tests.support import prometheus
from tests.support.commands import command
from tests.support.dashboard_pictures import OF_SERVER, draw
from tests.support.monitored_server import Caller, MonitoredServer, monitored

DURATION_SECONDS, DRIFT_START = 360, 0.67  # the second version takes over at half time, the drift starts later
CYCLE_SECONDS = 110  # of the request rate
MAX_ROWS = 30  # of a request
DRIFT_FACTOR = 1.7
INVALID_VALUES = ({"Latitude": 70.0}, {"MedInc": "high"}, {"MedInc": "low"})


def main() -> None:
    """Serve two models of the California table, send traffic, and draw the dashboards into docs/images/."""
    if not prometheus.is_installed():
        raise SystemExit(f"error: {prometheus.HINT}")
    with tempfile.TemporaryDirectory() as folder:
        home, directory = Path(folder, "home"), Path(folder, "prometheus")
        home.mkdir()
        directory.mkdir()
        run(home, "fetch")
        run(home, "train", "features=none", "interval.estimator.n_estimators=50")
        run(home, "promote")
        run(home, "train", "features=static")
        os.environ["HOUSING_HOME"] = str(home)
        with monitored(home, directory, "california") as server:
            send_traffic(server, home)
            draw(server.prometheus, PROJECT / "docs" / "images", OF_SERVER)


def run(home: Path, name: str, *arguments: str) -> None:
    """Run a command on the California table, which must succeed."""
    result = command(home, f"housing.{name}", "data=california", *arguments)
    if result.code:
        raise SystemExit(f"error: housing.{name} failed with exit code {result.code}:\n{result.out}{result.err}")


def send_traffic(server: MonitoredServer, home: Path) -> None:
    """Send requests at a changing rate, and promote the second version at half time."""
    frame, random = pd.read_csv(home / "data" / "california.csv"), np.random.default_rng(0)
    start, promoted = time.monotonic(), False
    while (elapsed := time.monotonic() - start) < DURATION_SECONDS:
        if elapsed > DURATION_SECONDS / 2 and not promoted:
            run(home, "promote", "force=true", "force_reason=a new version for the pictures", "gate.smoke_test_seconds=null")
            promoted = True
        rows = frame.sample(int(random.integers(1, MAX_ROWS)), random_state=random)
        if elapsed > DRIFT_START * DURATION_SECONDS:
            rows["MedInc"] = (DRIFT_FACTOR * rows["MedInc"]).clip(upper=20)
        send_requests(server.caller, rows, random)
        time.sleep(0.02 + 0.1 * np.cos(np.pi * elapsed / CYCLE_SECONDS) ** 2)


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
