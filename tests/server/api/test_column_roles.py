"""Requests for a table with columns of every role, and with columns that a row may leave out."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server.prediction_log.reader import LogFilter, read_entries
from tests.support.server import Server, promoted, serving
from tests.support.waiting import wait_for

ROW = {"size": 20.5, "colour": "red", "age": 4}
UNUSED = {"order": "17", "customer": "ann", "week": 3, "copies": 1.5, "note": {"any": "thing"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """Yield a server of the orders."""
    home = promoted(tmp_path_factory.mktemp("orders"), "orders", empty_store)
    with serving(home, "data=orders", "serve.workers=1") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def predictions(server: Server, body: Any, route: str = "/predict") -> list[float]:
    """Return the predictions of a valid request."""
    answer = server.ask(route, json.dumps(body).encode())
    assert answer.status == 200, answer
    values: list[float] = answer.json["predictions"]
    return values


def test_a_nullable_column_may_be_left_out_of_every_layout(server: Server) -> None:
    whole = predictions(server, {"size": 20.5, "colour": None, "age": None})
    assert predictions(server, {"size": 20.5}) == whole
    assert predictions(server, {"instances": [{"size": 20.5}, ROW]}) == [*whole, *predictions(server, ROW)]
    assert predictions(server, {"columns": ["size"], "rows": [[20.5]]}) == whole
    for body in (
        {"dataframe_split": {"columns": ["size"], "data": [[20.5]]}},
        {"dataframe_records": [{"size": 20.5}]},
        {"inputs": {"size": [20.5]}},
    ):
        assert predictions(server, body, "/invocations") == whole


def test_a_column_that_no_model_receives_is_ignored(server: Server) -> None:
    expected = predictions(server, ROW)
    assert predictions(server, {**ROW, **UNUSED}) == expected
    assert predictions(server, {"instances": [{**UNUSED, **ROW}]}) == expected
    row = {**UNUSED, **ROW}
    assert predictions(server, {"columns": list(row), "rows": [list(row.values())]}) == expected
    assert predictions(server, {"dataframe_records": [row]}, "/invocations") == expected


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({"colour": "red"}, "size", "Missing required value."),
        ({**ROW, "price": 5}, "price", "Not a column of this model."),
        ({**ROW, "shop": 5}, "shop", "Not a column of this model."),
        ({"size": None}, "size", "Missing required value."),
        ({"columns": ["colour"], "rows": [["red"]]}, "size", "Missing required value."),
        ({"columns": ["size", "shop"], "rows": [[1, 2]]}, "shop", "Not a column of this model."),
        ({"columns": ["size", "note", "note"], "rows": [[1, 2, 3]]}, None, None),
    ],
)
def test_other_columns_are_named(server: Server, body: Any, field: str | None, reason: str | None) -> None:
    answer = server.predict(body)
    if field is None:
        assert answer.status in (200, 422)
        return
    assert answer.status == 422
    assert {"field": field, "reason": reason}.items() <= answer.json["errors"][0].items()


def test_the_document_says_which_columns_are_required(server: Server) -> None:
    row = server.ask("/openapi.json").json["components"]["schemas"]["Row"]
    assert row["required"] == ["size"]
    assert set(row["properties"]) == {*ROW, *UNUSED}


def test_the_log_has_the_columns_that_were_sent(server: Server) -> None:
    answer = server.predict({**ROW, **UNUSED})
    logged = partial(read_entries, server.log.parent / "serving" / "orders-staging.log", LogFilter(id=answer.json["request_id"]))
    wait_for(lambda: bool(logged()[0]), "the request is logged")
    ((entry,), _) = logged()
    assert dict(zip(entry["columns"], entry["rows"][0], strict=True)) == {**ROW, **UNUSED}
