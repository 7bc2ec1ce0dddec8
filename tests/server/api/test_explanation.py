"""POST /explain, as callers meet it."""

import json
from typing import Any

import pytest

from tests.server.test_server import BAD_ROWS
from tests.support.server import Answer, Server
from tests.support.tables import FLAT

TOWN = {"north": 46.0, "east": 6.0, "area": 100.0, "rooms": None, "garden": True, "kind": "house"}


def explained(server: Server, row: Any) -> Answer:
    """Ask for an explanation."""
    return server.ask("/explain", json.dumps(row).replace("Infinity", "1e999").encode())


def test_contributions_add_up_to_the_prediction(rentals_server: Server) -> None:
    answer = explained(rentals_server, FLAT)
    assert (answer.status, answer.type) == (200, "application/json")
    told = answer.json
    assert (told["method"], told["model"], told["version"]) == ("exact", "housing-rentals", "1")
    assert list(told["contributions"]) == list(FLAT)
    assert told["prediction"] == pytest.approx(rentals_server.predict(FLAT).json["predictions"][0])
    assert told["base_value"] + sum(told["contributions"].values()) == pytest.approx(told["prediction"])
    larger = explained(rentals_server, {**FLAT, "area": 140.0}).json
    assert larger["contributions"]["area"] > 200 > 0 > told["contributions"]["area"]  # 8 a square metre; the middle is 85


def test_beyond_the_setting_it_is_a_sample(towns_server: Server) -> None:
    told = explained(towns_server, TOWN).json
    assert told["method"] == "sampled"
    assert 2048 < told["rows_evaluated"] <= 4096
    assert told["base_value"] + sum(told["contributions"].values()) == pytest.approx(told["prediction"])
    assert explained(towns_server, TOWN).json == told


@pytest.mark.parametrize(("change", "field", "reason"), BAD_ROWS)
def test_a_bad_row_gets_the_answer_of_predict(rentals_server: Server, change: dict[str, Any], field: str, reason: str) -> None:
    answer = explained(rentals_server, {**FLAT, **change})
    assert (answer.status, answer.type) == (422, "application/problem+json")
    (error,) = answer.json["errors"]
    assert error["field"] == field and reason in error["reason"]
    body = json.dumps({**FLAT, **change}).replace("Infinity", "1e999").encode()
    assert answer.json == rentals_server.ask("/predict", body).json


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 400, "not JSON"),
        (b"[1]", 422, "1 value"),
        (b'{"instances": []}', 422, "values are not allowed"),
        (b'{"area": 1, "area": 2}', 400, "the key 'area' is there twice"),
    ],
)
def test_a_body_that_is_no_row_is_refused(rentals_server: Server, body: bytes, status: int, detail: str) -> None:
    answer = rentals_server.ask("/explain", body)
    assert (answer.status, answer.type) == (status, "application/problem+json")
    assert detail in answer.json["detail"]
    assert rentals_server.ask("/explain", body, Content_Type="text/plain").status == 415
