"""POST /curves, as callers meet it."""

import json
from typing import Any

import pytest

from tests.server.api.test_explanation import TOWN
from tests.server.test_server import BAD_ROWS
from tests.support.server import Server
from tests.support.tables import FLAT


def curves(server: Server, row: Any) -> dict[str, Any]:
    """Ask for the curves of a row."""
    answer = server.ask("/curves", json.dumps(row).encode())
    assert (answer.status, answer.type) == (200, "application/json")
    told: dict[str, Any] = answer.json["curves"]
    return told


def test_each_curve_has_the_predictions_of_predict(rentals_server: Server) -> None:
    told = curves(rentals_server, FLAT)
    assert list(told) == list(FLAT)
    for name, curve in told.items():
        rows = [{**FLAT, name: value} for value in curve["values"]]
        assert curve["predictions"] == pytest.approx(rentals_server.predict({"instances": rows}).json["predictions"])


def test_levels_are_all_there_numbers_rise_over_known_rows_and_missing_comes_last(rentals_server: Server) -> None:
    told = {name: curve["values"] for name, curve in curves(rentals_server, {**FLAT, "area": 444.4}).items()}
    assert told["furnished"] == [False, True]
    assert told["quarter"] == ["old town", "harbour", "hills"]
    assert told["area"] == sorted(told["area"])
    assert told["area"][-1] == 444.4  # farther out than any known row
    assert 35 < len(told["area"]) <= 42
    assert set(told["rooms"]) <= set(range(1, 7))
    assert told["built"][-1] is None
    assert told["built"][:-1] == sorted(set(told["built"][:-1]))
    assert FLAT["built"] in told["built"]


def test_a_missing_value_is_a_point_of_its_curve_alone(towns_server: Server) -> None:
    assert TOWN["rooms"] is None
    told = curves(towns_server, TOWN)
    assert told["rooms"]["values"][-1] is None
    assert not any(value is None for name, curve in told.items() if name != "rooms" for value in curve["values"])
    assert told["rooms"]["predictions"][-1] == pytest.approx(towns_server.predict(TOWN).json["predictions"][0])


@pytest.mark.parametrize(("change", "field", "reason"), [bad for bad in BAD_ROWS if bad[1] != "rent"])
def test_a_bad_row_is_refused(rentals_server: Server, change: dict[str, Any], field: str, reason: str) -> None:
    answer = rentals_server.ask("/curves", json.dumps({**FLAT, **change}).replace("Infinity", "1e999").encode())
    assert (answer.status, answer.type) == (422, "application/problem+json")
    (error,) = answer.json["errors"]
    assert error["field"] == field and reason in error["reason"]
