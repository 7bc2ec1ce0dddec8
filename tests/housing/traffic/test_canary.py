"""A canary on a real server with real feedback: it takes over or is taken back, also if its judge is killed."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from housing.core.canary import Canary, is_chosen
from housing.evaluation.sequential_test import log_rate_evidence
from housing.promotion.decision import CANARY, PROMOTE, TAKE_BACK
from housing.promotion.decision_log import list_decisions
from housing.server_files.rotating_file import PREDICTIONS
from housing.traffic.canary_requests import FAILS, SLOW, CanaryRequests
from housing.traffic.canary_settings import RequestRules
from tests.support.commands import FORKS, CommandResult, command, run_module, user_error
from tests.support.feedback import append, lines, log_dir, send_labels
from tests.support.homes import copy_home
from tests.support.promotions import MODEL, N_VERDICTS, TABLE, WORSE, at_home, kill_after_commit, open_store, promote_rentals
from tests.support.server import Server, serving
from tests.support.tables import rentals_frame, train
from tests.support.waiting import wait_for

RULES = RequestRules(failures_alpha=0.001, latency_ratio=2, latency_alpha=0.001)
CANARY_OF_2 = Canary("2", "1", 0.5, 0.0)
N_ROWS = 120
JUDGE = ("housing.canary", *TABLE, "rules.min_groups=20", "rules.min_hours=0")
FORCE = ("force=true", "force_reason=test", "gate.smoke_test_seconds=null")
EXPERIMENT = "rentals-decisions"


def send_rows(server: Server, home: Path, seed: int) -> set[str]:
    """Send flats, each in a request of its own, and their rents. Return the versions that answered."""
    before, frame = len(lines(log_dir(home), "joined")), rentals_frame(N_ROWS, seed)
    records = json.loads(frame.drop(columns="rent").to_json(orient="records"))
    answers = [server.predict(record).json for record in records]
    labels = [{"request_id": answer["request_id"], "value": rent} for answer, rent in zip(answers, frame["rent"], strict=True)]
    send_labels(server, labels)
    wait_for(lambda: len(lines(log_dir(home), "joined")) == before + N_ROWS, "all true values are joined")
    return {answer["version"] for answer in answers}


def canary_of(server: Server) -> object:
    """Return what the server says of its canary."""
    return server.ask("/models").json["models"][0]["canary"]


def kill_judge(home: Path, query: str) -> None:
    """Judge in a process that is killed once the store fulfils a query."""
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    process = FORKS.Process(target=_judge_until, args=(home, environ, query))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _judge_until(home: Path, environ: dict[str, str], query: str) -> None:
    kill_after_commit(home, query)
    run_module(JUDGE, environ, Path(os.devnull), Path(os.devnull))


@contextmanager
def following_judge(home: Path) -> Iterator[None]:
    """Judge the canaries of staging during the block, in a process of its own."""
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    arguments = ((*JUDGE, "follow=true"), environ, home / "judge.out", home / "judge.err")
    process = FORKS.Process(target=run_module, args=arguments)
    process.start()
    try:
        yield
        wait_for(lambda: "TAKE BACK" in (home / "judge.out").read_text(encoding="utf-8"), "the decision is printed")
    finally:
        process.terminate()
        process.join()


def judge(home: Path, *overrides: str) -> CommandResult:
    """Judge the canary of staging."""
    judged = command(home, *JUDGE, *overrides)
    assert judged.code == 0, judged.err
    return judged


@pytest.mark.long
def test_a_worse_canary_is_taken_back_and_a_better_one_takes_over_through_kills(tmp_path: Path, promoted_home: Path) -> None:
    home = tmp_path / "home"
    copy_home(promoted_home, home)
    store = open_store(home)
    with at_home(home), serving(home) as server:
        worse = f"run_id={train(home, *WORSE).run_id}"
        wait_for(lambda: server.answers("/readyz"), "version 1 is served")
        forced = promote_rentals(worse, "canary=0.3", *FORCE)
        assert (forced.verdict, forced.version, store.registry.version_at(MODEL, "staging")) == (CANARY, "2", "1")
        wait_for(lambda: canary_of(server) == {"version": "2", "share": 0.3}, "version 2 is the canary")
        assert "is the canary of staging already" in user_error(command(home, "housing.promote", *TABLE, "canary=0.1"))
        assert "undecided" in judge(home).out
        elsewhere = user_error(command(home, *JUDGE, "log_dir=/nowhere"))
        assert elsewhere.startswith("The log folder /nowhere does not exist. Start the server")
        unexplained = user_error(command(home, *JUDGE, "take_back=true"))
        assert unexplained.endswith("data=rentals alias=staging take_back=true reason=REASON")
        assert send_rows(server, home, seed=1) == {"1", "2"}
        kill_judge(home, N_VERDICTS.replace("count(*)", "count(*) = 3"))
        with following_judge(home):
            wait_for(lambda: canary_of(server) is None, "all requests are answered by version 1")
        assert store.registry.version_at(MODEL, "staging") == "1"
        assert list_decisions(store, EXPERIMENT)[0].reason.startswith("the canary is worse, after ")
        assert send_rows(server, home, seed=2) == {"1"}

        assert promote_rentals(worse, *FORCE).verdict == PROMOTE
        better = f"run_id={store.registry.run_of_version(MODEL, '1')}"
        assert promote_rentals(better, "canary=0.5", "gate.smoke_test_seconds=null").verdict == CANARY
        wait_for(lambda: canary_of(server) == {"version": "1", "share": 0.5}, "version 1 is the canary")
        assert send_rows(server, home, seed=3) == {"1", "2"}
        kill_judge(home, "select count(*) = 1 from registered_model_aliases where alias = 'staging' and version = 1")
        assert "has no canary" in judge(home).out
        wait_for(lambda: server.ask("/model").json["version"] == "1" and canary_of(server) is None, "version 1 is served")
    history = [(one.verdict, one.previous_version, one.version, one.finished) for one in list_decisions(store, EXPERIMENT)]
    taken_over = [(PROMOTE, "2", "1", False), (CANARY, "2", "1", True), (PROMOTE, "1", "2", True)]
    assert history[:3] == taken_over
    assert history[3:6] == [(TAKE_BACK, "2", "1", True), (TAKE_BACK, "2", "1", False), (CANARY, "1", "2", True)]


def log_requests(folder: Path, version: str, latencies: list[float], failures: int = 0) -> None:
    """Log requests of one row with these latencies, and failed ones."""
    entry = {"time": 1.0, "version": version, "columns": ["area"], "rows": [[1.0]], "predictions": [1.0]}
    failed = {**entry, "columns": [], "rows": [], "predictions": [], "failed": "ValueError"}
    answered = [{"id": f"{number}", **entry, "latency_ms": latency} for number, latency in enumerate(latencies)]
    append(folder, f"{PREDICTIONS}-{version}", *answered, *({"id": f"f{number}", **failed} for number in range(failures)))


def judge_requests(folder: Path) -> str:
    """Return the verdict on the logged requests of version 2, the canary of version 1."""
    requests = CanaryRequests(folder, "", CANARY_OF_2, RULES.latency_ratio)
    requests.read()
    requests.read()
    return requests.judge(RULES)[0]


@pytest.mark.parametrize(
    ("factor", "failures", "champion_failures", "verdict"),
    [(1.0, 0, 0, ""), (1.9, 2, 0, ""), (1.0, 12, 12, ""), (1.0, 20, 1, FAILS), (4.0, 0, 0, SLOW)],
)
def test_failures_and_latencies_take_a_canary_back(
    tmp_path: Path, factor: float, failures: int, champion_failures: int, verdict: str
) -> None:
    latencies = np.random.default_rng(0).lognormal(0.0, 0.3, 200)
    log_requests(tmp_path, "1", latencies.tolist(), champion_failures)
    log_requests(tmp_path, "2", (factor * latencies).tolist(), failures)
    log_requests(tmp_path, "3", (9 * latencies).tolist(), 50)  # of neither
    assert judge_requests(tmp_path) == verdict


def test_a_rate_is_seldom_exceeded_by_chance_at_any_look() -> None:
    random = np.random.default_rng(0)
    events = np.cumsum(random.random((200, 100)) < 0.3, axis=1)
    evidence = np.array([[log_rate_evidence(int(row[n]), n + 1, 0.3) for n in range(9, 100, 10)] for row in events])
    assert (evidence.max(axis=1) >= np.log(20)).mean() <= 0.05
    assert log_rate_evidence(60, 100, 0.3) > np.log(1e6)
    assert log_rate_evidence(0, 10_000, 0.5) < 0


def test_a_key_always_gets_the_same_version_and_each_canary_has_its_share_of_other_keys() -> None:
    keys = [f"key {number}" for number in range(20_000)]
    chosen = {key for key in keys if is_chosen("2", key, 0.1)}
    assert chosen == {key for key in keys if is_chosen("2", key, 0.1)}
    assert len(chosen) == pytest.approx(2000, rel=0.1)
    assert chosen < {key for key in keys if is_chosen("2", key, 0.3)}  # a larger share takes no client back
    assert len(chosen & {key for key in keys if is_chosen("3", key, 0.1)}) == pytest.approx(200, rel=0.4)


def test_only_a_canary_of_the_version_at_the_alias_is_one() -> None:
    assert Canary.parse("2", "1", CANARY_OF_2.tag) == CANARY_OF_2
    assert Canary.parse("2", "3", CANARY_OF_2.tag) is None  # the alias has moved
    for tag in (None, "", "[]", "{}", '{"champion": "1", "share": 2, "since": 0}'):
        assert Canary.parse("2", "1", tag) is None
