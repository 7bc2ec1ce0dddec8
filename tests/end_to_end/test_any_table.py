"""A table that a user declares in one YAML file: from CSV file to HTTP response, with three models."""

import json
from functools import partial
from pathlib import Path

import pytest

from housing.tracking import store as tracking
from tests.support.commands import command
from tests.support.server import Server, serving
from tests.support.tables import TABLES, rentals_frame
from tests.support.waiting import wait_for

DATA = (f"--config-dir={TABLES}", "data=rentals")
FORCED = ("force=true", "force_reason=every model must be served")
FLAT = {"area": 80.0, "rooms": 3, "furnished": False, "quarter": "harbour", "built": 1980}


@pytest.mark.long
def test_from_csv_file_to_http_response(home: Path) -> None:
    sweep_command = command(home, "housing.train", "-m", *DATA, "model=linear,decision_tree,xgboost")
    assert sweep_command.code == 0, sweep_command.err
    assert "3 of 3 runs finished" in sweep_command.out
    for model in ("linear", "decision_tree", "xgboost"):
        fitted = command(home, "housing.train", *DATA, f"model={model}")  # the sweep has fitted it
        assert "reused" in fitted.out
    (sweep_folder,) = (home / "outputs" / "sweeps").iterdir()
    jobs = json.loads((sweep_folder / "jobs.json").read_text(encoding="utf-8"))
    with serving(home) as server:
        for version, job in enumerate(jobs, start=1):
            promotion = command(home, "housing.promote", *DATA, f"run_id={job['run_id']}", *FORCED)
            assert promotion.code == 0, promotion.err
            wait_for(partial(serves, server, version), f"version {version} is served")
            assert_plausible_predictions(server)
    promoted = command(home, "housing.promote", *DATA, f"sweep={sweep_run(home)}")
    assert promoted.out.split()[0] in ("PROMOTE", "HOLD"), promoted.err
    rentals_frame(20, seed=9).drop(columns="rent").to_csv(home / "new.csv", index=False)
    predicted = command(home, "housing.predict", *DATA, f"file={home}/new.csv", f"out={home}/out.csv")
    assert predicted.code == 0, predicted.err
    assert (home / "out.csv").read_text().count("\n") == 21


def serves(server: Server, version: int) -> bool:
    """Return whether ten requests in a row reach workers that serve a version."""
    responses = [server.ask("/readyz") for _ in range(10)]
    return all(response.status == 200 and response.json["version"] == str(version) for response in responses)


def sweep_run(home: Path) -> str:
    """Return the parent run of the only sweep."""
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    (run,) = store.client.api.search_runs([store.client.experiment_id("rentals")], "tags.`housing.run_type` = 'sweep'")
    return str(run.info.run_id)


def assert_plausible_predictions(server: Server) -> None:
    """Check that the model predicts the rent, accepts a missing year and refuses an unknown category."""
    responses = [
        server.predict({**FLAT, **change}) for change in ({}, {"built": None}, {"furnished": True}, {"quarter": "hills"})
    ]
    assert [response.status for response in responses] == [200] * 4
    plain, unknown_year, furnished, hills = (response.json["predictions"][0] for response in responses)
    rent = 8 * 80 + 40 * 3 + 150 + 80  # the formula of rentals_frame
    assert abs(plain - rent) < 120
    assert abs(unknown_year - rent) < 250
    assert furnished >= plain
    assert hills > plain
    unknown = server.predict({**FLAT, "quarter": "moon"})
    assert unknown.status == 422
    reason = "Must be one of old town, harbour, hills (got 'moon')."
    assert unknown.json["errors"] == [{"row": 0, "field": "quarter", "reason": reason}]
