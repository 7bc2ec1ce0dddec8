"""A table of the user's own, declared in one YAML file, from file to HTTP answer with all three models."""

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
FORCED = ("force=true", "force_reason=each of them is to be served")
FLAT = {"area": 80.0, "rooms": 3, "furnished": False, "quarter": "harbour", "built": 1980}


@pytest.mark.long
def test_from_file_to_answer(home: Path) -> None:
    swept = command(home, "housing.train", "-m", *DATA, "model=linear,decision_tree,xgboost")
    assert swept.code == 0, swept.err
    assert "3 of 3 runs finished" in swept.out
    for model in ("linear", "decision_tree", "xgboost"):
        fitted = command(home, "housing.train", *DATA, f"model={model}")  # reused: the sweep has fitted it
        assert "reused" in fitted.out
    (sweep,) = (home / "outputs" / "sweeps").iterdir()
    jobs = json.loads((sweep / "jobs.json").read_text(encoding="utf-8"))
    with serving(home) as server:
        for version, job in enumerate(jobs, start=1):
            judged = command(home, "housing.promote", *DATA, f"run_id={job['run_id']}", *FORCED)
            assert judged.code == 0, judged.err
            wait_for(partial(serves, server, version), f"version {version} is served")
            assert_answers(server)
    promoted = command(home, "housing.promote", *DATA, f"sweep={sweep_run(home)}")
    assert promoted.out.split()[0] in ("PROMOTE", "HOLD"), promoted.err
    rentals_frame(20, seed=9).drop(columns="rent").to_csv(home / "new.csv", index=False)
    predicted = command(home, "housing.predict", *DATA, f"file={home}/new.csv", f"out={home}/out.csv")
    assert predicted.code == 0, predicted.err
    assert (home / "out.csv").read_text().count("\n") == 21


def serves(server: Server, version: int) -> bool:
    """Whether every worker that is asked serves a version."""
    told = [server.ask("/readyz") for _ in range(10)]
    return all(answer.status == 200 and answer.json["version"] == str(version) for answer in told)


def sweep_run(home: Path) -> str:
    """The run of the only sweep."""
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    (run,) = store.client.api.search_runs([store.client.experiment_id("rentals")], "tags.`housing.run_type` = 'sweep'")
    return str(run.info.run_id)


def assert_answers(server: Server) -> None:
    """The model that is served knows what makes a rent, takes a missing year, and refuses an unseen category."""
    answers = [server.predict({**FLAT, **change}) for change in ({}, {"built": None}, {"furnished": True}, {"quarter": "hills"})]
    assert [answer.status for answer in answers] == [200] * 4
    plain, unknown_year, furnished, hills = (answer.json["predictions"][0] for answer in answers)
    rent = 8 * 80 + 40 * 3 + 150 + 80  # how rentals_frame makes a rent
    assert abs(plain - rent) < 120
    assert abs(unknown_year - rent) < 250
    assert furnished >= plain
    assert hills > plain
    unseen = server.predict({**FLAT, "quarter": "moon"})
    assert unseen.status == 422
    reason = "'moon' is not a category; allowed: old town, harbour, hills"
    assert unseen.json["errors"] == [{"row": 0, "field": "quarter", "reason": reason}]
