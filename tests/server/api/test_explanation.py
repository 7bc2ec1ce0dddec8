"""POST /explain."""

import json
import re
from typing import Any

import pytest

from tests.server.test_server import BAD_ROWS
from tests.support.server import Answer, Server
from tests.support.tables import FLAT

TOWN = {"north": 46.0, "east": 6.0, "area": 100.0, "rooms": None, "garden": True, "kind": "house"}


def explained(server: Server, row: Any) -> Answer:
    """Request an explanation."""
    return server.ask("/explain", json.dumps(row).replace("Infinity", "1e999").encode())


def test_contributions_add_up_to_the_prediction(rentals_server: Server) -> None:
    answer = explained(rentals_server, FLAT)
    assert (answer.status, answer.type) == (200, "application/json")
    result = answer.json
    assert (result["method"], result["model"], result["version"]) == ("exact", "housing-rentals", "1")
    assert list(result["contributions"]) == list(FLAT)
    assert result["prediction"] == pytest.approx(rentals_server.predict(FLAT).json["predictions"][0])
    assert result["base_value"] + sum(result["contributions"].values()) == pytest.approx(result["prediction"])
    larger = explained(rentals_server, {**FLAT, "area": 140.0}).json
    assert larger["contributions"]["area"] > 200 > 0 > result["contributions"]["area"]  # 8 a square metre; the middle is 85


def test_more_columns_than_the_limit_are_sampled(towns_server: Server) -> None:
    result = explained(towns_server, TOWN).json
    assert result["method"] == "sampled"
    assert 2048 < result["rows_evaluated"] <= 4096
    assert result["base_value"] + sum(result["contributions"].values()) == pytest.approx(result["prediction"])
    assert explained(towns_server, TOWN).json == result


@pytest.mark.parametrize(("change", "field", "reason"), BAD_ROWS)
def test_an_invalid_row_gets_the_same_error_as_predict(
    rentals_server: Server, change: dict[str, Any], field: str, reason: str
) -> None:
    answer = explained(rentals_server, {**FLAT, **change})
    assert (answer.status, answer.type) == (422, "application/problem+json")
    (error,) = answer.json["errors"]
    assert error["field"] == field and re.search(reason, error["reason"])
    body = json.dumps({**FLAT, **change}).replace("Infinity", "1e999").encode()
    assert answer.json == rentals_server.ask("/predict", body).json


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[1]", 422, "1 invalid value"),
        (b'{"instances": []}', 422, "invalid values"),
        (b'{"area": 1, "area": 2}', 400, "duplicate key 'area'"),
    ],
)
def test_a_body_that_is_not_a_row_is_rejected(rentals_server: Server, body: bytes, status: int, detail: str) -> None:
    answer = rentals_server.ask("/explain", body)
    assert (answer.status, answer.type) == (status, "application/problem+json")
    assert detail in answer.json["detail"]
    assert rentals_server.ask("/explain", body, Content_Type="text/plain").status == 415
