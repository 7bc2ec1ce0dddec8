"""The documents of output=json: one on standard output whatever happens, and each fits its published schema."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from housing.api.documents import RESULTS, schemas
from housing.command_line import help as command_help
from housing.core.environment import PROJECT
from tests.support.commands import CommandResult, command
from tests.support.homes import copy_home
from tests.support.server import free_port
from tests.support.tables import FLAT, RENTALS_DATA, RENTALS_SWEEP, TABLES, rentals_frame
from tests.support.waiting import wait_for

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema, which schemathesis needs, is not installed")
SCHEMAS = PROJECT / "docs" / "reference" / "schemas"
RENTALS = (f"--config-dir={TABLES}", "data=rentals")
LINEAR = ("model=linear", "figures=false")


def document(result: CommandResult) -> dict[str, Any]:
    """Return the one document on standard output, which fits the published schema and has the exit code."""
    content: dict[str, Any] = json.loads(result.out)
    schema = json.loads((SCHEMAS / f"{content['command']}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(content)
    assert content["exit_code"] == result.code
    return content


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory, promoted_home: Path) -> Path:
    """A home with a promoted linear model of the rentals table, for this module."""
    directory = tmp_path_factory.mktemp("documents")
    copy_home(promoted_home, directory)
    rentals_frame(20, seed=3).to_csv(directory / "rows.csv", index=False)
    return directory


@pytest.fixture(scope="module")
def run_id(own_home: Path) -> str:
    """The run of the promoted model."""
    trained = document(command(own_home, "housing.train", *RENTALS_DATA, *LINEAR, "output=json"))
    assert trained["result"]["jobs"][0]["reused"]
    return str(trained["result"]["best_run_id"])


@pytest.mark.parametrize(
    ("name", "overrides", "member", "value"),
    [
        ("alias", RENTALS, "version", "1"),
        ("canary", RENTALS, "verdict", "none"),
        ("clean", RENTALS, "is_dry_run", True),
        ("describe", ("file={home}/rows.csv", "target=rent", "--config-dir={home}/my"), "rows", 20),
        ("doctor", (*RENTALS, "serve.url=http://127.0.0.1:1"), "failed", ["server"]),
        ("export_metrics", RENTALS, "is_pending", False),
        ("fetch", ("data=synthetic", "data.rows=50"), "rows", 50),
        ("history", RENTALS, "decisions", None),
        ("predict", (*RENTALS, "file={home}/rows.csv", "out={home}/out.csv"), "rows", 20),
        ("prepare", (*RENTALS, "out={home}/out.parquet"), "table", "rentals"),
        ("promote", (*RENTALS, "run_id={run}", "gate.smoke_test_seconds=null"), "verdict", "HOLD"),
        ("report", (*RENTALS, "run_id={run}"), "path", None),
        ("card", RENTALS, "html", None),
        ("reproduce", (*RENTALS, "run_id={run}"), "is_equal", True),
        ("rollback", RENTALS, None, None),  # an error: there is nothing to roll back to
        ("replay", (*RENTALS, "run_id={run}"), None, None),  # an error: no log
        ("monitor", RENTALS, None, None),  # an error: no log
        ("train", (*RENTALS_SWEEP, "model=linear", "seed=1,2"), "sweep_run_id", None),
        ("ingest", (*RENTALS, "file={home}/rows.csv"), "added", 20),  # last, since it changes the table
    ],
)
def test_each_command_writes_one_document_of_its_schema(
    own_home: Path, run_id: str, name: str, overrides: Sequence[str], member: str | None, value: object
) -> None:
    (own_home / "my").mkdir(exist_ok=True)
    words = [word.format(home=own_home, run=run_id) for word in overrides]
    written = document(command(own_home, f"housing.{name}", *words, "output=json"))
    assert written["command"] == name
    assert (written["result"] is None) == (member is None) == (written["error"] is not None), written
    assert member is None or written["result"][member] == value or (value is None and written["result"][member])


def test_an_error_of_the_command_line_is_a_document_too(own_home: Path) -> None:
    for overrides, kind in ((["nmae=x"], "ConfigError"), (["--nothing"], "ConfigError"), (["file=none.csv"], "HousingError")):
        result = command(own_home, "housing.describe", *overrides, "output=json")
        error = document(result)["error"]
        assert (result.code, error["type"]) == (1, kind)
        assert f"error: {error['message']}" in result.err


def test_flags_between_overrides_end_with_a_document_too(own_home: Path) -> None:
    result = command(own_home, "housing.alias", "data=rentals", "--config-dir=my", "alias=staging", "output=json")
    assert (result.code, document(result)["error"]["type"]) == (2, "SystemExit")
    assert "unrecognized arguments" in result.err


def test_the_violations_of_a_table_are_listed(own_home: Path) -> None:
    rows = rentals_frame(3, seed=4).assign(area="much")
    rows.to_csv(own_home / "wrong.csv", index=False)
    words = (f"file={own_home}/wrong.csv", f"out={own_home}/out.csv", "output=json")
    error = document(command(own_home, "housing.predict", *RENTALS, *words))["error"]
    assert error["type"] == "TableError"
    assert [(violation["row"], violation["field"]) for violation in error["violations"]] == [
        (0, "area"),
        (1, "area"),
        (2, "area"),
    ]


def test_an_unknown_output_is_refused(own_home: Path) -> None:
    result = command(own_home, "housing.alias", "output=xml")
    assert (result.code, result.err) == (1, "error: output must be text or json (got 'xml').\n")


@pytest.mark.long
def test_a_server_writes_its_document_at_the_start_and_a_replay_of_its_log_another(own_home: Path) -> None:
    environ = {**os.environ, "HOUSING_HOME": str(own_home)}
    words = [*RENTALS, "output=json", f"serve.port={free_port()}", "serve.workers=1", "serve.drain_seconds=0"]
    arguments = [sys.executable, "-m", "housing.serve", *words]
    with (
        (own_home / "serve.log").open("wb") as log,
        subprocess.Popen(arguments, cwd=PROJECT, env=environ, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            started = document(CommandResult(0, process.stdout.read(), ""))["result"]
            request = ["curl", "--silent", "--fail", "--json", json.dumps(FLAT), f"{started['url']}/predict"]
            wait_for(lambda: subprocess.run(request, check=False, capture_output=True).returncode == 0, "the server predicts")
        finally:
            process.terminate()
    assert started["models"] == ["housing-rentals@staging"]
    replayed = document(command(own_home, "housing.replay", *RENTALS, "version=1", "output=json"))
    assert replayed["result"]["numbers"]["replay_rows"] == 1.0


@pytest.mark.long
def test_a_retraining_keeps_the_output_of_its_subcommands_out_of_the_document(own_home: Path) -> None:
    words = [
        'sweep_overrides=["model=linear","features=none","figures=false"]',
        'promote_overrides=["gate.smoke_test_seconds=null"]',
    ]
    result = command(own_home, "housing.retrain", *RENTALS, *words, "output=json")
    assert document(result)["result"]["verdict"] in ("HOLD", "PROMOTE"), result.err
    assert "ranked by rmse" in result.err


def test_each_command_has_a_published_schema() -> None:
    assert set(RESULTS) == set(command_help.command_names())
    assert {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in SCHEMAS.glob("*.json")} == schemas()
