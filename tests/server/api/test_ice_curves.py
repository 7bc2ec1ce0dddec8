"""POST /curves."""

import json
import re
from typing import Any

import pytest

from tests.server.api.test_explanation import TOWN
from tests.server.test_server import BAD_ROWS
from tests.support.server import Server
from tests.support.tables import FLAT


def curves(server: Server, row: Any) -> dict[str, Any]:
    """Request the curves of a row."""
    answer = server.ask("/curves", json.dumps(row).encode())
    assert (answer.status, answer.type) == (200, "application/json")
    result: dict[str, Any] = answer.json["curves"]
    return result


def test_curves_have_the_predictions_of_predict(rentals_server: Server) -> None:
    result = curves(rentals_server, FLAT)
    assert list(result) == list(FLAT)
    for name, curve in result.items():
        rows = [{**FLAT, name: value} for value in curve["values"]]
        assert curve["predictions"] == pytest.approx(rentals_server.predict({"instances": rows}).json["predictions"])


def test_grids_have_all_categories_sorted_numbers_and_missing_last(rentals_server: Server) -> None:
    result = {name: curve["values"] for name, curve in curves(rentals_server, {**FLAT, "area": 444.4}).items()}
    assert result["furnished"] == [False, True]
    assert result["quarter"] == ["old town", "harbour", "hills"]
    assert result["area"] == sorted(result["area"])
    assert result["area"][-1] == 444.4  # farther out than any known row
    assert 35 < len(result["area"]) <= 42
    assert set(result["rooms"]) <= set(range(1, 7))
    assert result["built"][-1] is None
    assert result["built"][:-1] == sorted(set(result["built"][:-1]))
    assert FLAT["built"] in result["built"]


def test_a_missing_value_is_only_in_the_grid_of_its_column(towns_server: Server) -> None:
    assert TOWN["rooms"] is None
    result = curves(towns_server, TOWN)
    assert result["rooms"]["values"][-1] is None
    assert not any(value is None for name, curve in result.items() if name != "rooms" for value in curve["values"])
    assert result["rooms"]["predictions"][-1] == pytest.approx(towns_server.predict(TOWN).json["predictions"][0])


@pytest.mark.parametrize(("change", "field", "reason"), [bad for bad in BAD_ROWS if bad[1] != "rent"])
def test_an_invalid_row_is_rejected(rentals_server: Server, change: dict[str, Any], field: str, reason: str) -> None:
    answer = rentals_server.ask("/curves", json.dumps({**FLAT, **change}).replace("Infinity", "1e999").encode())
    assert (answer.status, answer.type) == (422, "application/problem+json")
    (error,) = answer.json["errors"]
    assert error["field"] == field and re.search(reason, error["reason"])
