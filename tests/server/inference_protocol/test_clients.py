"""Unchanged clients of the Open Inference Protocol, each in an environment of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import inference_clients
from tests.support.peer_environments import peer_python
from tests.support.server import Server
from tests.support.tables import FLAT

pytestmark = pytest.mark.long  # the first run installs the clients

FLATS = [FLAT, {**FLAT, "area": 60.0, "furnished": False, "quarter": "harbour", "built": 2000}]
TASK = {
    "model": "housing-rentals",
    "version": "1",
    "nullable": "built",
    "columns": {name: [flat[name] for flat in FLATS] for name in FLAT},
}


def run_client(environment: str, program: str, server: Server, **changes: str) -> dict[str, Any]:
    """Run a program of inference_clients and return its answers."""
    try:
        python = peer_python(environment)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the client could not be installed: {error}")
    file = Path(inference_clients.__file__).with_name(f"{program}.py")
    task = json.dumps({"url": server.url, **TASK, **changes})
    done = subprocess.run([python, str(file)], input=task, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def bounds(rentals_server: Server) -> list[list[float]]:
    """Return the predictions and bounds of the flats."""
    answer = rentals_server.ask("/predict?interval=0.9", json.dumps({"instances": FLATS}).encode()).json
    return [answer[name] for name in ("predictions", "lower", "upper")]


def test_tritonclient(rentals_server: Server, bounds: list[list[float]]) -> None:
    answers = run_client("mlserver", "triton", rentals_server)
    assert (answers["live"], answers["ready"], answers["name"], answers["id"]) == (True, True, "housing", "mine")
    assert [tensor["name"] for tensor in answers["inputs"]] == list(FLAT)
    for is_binary in (False, True):
        assert answers[f"columns, binary {is_binary}"] == bounds[0]
        assert answers[f"bounds, binary {is_binary}"] == bounds
        assert answers[f"quantiles, binary {is_binary}"] == [pytest.approx(bound, rel=1e-12) for bound in bounds[1:]]
    assert answers["error"].startswith("[422] 2 invalid values.\nrow 0, area: Must be at least 5")


def test_kserve(rentals_server: Server, bounds: list[list[float]]) -> None:
    answers = run_client("kserve", "kserve_rest", rentals_server)
    assert (answers["live"], answers["ready"], answers["name"]) == (True, True, "housing-rentals")
    for is_binary in (False, True):
        assert answers[f"bounds, binary {is_binary}"] == bounds
    assert answers["quantiles"] == pytest.approx([value for row in zip(*bounds[1:], strict=True) for value in row], rel=1e-12)
    assert "rooms: Missing required value." in answers["error"]


def test_codecs_of_mlserver(rentals_server: Server, bounds: list[list[float]]) -> None:
    answers = run_client("mlserver", "mlserver_codecs", rentals_server)
    assert answers["frame"] == bounds[0]
    without_year = rentals_server.predict({**FLATS[0], "built": None}).json["predictions"]
    assert answers["missing"] == [*without_year, bounds[0][1]]
