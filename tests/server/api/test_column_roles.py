"""Requests for a table with columns of every role, and with columns that a row may leave out."""

import json
from functools import partial
from typing import Any

import pytest

from housing.feedback.log_reader import LogFilter, read_entries
from tests.support.server import Server, scraped
from tests.support.waiting import wait_for

LEVELS = {"town": "town 7", "shelf": "S01", "grade": "fair"}
REQUIRED = {"size": 20.5, **LEVELS}
ROW = {**REQUIRED, "colour": "red", "age": 4, "brand": "acme", "placed": "24.12.2021 18:30", "worn": 1200, "remark": "oak lamp"}
UNUSED = {"order": "17", "customer": "ann", "week": 3, "copies": 1.5, "note": {"any": "thing"}}


def predictions(server: Server, body: Any, route: str = "/predict") -> list[float]:
    """Return the predictions of a valid request."""
    answer = server.ask(route, json.dumps(body).encode())
    assert answer.status == 200, answer
    values: list[float] = answer.json["predictions"]
    return values


def test_a_nullable_column_may_be_left_out_of_every_layout(orders_server: Server) -> None:
    expected = predictions(orders_server, {**REQUIRED, "colour": None, "age": None, "brand": None, "placed": None, "worn": None})
    names, values = list(REQUIRED), list(REQUIRED.values())
    assert predictions(orders_server, REQUIRED) == expected
    assert predictions(orders_server, {"instances": [REQUIRED, ROW]}) == [*expected, *predictions(orders_server, ROW)]
    assert predictions(orders_server, {"columns": names, "rows": [values]}) == expected
    for body in (
        {"dataframe_split": {"columns": names, "data": [values]}},
        {"dataframe_records": [REQUIRED]},
        {"inputs": {name: [value] for name, value in REQUIRED.items()}},
    ):
        assert predictions(orders_server, body, "/invocations") == expected


def test_a_column_that_no_model_receives_is_ignored(orders_server: Server) -> None:
    expected = predictions(orders_server, ROW)
    assert predictions(orders_server, {**ROW, **UNUSED}) == expected
    assert predictions(orders_server, {"instances": [{**UNUSED, **ROW}]}) == expected
    row = {**UNUSED, **ROW}
    assert predictions(orders_server, {"columns": list(row), "rows": [list(row.values())]}) == expected
    assert predictions(orders_server, {"dataframe_records": [row]}, "/invocations") == expected


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({**LEVELS, "colour": "red"}, "size", "Missing required value."),
        ({**ROW, "price": 5}, "price", "Not a column of this model."),
        ({**ROW, "shop": 5}, "shop", "Not a column of this model."),
        ({**ROW, "size": None}, "size", "Missing required value."),
        ({**ROW, "town": None}, "town", "Missing required value."),
        ({**ROW, "town": 7}, "town", "Not text: 7."),
        ({**ROW, "shelf": "S1"}, "shelf", "Must be one of 25 levels (got 'S1'). The nearest: "),
        ({**ROW, "placed": "2021-12-24"}, "placed", "Must be a date such as 01.01.1970 00:00, in the format %d.%m.%Y %H:%M"),
        ({**ROW, "placed": 5}, "placed", "Must be a date such as"),
        ({**ROW, "grade": "bad"}, "grade", "Must be one of poor, fair, good (got 'bad')."),
        ({**ROW, "worn": "12k"}, "worn", "Not a number: '12k'."),
        ({**ROW, "remark": 12}, "remark", "Not text: 12."),
        ({**ROW, "remark": "x" * 201}, "remark", "Must be at most 200 characters long (got 201)."),
        ({"columns": ["colour", *LEVELS], "rows": [["red", *LEVELS.values()]]}, "size", "Missing required value."),
        ({"columns": [*REQUIRED, "shop"], "rows": [[*REQUIRED.values(), 2]]}, "shop", "Not a column of this model."),
    ],
)
def test_what_is_wrong_is_named_by_column(orders_server: Server, body: Any, field: str, reason: str) -> None:
    answer = orders_server.predict(body)
    assert answer.status == 422
    (error,) = answer.json["errors"]
    assert error["field"] == field
    assert error["reason"].startswith(reason)


def test_a_value_that_no_training_row_had_is_other_or_missing_and_counted(orders_server: Server) -> None:
    def counted() -> float:
        return sum(
            value for name, value in scraped(orders_server).items() if 'bin="(other)",column="town"' in name and "total" in name
        )

    before = counted()
    other = predictions(orders_server, {**ROW, "town": "elsewhere"})
    assert other == predictions(orders_server, {"columns": list(ROW), "rows": [[*{**ROW, "town": "far away"}.values()]]})
    assert other != predictions(orders_server, ROW)
    assert counted() == before + 2
    assert predictions(orders_server, {**ROW, "brand": "new"}) == predictions(orders_server, {**ROW, "brand": None})


def test_a_number_may_be_written_as_text(orders_server: Server) -> None:
    assert predictions(orders_server, {**ROW, "worn": "1,200 km"}) == predictions(orders_server, ROW)
    assert predictions(orders_server, {"dataframe_records": [{**ROW, "worn": "1,200 km"}]}, "/invocations") == predictions(
        orders_server, ROW
    )


def test_a_text_is_predicted_alike_in_every_layout(orders_server: Server) -> None:
    row = {**ROW, "remark": "Köln: a lamp, with a deep scratch"}
    expected = predictions(orders_server, row)
    assert expected != predictions(orders_server, {**ROW, "remark": "a lamp in its first box"})
    assert predictions(orders_server, {"instances": [ROW, row]})[1:] == expected
    assert predictions(orders_server, {"columns": list(row), "rows": [list(row.values())]}) == expected
    assert predictions(orders_server, {"dataframe_records": [row]}, "/invocations") == expected
    cells = ",".join(f'"{value}"' for value in row.values())
    csv = orders_server.ask("/invocations", f"{','.join(row)}\n{cells}\n".encode(), Content_Type="text/csv")
    assert csv.json["predictions"] == expected
    types = {str: "BYTES", int: "FP64", float: "FP64"}
    tensors = [{"name": name, "shape": [1], "datatype": types[type(value)], "data": [value]} for name, value in row.items()]
    tensors = [{**tensor, **({"datatype": "BYTES", "data": ["1200"]} if tensor["name"] == "worn" else {})} for tensor in tensors]
    answer = orders_server.ask("/v2/models/housing-orders/infer", json.dumps({"inputs": tensors}).encode())
    assert answer.json["outputs"][0]["data"] == expected, answer


def test_the_contributions_of_columns_with_a_text_add_up(orders_server: Server) -> None:
    answer = orders_server.ask("/explain", json.dumps({**ROW, "remark": "older lamp with a deep scratch"}).encode()).json
    assert answer["contributions"]["remark"] < -10
    assert sum(answer["contributions"].values()) == pytest.approx(answer["prediction"] - answer["base_value"])


def test_explanation_curves_and_document_know_learned_levels(orders_server: Server) -> None:
    row = json.dumps({**ROW, "town": "elsewhere"}).encode()
    assert set(orders_server.ask("/explain", row).json["contributions"]) == set(ROW)
    curves = orders_server.ask("/curves", row).json["curves"]
    assert len(curves["town"]["values"]) == 42
    assert curves["town"]["values"][-1] == "(other)"
    assert len(curves["shelf"]["values"]) == 25
    assert set(curves) == set(ROW) - {"remark"}
    properties = orders_server.ask("/openapi.json").json["components"]["schemas"]["Row"]["properties"]
    assert "enum" not in properties["town"]
    assert len(properties["town"]["examples"]) == 20
    assert sorted(properties["shelf"]["enum"]) == [f"S{number:02d}" for number in range(25)]
    assert (properties["remark"]["type"], properties["remark"]["maxLength"]) == (["string", "null"], 200)
    declared = orders_server.ask("/model").json["schema"]["columns"]["town"]
    assert declared["categories"] == "auto"
    assert len(declared["levels"]) == 60


def test_the_document_says_which_columns_are_required(orders_server: Server) -> None:
    row = orders_server.ask("/openapi.json").json["components"]["schemas"]["Row"]
    assert row["required"] == ["size", "town", "shelf", "grade"]
    assert set(row["properties"]) == {*ROW, *UNUSED}


def test_the_log_has_the_columns_that_were_sent(orders_server: Server) -> None:
    answer = orders_server.predict({**ROW, **UNUSED})
    logged = partial(
        read_entries, orders_server.log.parent / "serving" / "orders-staging.log", LogFilter(id=answer.json["request_id"])
    )
    wait_for(lambda: bool(logged()[0]), "the request is logged")
    ((entry,), _) = logged()
    assert dict(zip(entry["columns"], entry["rows"][0], strict=True)) == {**ROW, **UNUSED}


@pytest.mark.parametrize("name", ["town", "note"])
def test_half_a_character_is_refused_since_no_log_can_hold_it(orders_server: Server, name: str) -> None:
    half = {**ROW, name: "\ud83d"}
    for route, body in (("/predict", half), ("/invocations", {"dataframe_records": [half]})):
        answer = orders_server.ask(route, json.dumps(body).encode())
        assert (answer.status, "surrogates not allowed" in answer.text) == (400, True), answer
    assert predictions(orders_server, {**ROW, name: "\U0001f600"})


@pytest.mark.parametrize("time", ["18:30", r"18\u003a30"])
def test_a_colon_within_a_text_hides_no_duplicate_key(orders_server: Server, time: str) -> None:
    row = {**ROW, "placed": f"24.12.2021 {time}"}
    body = json.dumps(row).replace("\\\\", "\\")
    assert orders_server.ask("/predict", body.encode()).json["predictions"] == predictions(orders_server, ROW)
    twice = f'{body[:-1]}, "placed": "24.12.2021 {time}"}}'
    for route, sent in (
        ("/predict", twice),
        ("/predict", f'{{"instances": [{twice}]}}'),
        ("/invocations", f'{{"inputs": [{twice}]}}'),
    ):
        answer = orders_server.ask(route, sent.encode())
        assert (answer.status, "duplicate key 'placed'" in answer.text) == (400, True), answer
