"""Request layouts on the fast path and on Flask's routes."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import load_model, scoring_server
from mlflow.utils.proto_json_utils import dump_input_data

from tests.support.server import Answer, Server, assert_problem, scraped, serving
from tests.support.tables import FLAT, rentals_frame
from tests.support.waiting import wait_for

ROUTES = ("/predict", "/invocations")
COLUMNS = list(FLAT)
FRAME = rentals_frame(30, seed=3).drop(columns="rent")


@pytest.fixture(scope="module")
def server(served_home: Path) -> Iterator[Server]:
    """Yield the promoted model, served by one worker."""
    with serving(
        served_home, "serve.workers=1", "serve.max_rows=100", "serve.max_body=100000", "serve.request_timeout_seconds=1"
    ) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def values(frame: pd.DataFrame) -> list[list[Any]]:
    """Return the rows of a frame as JSON holds them."""
    return json.loads(frame.to_json(orient="values"))


@pytest.fixture(scope="module")
def expected(server: Server) -> list[float]:
    """Return the model's predictions for the frame."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in values(FRAME)]
    return [server.predict(row).json["predictions"][0] for row in rows]


def bodies() -> dict[str, tuple[str, object]]:
    """Return the frame in every layout, by name."""
    split = {"columns": COLUMNS, "data": values(FRAME)}
    records = [dict(zip(COLUMNS, row, strict=True)) for row in values(FRAME)]
    turned = FRAME[COLUMNS[::-1]]
    by_column = {name: [row[index] for row in values(FRAME)] for index, name in enumerate(COLUMNS)}
    return {
        "records": ("/predict", {"instances": records}),
        "columns and rows": ("/predict", {"columns": COLUMNS, "rows": values(FRAME)}),
        "columns in another order": ("/predict", {"columns": COLUMNS[::-1], "rows": values(turned)}),
        "dataframe_split": ("/invocations", {"dataframe_split": split}),
        "dataframe_split with an index": ("/invocations", {"dataframe_split": {**split, "index": list(range(30))}}),
        "dataframe_records": ("/invocations", {"dataframe_records": records}),
        "instances": ("/invocations", {"instances": records}),
        "instances without names": ("/invocations", {"instances": values(FRAME)}),
        "inputs by column": ("/invocations", {"inputs": by_column}),
        "inputs by row": ("/invocations", {"inputs": records, "params": {}}),
    }


@pytest.mark.parametrize("form", list(bodies()))
def test_every_layout_of_rows_gets_the_same_predictions(server: Server, expected: list[float], form: str) -> None:
    route, body = bodies()[form]
    answer = server.ask(route, json.dumps(body).encode())
    assert answer.status == 200, answer
    np.testing.assert_allclose(answer.json["predictions"], expected, rtol=1e-9)
    assert set(answer.json) == ({"predictions"} if route == "/invocations" else {"predictions", "model", "version", "request_id"})


def test_a_string_with_a_colon_is_accepted(server: Server) -> None:
    answer = server.predict({"columns": COLUMNS, "rows": [["a: b" if name == "quarter" else FLAT[name] for name in COLUMNS]]})
    assert answer.json["errors"][0]["reason"].endswith("(got 'a: b').")


def test_a_csv_table_is_scored(server: Server, expected: list[float]) -> None:
    text = FRAME.to_csv(index=False)
    answer = server.ask("/invocations", text.encode(), Content_Type="text/csv; charset=utf-8")
    np.testing.assert_allclose(answer.json["predictions"], expected, rtol=1e-9)


@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records"])
def test_requests_of_the_mlflow_client_are_accepted(server: Server, form: str) -> None:
    complete = FRAME.assign(built=2000, rooms=FRAME["rooms"].astype("int64"), furnished=FRAME["furnished"].astype(bool))
    assert "int64" in map(str, complete.dtypes)
    answer = server.ask("/invocations", dump_input_data(complete, inputs_key=form).encode())
    rows = {"columns": COLUMNS, "rows": values(complete)}
    assert answer.json["predictions"] == server.predict(rows).json["predictions"]


ROW = list(FLAT.values())
HEADER = ",".join(COLUMNS)
LINE = "60.5,2,True,hills,1950"
TEXTS = ["60.5", "2", True, "hills", "1950"]
NAN = float("nan")
SPLIT = {"columns": COLUMNS, "data": [ROW]}
MLFLOW_BODIES: dict[str, tuple[str, object]] = {
    "split, NaN": ("json", {"dataframe_split": {**SPLIT, "data": [[*ROW[:4], NAN], ROW]}}),
    "split, null": ("json", {"dataframe_split": {**SPLIT, "data": [[*ROW[:4], None], ROW]}}),
    "split, texts": ("json", {"dataframe_split": {**SPLIT, "data": [TEXTS]}}),
    "split, booleans as numbers": (
        "json",
        {"dataframe_split": {**SPLIT, "data": [[50.5, 2, 0, *ROW[3:]], [50.5, 2, 1.0, *ROW[3:]]]}},
    ),
    "split, index": ("json", {"dataframe_split": {**SPLIT, "index": [5]}}),
    "split, more columns": ("json", {"dataframe_split": {"columns": ["x", *COLUMNS, "y"], "data": [[1, *ROW, "a"]]}}),
    "split, other order": ("json", {"dataframe_split": {"columns": COLUMNS[::-1], "data": [ROW[::-1]]}}),
    "split, too few columns": ("json", {"dataframe_split": {"columns": COLUMNS[1:], "data": [ROW[1:]]}}),
    "split, without a nullable column": ("json", {"dataframe_split": {"columns": COLUMNS[:4], "data": [ROW[:4]]}}),
    "split, a text that is no number": ("json", {"dataframe_split": {**SPLIT, "data": [["a", *ROW[1:]]]}}),
    "split, uneven": ("json", {"dataframe_split": {**SPLIT, "data": [[*ROW, 1], [1]]}}),
    "split, byte order mark": ("json", b"\xef\xbb\xbf" + json.dumps({"dataframe_split": SPLIT}).encode()),
    "split, more keys": ("json", {"dataframe_split": SPLIT, "x": {"y": [1]}}),
    "records": ("json", {"dataframe_records": [FLAT]}),
    "records, NaN": ("json", {"dataframe_records": [{**FLAT, "built": NAN}, FLAT]}),
    "records, more columns": ("json", {"dataframe_records": [{**FLAT, "x": 1, "y": [1]}]}),
    "records, texts": ("json", {"dataframe_records": [dict(zip(COLUMNS, TEXTS, strict=True))]}),
    "records, a key in one only": (
        "json",
        {"dataframe_records": [{**FLAT, "x": 1}, {key: FLAT[key] for key in COLUMNS[:4]}, FLAT]},
    ),
    "records, an object": ("json", {"dataframe_records": FLAT}),
    "instances": ("json", {"instances": [FLAT, FLAT]}),
    "instances, more columns": ("json", {"instances": [{**FLAT, "x": 1}]}),
    "instances, by column": ("json", {"instances": {name: [value] for name, value in FLAT.items()}}),
    "inputs, records": ("json", {"inputs": [FLAT]}),
    "inputs, one object": ("json", {"inputs": FLAT}),
    "inputs, by column": ("json", {"inputs": {name: [value, value] for name, value in FLAT.items()}}),
    "inputs, by column, NaN": (
        "json",
        {"inputs": {name: [value, NAN if name == "built" else value] for name, value in FLAT.items()}},
    ),
    "inputs, by column, more columns": ("json", {"inputs": {**{name: [value] for name, value in FLAT.items()}, "x": [1]}}),
    "inputs, by column, uneven": ("json", {"inputs": {**{name: [value] for name, value in FLAT.items()}, "area": [1, 2]}}),
    "two layouts": ("json", {"inputs": [FLAT], "instances": [FLAT]}),
    "a list": ("json", [FLAT]),
    "no JSON": ("json", b"{"),
    "invalid UTF-8": ("json", b'{"inputs": "\xff"}'),
    "csv": ("csv", f"{HEADER}\n{LINE}\n"),
    "csv, byte order mark": ("csv", f"\ufeff{HEADER}\n{LINE}\n"),
    "csv, index": ("csv", f",{HEADER}\n0,{LINE}\n1,{LINE}\n"),
    "csv, more columns": ("csv", f"{HEADER},x,y\n{LINE},1,\n"),
    "csv, a column twice": ("csv", f"{HEADER},area\n{LINE},7\n"),
    "csv, quotes and CRLF": ("csv", f'{HEADER}\r\n"60.5",2,True,"hills",1950\r\n'),
    **{
        f"csv, {text!r}": ("csv", f"{HEADER}\n60.5,2,TRUE,hills,{text}\n{LINE}\n")
        for text in ("", "NaN", "nan", "NA", "null", "<NA>")
    },
    "csv, booleans as numbers": ("csv", f"{HEADER}\n60.5,2,1,hills,1950\n60.5,2,0,hills,1950\n"),
    "csv, too few columns": ("csv", "area,rooms\n1,2\n"),
    "csv, a text that is no number": ("csv", f"{HEADER}\nx,2,true,hills,1950\n"),
    "csv, empty": ("csv", ""),
    "csv, invalid UTF-8": ("csv", b"\xff\xfe"),
}


@pytest.fixture(scope="module")
def mlflow_model(served_home: Path) -> Any:
    """Return the served model, loaded by MLflow from the store."""
    mlflow.set_tracking_uri(f"sqlite:///{served_home}/mlflow.db")  # goes before what an earlier test of this process has set
    return load_model("models:/housing-rentals@staging")


def ask_mlflow(model: Any, body: bytes, content_type: str) -> tuple[int, list[float]]:
    """Return status and predictions of the function that answers for `mlflow models serve`."""
    try:
        schema = model.metadata.get_input_schema()
        answer = scoring_server.invocations(body, content_type, model, schema)  # type: ignore[no-untyped-call]
    except MlflowException:
        return 400, []
    return answer.status, json.loads(answer.response)["predictions"] if answer.status == 200 else []


@pytest.mark.parametrize("name", list(MLFLOW_BODIES))
def test_a_body_is_accepted_if_mlflow_accepts_it(server: Server, mlflow_model: Any, name: str) -> None:
    kind, body = MLFLOW_BODIES[name]
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    content_type = {"json": "application/json", "csv": "text/csv"}[kind]
    status, predictions = ask_mlflow(mlflow_model, content, content_type)
    answer = server.ask("/invocations", content, Content_Type=content_type)
    assert (answer.status == 200) == (status == 200), (answer, status)
    assert answer.status in (200, 400, 422)
    if status == 200:
        np.testing.assert_allclose(answer.json["predictions"], np.ravel(predictions), rtol=1e-6)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        ('application/json; charset="utf-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("text/csv; charset=utf-16", 415),
        ("text/plain", 415),
        ("", 415),
    ],
)
def test_only_utf_8_is_accepted(server: Server, content_type: str, status: int) -> None:
    answer = server.ask("/invocations", json.dumps({"inputs": [FLAT]}).encode(), Content_Type=content_type)
    assert answer.status == status, answer


@pytest.mark.parametrize("body", [{"dataframe_split": SPLIT}, {"dataframe_records": [FLAT]}, {"inputs": FLAT, "params": {}}])
def test_predict_stays_strict_and_names_the_route_of_mlflow(server: Server, body: object) -> None:
    assert_problem(server.predict(body), 422, "Send it to /invocations")
    assert_problem(server.ask("/predict", b"a,b\n1,2\n", Content_Type="text/csv"), 415, "Send CSV to /invocations")
    for change in ({"built": NAN}, {"area": "60.5"}, {"x": 1}):
        assert server.predict({**FLAT, **change}).status in (400, 422)


def test_health_routes_of_mlflow_answer(server: Server) -> None:
    assert [server.ask(route).status for route in ("/ping", "/health")] == [200, 200]
    assert re.fullmatch(r"3\.\d+\.\d+", server.ask("/version").text)


def test_a_requested_interval_is_returned(server: Server) -> None:
    body = json.dumps(FLAT).encode()
    narrow, wide = (server.ask(f"/predict?interval={share}", body).json for share in (0.5, 0.9))
    assert wide["lower"][0] < narrow["lower"][0] < narrow["predictions"][0] < narrow["upper"][0] < wide["upper"][0]
    assert narrow["interval"] == 0.5
    scoring = server.ask("/invocations?interval=0.9", json.dumps({"instances": [FLAT]}).encode()).json
    assert scoring == {key: wide[key] for key in ("predictions", "lower", "upper", "interval")}


def test_requested_quantiles_are_returned_by_level(server: Server) -> None:
    body = json.dumps({"instances": [FLAT, {**FLAT, "area": 60}]}).encode()
    answer = server.ask("/predict?quantiles=0.05,0.5,0.95", body).json
    assert list(answer["quantiles"]) == ["0.05", "0.5", "0.95"] and "lower" not in answer
    interval = server.ask("/predict?interval=0.9", body).json
    for level, bound in (("0.05", "lower"), ("0.95", "upper")):
        assert answer["quantiles"][level] == pytest.approx(interval[bound], rel=1e-12)
    assert all(low < median < high for low, median, high in zip(*answer["quantiles"].values(), strict=True))
    table = f"{','.join(FLAT)}\n{','.join(map(str, FLAT.values()))}\n".encode()
    scoring = server.ask("/invocations?quantiles=0.95,0.5,0.05&interval=0.9", table, Content_Type="text/csv").json
    assert scoring["lower"] == interval["lower"][:1]
    assert scoring["quantiles"] == {level: values[:1] for level, values in answer["quantiles"].items()}
    wait_for(lambda: any(line.get("quantiles") == answer["quantiles"] for line in logged(server)), "the request is logged")


@pytest.mark.parametrize(
    "query",
    [
        "quantiles=",
        "quantiles=x",
        "quantiles=.5,",
        "quantiles=.5,1.4",
        "quantiles=.5,.5",
        "quantiles=nan",
        "quantiles=1",
        "quantiles=.00001",
    ],
)
def test_invalid_quantiles_are_rejected(server: Server, query: str) -> None:
    assert_problem(server.ask(f"/predict?{query}", json.dumps(FLAT).encode()), 422, "quantiles must be")


@pytest.mark.parametrize(
    "query",
    [
        "interval=",
        "interval=1",
        "interval=nan",
        "interval=0.9&interval=0.8",
        "interval=.99999",
        "a=b",
        "interval=0.9&x=1",
    ],
)
def test_an_invalid_interval_is_rejected(server: Server, query: str) -> None:
    assert_problem(server.ask(f"/predict?{query}", json.dumps(FLAT).encode()), 422, "interval|coverage")


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"columns": COLUMNS[1:], "rows": [[1]]}, [(None, "area", "issing")]),
        ({"columns": [*COLUMNS, "x"], "rows": [[1]]}, [(None, "x", "Not a column of this model.")]),
        ({"columns": [*COLUMNS, "area"], "rows": [[1]]}, [(None, "area", "Duplicate column.")]),
        ({"columns": COLUMNS, "rows": [[1, 2]]}, [(0, None, "Must have 5 values, one per column (got 2).")]),
        ({"columns": COLUMNS, "rows": [list(FLAT.values()), 3]}, [(1, None, "Must be a list.")]),
        ({"columns": COLUMNS, "rows": [[*list(FLAT.values())[:4], {"a": 1}]]}, [(0, "built", "{'a': 1}")]),
    ],
)
def test_columns_and_rows_are_checked(server: Server, body: object, errors: list[tuple[int | None, str | None, str]]) -> None:
    answer = server.predict(body)
    assert_problem(answer, 422, "invalid value")
    (error,) = answer.json["errors"]
    ((row, field, reason),) = errors
    assert (error["row"], error["field"]) == (row, field) and reason in error["reason"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "exactly one of dataframe_split, dataframe_records, instances, inputs"),
        ({"instances": [FLAT], "inputs": [FLAT]}, 422, "exactly one of"),
        ({"instances": [FLAT], "params": {"a": 1}}, 422, 'takes no "params"'),
        ({"dataframe_split": [1]}, 422, "must be an object with the keys"),
        ({"dataframe_split": {"columns": COLUMNS, "data": []}}, 422, "non-empty lists"),
        ({"dataframe_records": {}}, 422, "a list of at least one row"),
        ({"inputs": {"area": [1], "rooms": [1, 2]}}, 422, "of the same length"),
        ({"inputs": {"area": [1], "rooms": 1}}, 422, "of the same length"),
        ({"instances": [FLAT] * 101}, 413, "at most 100 rows .got 101"),
        (b"\xff\xfe", 400, "not valid JSON"),
    ],
)
def test_an_invalid_scoring_body_is_rejected(server: Server, body: object, status: int, detail: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert_problem(server.ask("/invocations", content), status, detail)


@pytest.mark.parametrize(
    ("text", "status", "detail", "reason"),
    [
        ("area,rooms,furnished,quarter,built", 422, "at least one row", None),
        ("area,rooms\n1,2", 422, "2 invalid values", "issing"),
        ("area,rooms,furnished,quarter,built\n50,1_0,true,hills,1950", 422, "1 invalid value", "'1_0'"),
        ("area,rooms,furnished,quarter,built\n\u0665\u0660,1,true,hills,1950", 422, "1 invalid value", "'\u0665\u0660'"),
        ("area,rooms,furnished,quarter,built\nnan,1,true,hills,1950", 422, "1 invalid value", "issing"),
        ("area,rooms,furnished,quarter,built\n50,1,yes,hills,1950", 422, "1 invalid value", "'yes'"),
        ("area,rooms,furnished,quarter,built\n50,1,true,hills", 422, "1 invalid value", "5 values, one per column (got 4)"),
        (
            "area,rooms,furnished,quarter,built\n50,1,true,hills,1950,7",
            422,
            "1 invalid value",
            "5 values, one per column (got 6)",
        ),
        ('a"b"c,"x\n', 400, "not valid CSV", None),
    ],
)
def test_an_invalid_csv_table_is_rejected(server: Server, text: str, status: int, detail: str, reason: str | None) -> None:
    answer = server.ask("/invocations", text.encode(), Content_Type="text/csv")
    assert_problem(answer, status, detail)
    assert reason is None or reason in answer.json["errors"][0]["reason"]


SAME = [
    (json.dumps(FLAT).encode(), {}),
    (json.dumps({**FLAT, "area": -1}).encode(), {}),
    (b"{", {}),
    (json.dumps(FLAT).encode(), {"Content-Type": "text/plain"}),
    (json.dumps({"instances": [FLAT] * 101}).encode(), {}),
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("body", "headers"), SAME)
def test_the_fast_path_and_flask_have_equal_responses_and_counters(
    server: Server, route: str, body: bytes, headers: dict[str, str]
) -> None:
    def ask(chunked: bool) -> tuple[int, bytes, dict[str, str], dict[str, float]]:
        before = scraped(server)
        with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)) as connection:
            content = iter([body]) if chunked else body  # chunked bodies go by Flask
            connection.request("POST", route, content, {"Content-Type": "application/json", **headers}, encode_chunked=chunked)
            answer = connection.getresponse()
            read = re.sub(rb'"request_id":"[^"]*"', b"", answer.read())
        risen = {name: value - before.get(name, 0.0) for name, value in scraped(server).items()}
        compared = ("Content-Type", "Cache-Control", "X-Content-Type-Options")
        counted = {name: value for name, value in risen.items() if value and route in name and "_count" in name}
        named = {name: value for name, value in answer.getheaders() if name in compared}
        return answer.status, read, named, counted

    plain, flasks = ask(chunked=False), ask(chunked=True)
    assert plain == flasks
    assert sum(plain[3].values()) == 1


def raw(server: Server, content: bytes) -> Answer | None:
    """Send bytes as they are, and read the answer; None where the server closes without one."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(content)
        with closing(http.client.HTTPResponse(connection)) as answer:
            try:
                answer.begin()
            except (http.client.BadStatusLine, ConnectionResetError):
                return None
            return Answer(answer.status, str(answer.headers["Content-Type"]), answer.read().decode(errors="replace"))


def test_an_incomplete_body_times_out_while_others_are_served(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    answer = raw(server, head)
    assert answer is not None
    assert_problem(answer, 408, "Timed out while reading")
    assert server.predict(FLAT).status == 200


def nested(depth: int) -> bytes:
    """Return a list in a list in a list."""
    return b"[" * depth + b"]" * depth


TORTURE = {
    "deep list": nested(30000),
    "deep list below the limit": nested(900),
    "deep object": b'{"a":' * 10000 + b"1" + b"}" * 10000,
    "deep row": b'{"instances":[' + nested(900) + b"]}",
    "1e999": json.dumps({**FLAT, "area": 0}).replace('"area": 0', '"area": 1e999').encode(),
    "-1e999": json.dumps({**FLAT, "area": 0}).replace('"area": 0', '"area": -1e999').encode(),
    "lone surrogate": json.dumps({**FLAT, "quarter": "\udc00"}).encode(),
    "lone surrogate as a key": json.dumps({**FLAT, "\ud800": 1}).encode(),
    "lone surrogate as a column": json.dumps({"columns": ["\ud800"], "rows": [[1]]}).encode(),
    "key twice": json.dumps(FLAT).replace("{", '{"area": 1, ').encode(),
    "key twice in a row": b'{"instances": [' + json.dumps(FLAT).replace("{", '{"area": 1, ').encode() + b"]}",
    "key twice around": b'{"columns": [], "columns": ["area"], "rows": [[1]]}',
    "huge integer": json.dumps({**FLAT, "area": 10**4000}).encode(),
    "integer beyond 64 bits": json.dumps({**FLAT, "rooms": 2**70}).encode(),
    "integer beyond floats in a list": json.dumps({"columns": COLUMNS, "rows": [[10**400, 1, True, "hills", 1950]]}).encode(),
    "minus zero": json.dumps({**FLAT, "rooms": -0.0}).encode(),
    "NaN": json.dumps({**FLAT, "built": float("nan")}).encode(),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(FLAT).encode(),
    "UTF-16": json.dumps(FLAT).encode("utf-16"),
    "NUL": json.dumps(FLAT).encode() + b"\x00",
    "two values": json.dumps(FLAT).encode() * 2,
    "columns of columns": json.dumps({"columns": [["area"]] * 5, "rows": [[1] * 5]}).encode(),
    "columns of numbers": json.dumps({"columns": [1, 2, 3, 4, None], "rows": [[1] * 5]}).encode(),
    "row of strings": json.dumps({"columns": COLUMNS, "rows": ["abcde"]}).encode(),
    "text": json.dumps("x" * 50000).encode(),
    "nothing": b"",
    "null": b"null",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", list(TORTURE))
def test_a_hostile_body_gets_a_4xx_problem(server: Server, route: str, name: str) -> None:
    answer = server.ask(route, TORTURE[name])
    assert answer.status in (400, 413, 422), answer
    assert answer.type == "application/problem+json" and answer.json["status"] == answer.status


@pytest.mark.parametrize(
    "message",
    [
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /predict HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(300)) + b"\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20000 + b"\r\n\r\n",
        b"POST /" + b"a" * 10000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\xff\r\n\r\n",
    ],
    ids=["bad chunk", "negative length", "two lengths", "many headers", "long header", "long line", "no HTTP"],
)
def test_malformed_http_is_rejected_or_dropped(server: Server, message: bytes) -> None:
    answer = raw(server, message)
    assert answer is None or 400 <= answer.status < 500
    assert server.predict(FLAT).status == 200


def logged(server: Server) -> list[dict[str, Any]]:
    """Return the lines of the prediction log of the only worker."""
    files = server.log.parent.glob("serving/*.log/predictions-0-*.jsonl")  # none before the first request
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("form", "share"), [("records", 0.81), ("columns in another order", 0.82), ("dataframe_split", 0.83)])
def test_requests_and_responses_are_logged_with_their_id(server: Server, form: str, share: float) -> None:
    route, body = bodies()[form]

    def lines() -> list[dict[str, Any]]:
        return [line for line in logged(server) if line.get("interval") == share]  # no other request asks for it

    response = server.ask(f"{route}?interval={share}", json.dumps(body).encode())
    answer = response.json
    wait_for(lambda: bool(lines()), "the request is logged")
    (line,) = lines()
    assert line["predictions"] == answer["predictions"] and line["lower"] == answer["lower"]
    rows = [dict(zip(line["columns"], row, strict=True)) for row in line["rows"]]
    assert rows == [dict(zip(COLUMNS, row, strict=True)) for row in values(FRAME)]
    assert (line["route"], line["version"]) == (route, "1") and 0 < line["latency_ms"] < 10_000 and len(line["run_id"]) == 32
    assert line["id"] == response.id == answer.get("request_id", response.id)


def test_rejected_requests_are_not_logged(server: Server) -> None:
    def areas() -> set[float]:
        return {row[line["columns"].index("area")] for line in logged(server) for row in line["rows"]}

    assert server.predict({**FLAT, "area": -77.7}).status == 422
    assert server.predict({**FLAT, "area": 77.7}).status == 200
    wait_for(lambda: 77.7 in areas(), "the request is logged")
    assert -77.7 not in areas()  # a worker logs in the order of its answers
