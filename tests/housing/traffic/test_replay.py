"""The replay of a real server's log: differences, refused rows, damaged lines and errors on true values."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, HousingError
from housing.server_files.rotating_file import PREDICTIONS, list_files
from housing.tracking import store as tracking
from housing.traffic.replay import ARTIFACTS, replay_candidate
from housing.traffic.result import ReplayResult
from tests.support.commands import command
from tests.support.feedback import append, lines, log_dir, send_labels
from tests.support.server import promoted, serving
from tests.support.tables import TABLES, config, rentals_frame, train
from tests.support.waiting import wait_for

BROKEN = (
    b'{"id": "half',
    b"[1]",
    b'{"id": "a", "time": 1, "version": "1", "columns": ["area"], "rows": [[1, 2]], "predictions": [1]}',
)
N_LABELS = 130  # requests of one row, each with a true value
FEATURES = ["area", "rooms", "furnished", "quarter", "built"]


@dataclass(frozen=True)
class Traffic:
    """A home with a served model, other candidates, and the rows that were logged.

    Attributes
    ----------
    rows, answers
        The logged rows, and the predictions that their callers got.
    labels
        The true values of the first rows.
    runs
        The run of each candidate.
    """

    home: Path
    rows: pd.DataFrame
    answers: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    labels: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    runs: dict[str, str]

    def replay(self, candidate: str, *overrides: str) -> ReplayResult:
        """Replay the log with a candidate."""
        return replay_candidate(config("replay", "data=rentals", f"run_id={self.runs[candidate]}", *overrides))[0]


def fit(home: Path, *overrides: str) -> str:
    """Fit a candidate and return its run."""
    return str(train(home, "model=linear", "figures=false", "interval=none", *overrides).run_id)


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Traffic]:
    """The log of a server with two workers, with feedback, and three candidates that were fitted before it."""
    home = promoted(tmp_path_factory.mktemp("traffic"), "rentals", empty_store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(home))
        wider = rentals_frame().assign(balcony=lambda frame: frame["rooms"] > 3)
        wider.to_csv(home / "data" / "wider.csv", index=False)
        towns = rentals_frame()
        towns[towns["quarter"] != "hills"].to_csv(home / "data" / "flat.csv", index=False)
        runs = {
            "linear": fit(home),
            "wider": fit(home, f"data.path={home}/data/wider.csv", "+data.columns.balcony={type: bool}"),
            "flat": fit(home, f"data.path={home}/data/flat.csv", "data.columns.quarter.categories=[harbour,old town]"),
        }
        rows = rentals_frame(N_LABELS + 200, seed=7)
        answers: list[float] = []
        with serving(home) as server:
            wait_for(lambda: server.answers("/readyz"), "the model is published")
            records = json.loads(rows[FEATURES].to_json(orient="records"))
            for number, record in enumerate(records[:N_LABELS]):
                answer = server.predict(record).json
                answers += answer["predictions"]
                true_value = float(rows["rent"].iloc[number])
                send_labels(server, [{"request_id": answer["request_id"], "value": true_value + 1000}])  # corrected below
                send_labels(server, [{"request_id": answer["request_id"], "value": true_value}])
            answers += server.predict({"instances": records[N_LABELS:]}).json["predictions"]
            wait_for(lambda: len(lines(log_dir(home), "joined")) == 2 * N_LABELS, "all true values are joined")
            wait_for(lambda: len(lines(log_dir(home), "predictions")) == N_LABELS + 1, "all predictions are logged")
        yield Traffic(home, rows, np.array(answers), rows["rent"].to_numpy()[:N_LABELS], runs)


def predictions(traffic: Traffic, candidate: str, rows: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return what a candidate's bundle predicts for rows."""
    store = tracking.connect(config("replay", "data=rentals").mlflow)
    model = store.runs.get(traffic.runs[candidate]).tags["housing.model_id"]
    with store.artifacts.bundle(f"models:/{model}") as folder:
        bundle = Bundle.read(folder)
        return bundle.predict(bundle.schema.encode_frame(rows[FEATURES]))


def test_differences_are_those_of_the_logged_rows(traffic: Traffic) -> None:
    result = traffic.replay("linear")
    difference = predictions(traffic, "linear", traffic.rows) - traffic.answers
    overall = result.differences.overall
    assert (result.rows, result.log.entries, result.log.malformed, result.candidate.refused) == (330, N_LABELS + 1, 0, 0)
    assert (overall.mean, overall.rms) == pytest.approx((difference.mean(), np.sqrt(np.mean(difference**2))))
    assert (overall.mean_absolute, result.differences.largest) == pytest.approx((abs(difference).mean(), abs(difference).max()))
    quarter = next(column for column in result.differences.by_column() if column.name == "quarter")
    assert {name: bin_.rows for name, bin_ in quarter.bins.items()} == traffic.rows["quarter"].value_counts().to_dict()
    means = {name: difference[(traffic.rows["quarter"] == name).to_numpy()].mean() for name in quarter.bins}
    assert {name: bin_.mean for name, bin_ in quarter.bins.items()} == pytest.approx(means)
    between = sum(bin_.rows * (means[name] - difference.mean()) ** 2 for name, bin_ in quarter.bins.items()) / len(difference)
    assert quarter.explained == pytest.approx(between / difference.var())
    built = next(column for column in result.differences.by_column() if column.name == "built")
    assert built.bins["missing"].rows == traffic.rows["built"].isna().sum()


def test_errors_are_compared_on_the_last_true_value_of_each_row(traffic: Traffic) -> None:
    errors = traffic.replay("linear").errors
    assert (errors.labels, errors.in_table, errors.undecided) == (N_LABELS, 0, 0)
    assert errors.difference is not None
    error = predictions(traffic, "linear", traffic.rows[:N_LABELS]) - traffic.labels
    assert errors.difference.challenger_score == pytest.approx(np.sqrt(np.mean(error**2)))
    answered = traffic.answers[:N_LABELS] - traffic.labels
    assert errors.difference.champion_score == pytest.approx(np.sqrt(np.mean(answered**2)))
    assert errors.difference.units == N_LABELS
    assert errors.sentence.startswith(("The candidate's error is", "No significant difference"))


def test_few_groups_of_true_values_allow_no_statement(traffic: Traffic) -> None:
    errors = traffic.replay("linear", f"min_groups={N_LABELS + 1}").errors
    assert errors.sentence.startswith("Too few true values to tell: RMSE ")
    assert errors.difference is not None
    assert (errors.difference.lower, errors.difference.is_better, errors.difference.is_worse) == (None, False, False)


def test_rows_of_the_candidates_table_are_no_evidence(traffic: Traffic) -> None:
    table = traffic.home / "data" / "known.csv"
    pd.concat([rentals_frame(), traffic.rows[:100]]).to_csv(table, index=False)
    run = fit(traffic.home, f"data.path={table}")
    known = Traffic(traffic.home, traffic.rows, traffic.answers, traffic.labels, {"known": run})
    errors = known.replay("known", "min_groups=6").errors
    assert (errors.labels, errors.in_table, errors.undecided) == (N_LABELS, 100, 0)
    assert errors.difference is not None and errors.difference.rows == N_LABELS - 100
    table.unlink()  # then nobody can know which of the true values, which are older than the candidate, it has seen
    errors = known.replay("known").errors
    assert (errors.in_table, errors.undecided, errors.difference) == (0, N_LABELS, None)
    assert errors.sentence.startswith("Errors cannot be compared")


def test_a_candidate_with_a_further_column_refuses_every_row(traffic: Traffic) -> None:
    result = traffic.replay("wider")
    assert (result.candidate.predicted, result.candidate.refused, result.refused_labels) == (0, 330, N_LABELS)
    assert dict(result.candidate.reasons) == {("balcony", "Missing required value."): 330}
    assert "replay_mean_difference" not in result.metrics()


def test_a_candidate_without_a_category_refuses_its_rows(traffic: Traffic) -> None:
    result = traffic.replay("flat")
    is_hill = (traffic.rows["quarter"] == "hills").to_numpy()
    assert result.candidate.refused == is_hill.sum()
    assert dict(result.candidate.reasons) == {("quarter", "Must be one of harbour, old town."): is_hill.sum()}
    difference = predictions(traffic, "flat", traffic.rows[~is_hill]) - traffic.answers[~is_hill]
    assert result.differences.overall.mean == pytest.approx(difference.mean())
    assert result.refused_labels == is_hill[:N_LABELS].sum()


def test_damaged_lines_are_counted_and_rotated_files_are_read(traffic: Traffic, tmp_path: Path) -> None:
    for path in list_files(log_dir(traffic.home), PREDICTIONS):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    newest = list_files(tmp_path, PREDICTIONS)[-1]
    entry = lines(tmp_path, PREDICTIONS)[0]
    older = {**entry, "time": entry["time"] - 86400, "version": "old"}
    append(tmp_path, f"{PREDICTIONS}-7", older)
    rotated = list_files(tmp_path, f"{PREDICTIONS}-7")[0]
    rotated.rename(tmp_path / f"{PREDICTIONS}-7-20200101T000000.000000Z.jsonl")
    with newest.open("ab") as file:
        file.write(b"\n".join(BROKEN))  # the last one has no end of line, as a killed worker leaves it
    result = traffic.replay("linear", f"log_dir={tmp_path}")
    assert (result.log.entries, result.log.malformed) == (N_LABELS + 2, len(BROKEN))
    assert {version: bin_.rows for version, bin_ in result.differences.by_version().items()} == {"1": 330, "old": 1}
    assert result.errors.labels == 0  # this folder has no feedback


def before_last_request(traffic: Traffic) -> str:
    """Return a moment between the last request and the one before, in whole microseconds as `since` reads it."""
    times = sorted(entry["time"] for entry in lines(log_dir(traffic.home), PREDICTIONS))
    return datetime.fromtimestamp((times[-2] + times[-1]) / 2, UTC).isoformat(timespec="microseconds")


def test_only_requests_of_the_period_are_replayed(traffic: Traffic) -> None:
    moment = before_last_request(traffic)
    result = traffic.replay("linear", f"since={moment}")
    assert (result.log.entries, result.rows, result.errors.labels) == (1, 200, 0)
    assert traffic.replay("linear", f"until={moment}").rows == N_LABELS
    with pytest.raises(HousingError, match="has no entry since 2100-01-01T00:00:00"):
        traffic.replay("linear", "since=2100-01-01")


def test_command_prints_a_summary_and_logs_to_the_candidates_run(traffic: Traffic) -> None:
    moment = before_last_request(traffic)
    store = tracking.connect(config("replay", "data=rentals").mlflow)
    arguments = (f"--config-dir={TABLES}", "data=rentals", f"run_id={traffic.runs['linear']}")
    for rows, period in ((330, ()), (200, (f"since={moment}",))):
        done = command(traffic.home, "housing.replay", *arguments, *period)
        assert done.code == 0, done.err
        assert re.search(rf"^run \w+: {rows} rows of \d+ requests .*, {rows} predicted$", done.out, re.MULTILINE)
        assert re.search(r"^difference   mean [-+][\d.]+   mean absolute", done.out, re.MULTILINE)
        # the latest replay counts, also if its numbers are lower
        assert store.runs.get(traffic.runs["linear"]).metrics["replay_rows"] == rows
    page = Path(done.out.splitlines()[-1].removeprefix("written: "))
    assert page.parent == traffic.home / "outputs" / ARTIFACTS
    assert "Differences on the map" not in page.read_text(encoding="utf-8")  # rentals have no coordinates
    with store.artifacts.directory(traffic.runs["linear"], ARTIFACTS) as folder:
        suffixes = sorted(path.suffix for path in folder.iterdir())
        summary = json.loads(max(folder.glob("*.json")).read_text(encoding="utf-8"))
    assert suffixes == [".html", ".html", ".json", ".json"]
    assert summary["replay_rows"] == 200


@pytest.mark.usefixtures("traffic")
def test_version_and_alias_name_the_candidate() -> None:
    for selector in ("version=1", "alias=staging"):
        result = replay_candidate(config("replay", "data=rentals", selector))[0]
        assert result.name == "version 1"
        assert result.differences.overall.rms == pytest.approx(0, abs=1e-3)  # it gave the answers itself


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "Exactly one of version, alias and run_id must name the candidate .got none."),
        (("version=1", "alias=staging"), "got version, alias"),
        (("alias=stagin",), "Did you mean alias=staging"),
        (("alias=production",), "has no version at alias production"),
        (("version=99",), "has no version 99"),
        (("version=1", "since=yesterday"), "since must be a time such as 2026-11-24"),
        (("version=1", "since=2026-11-25", "until=2026-11-24"), "since must be before until"),
        (("version=1", "log_dir=/nowhere"), "log_dir=/nowhere has no prediction log"),
        (("version=1", "metric=r2"), "metric must be one of rmse, mae"),
    ],
)
@pytest.mark.usefixtures("traffic")
def test_invalid_options_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises((ConfigError, HousingError), match=message):
        replay_candidate(config("replay", "data=rentals", *overrides))
