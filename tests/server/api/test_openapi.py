"""The OpenAPI document, compared with the behaviour of the server."""

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from server.api.auth import FEEDBACK, METRICS, PREDICT
from tests.support.server import Server, new_key, serving
from tests.support.waiting import wait_for

POSTED = {"/predict": 200, "/invocations": 200, "/explain": 200, "/curves": 200, "/feedback": 202}
MODEL_PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
POSTED |= {f"{path}/infer": 200 for path in MODEL_PATHS}
READ = {"/model", "/models", "/examples", "/healthz", "/readyz", "/ping", "/health", "/version", "/metrics"}
READ |= {"/openapi.json", "/docs", "/"}
READ |= {"/v2", "/v2/health/live", "/v2/health/ready", *MODEL_PATHS, *(f"{path}/ready" for path in MODEL_PATHS)}
# CSV is described as text, and most texts are no table; a body that is too long gets a status of its own.
# /invocations takes more than it describes: MLflow's server ignores other keys and reads texts as numbers.
SCHEMATHESIS = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 413, 415, 422]

[[operations]]
include-path = "/invocations"
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false

[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false  # a schema cannot say that tensors fit the columns and their own shape
"""


def url_of(path: str) -> str:
    """Return a path of the document for the rentals' model."""
    return path.format(name="housing-rentals", version="1")


@pytest.fixture(scope="module")
def document(rentals_server: Server) -> dict[str, Any]:
    """Return the document of the rentals' model."""
    answer = rentals_server.ask("/openapi.json")
    assert (answer.status, answer.type) == (200, "application/json")
    result: dict[str, Any] = answer.json
    return result


def test_operations_that_share_a_response_have_their_own_errors(document: dict[str, Any]) -> None:
    assert set(document["paths"]["/healthz"]["get"]["responses"]) == {"200"}
    assert set(document["paths"]["/readyz"]["get"]["responses"]) == {"200", "503"}


def test_every_route_is_documented_and_answers_as_documented(rentals_server: Server, document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == set(POSTED) | READ
    for path in READ:
        assert rentals_server.ask(url_of(path)).status == 200, path
    for path, status in POSTED.items():
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert rentals_server.ask(url_of(path), json.dumps(body["example"]).encode()).status == status, path


def test_columns_have_bounds_units_and_categories_of_the_schema(document: dict[str, Any]) -> None:
    row = document["components"]["schemas"]["Row"]
    assert row["required"] == ["area", "rooms", "furnished", "quarter"]  # built is nullable
    assert row["additionalProperties"] is False
    area = {"type": "number", "format": "double", "minimum": 5, "maximum": 500, "x-unit": "square metres"}
    assert row["properties"]["area"] == {**area, "description": "floor area, square metres"}
    assert row["properties"]["quarter"]["enum"] == ["old town", "harbour", "hills"]
    assert row["properties"]["furnished"]["type"] == "boolean"
    built = row["properties"]["built"]
    assert (built["type"], built["minimum"], built["maximum"]) == (["integer", "null"], 1800, 2030)
    assert set(row["examples"][0]) == set(row["properties"])


def test_every_documented_error_is_a_problem_or_has_the_form_of_the_protocol(document: dict[str, Any]) -> None:
    answers = [
        (status, answer, path.startswith("/v2"))
        for path, operations in document["paths"].items()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
    ]
    forms = (False, "application/problem+json", "Problem"), (True, "application/json", "InferenceError")
    for of_protocol, media_type, schema in forms:
        errors = [answer["content"] for status, answer, is_v2 in answers if status[0] != "2" and is_v2 == of_protocol]
        assert len(errors) > 20
        assert all(content == {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}} for content in errors)


def test_security_is_documented_only_if_keys_are_required(served_home: Path, document: dict[str, Any]) -> None:
    assert "securitySchemes" not in document["components"]
    _, line = new_key("tester", f"{PREDICT},{METRICS},{FEEDBACK}")
    with serving(served_home, environment={"HOUSING_KEYS": line}) as guarded:
        wait_for(lambda: guarded.answers("/readyz"), "the model is published")
        result = guarded.ask("/openapi.json").json
        for path, operations in result["paths"].items():
            for method, operation in operations.items():
                body = b"{}" if method == "post" else None
                assert ("security" in operation) == (guarded.ask(url_of(path), body).status == 401), path
                assert ("401" in operation["responses"]) == ("security" in operation)


DEEP = "[" * 900 + "]" * 900
# JSON as text, since Python would write some of it in another way
ODD_VALUES = [
    *(
        "null",
        "true",
        "0",
        "-0.0",
        "1e400",
        "-1e400",
        "1e-400",
        "5e-324",
        "1.7976931348623157e308",
        "NaN",
        "Infinity",
        "-Infinity",
    ),
    *("9" * 30, "-" + "9" * 400, "9" * 5000, "0." + "3" * 5000, "18446744073709551616", "01", "+1", ".5", "1.", "0x10", "1_0"),
    *(
        '""',
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\u0000"',
        '"\\uffff"',
        '"NaN"',
        '"1e400"',
        '"\u0665"',
        '"a: b"',
        '"\x00"',
        '"' + "x" * 5000 + '"',
    ),
    *(
        "[]",
        "[[]]",
        "[null]",
        "{}",
        "[{}]",
        '{"": 1}',
        '{"a": 1, "a": 2}',
        '{"\\ud800": 1}',
        DEEP,
        '{"a":' * 900 + "1" + "}" * 900,
    ),
]


def odd_bodies(example: Any) -> Iterator[str]:
    """Yield the example with each odd value: as the body, in each place, as another key, and as a second value of a key."""
    yield from ODD_VALUES
    mark = "@@"

    def marked(value: Any) -> Iterator[Any]:
        yield mark
        if isinstance(value, dict):
            for key, item in value.items():
                yield from ({**value, key: inner} for inner in marked(item))
            yield {**value, "another": mark}
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from ([*value[:index], inner, *value[index + 1 :]] for inner in marked(item))
            yield [*value, mark]

    for body in marked(example):
        text = json.dumps(body)
        yield from (text.replace(f'"{mark}"', odd) for odd in ODD_VALUES)
    for key in example if isinstance(example, dict) else ():
        yield json.dumps(example).replace("{", f'{{"{key}": 1, ', 1)


DATATYPES = {"area": "FP64", "rooms": "INT64", "furnished": "BOOL", "quarter": "BYTES", "built": "INT64"}
FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/predict": lambda row: row,
    "/predict?rows": lambda row: {"columns": list(row), "rows": [list(row.values())]},
    "/explain": lambda row: row,
    "/curves": lambda row: row,
    "/v2/models/housing-rentals/infer": lambda row: {
        "inputs": [
            {"name": name, "shape": [1], "datatype": DATATYPES[name], "data": [value], "parameters": {"content_type": "pd"}}
            for name, value in row.items()
        ],
        "parameters": {"interval": 0.9},
        "outputs": [{"name": "predictions"}],
    },
    "/feedback": lambda _: {"feedback": [{"request_id": "0193f5c2a1b3-01-0000002a", "row": 0, "value": 500}]},
    "/invocations?split": lambda row: {"dataframe_split": {"columns": list(row), "data": [list(row.values())], "index": [0]}},
    "/invocations?records": lambda row: {"dataframe_records": [row], "params": {}},
    "/invocations?inputs": lambda row: {"inputs": {name: [value] for name, value in row.items()}},
    "/invocations?instances": lambda row: {"instances": [row]},
}


@pytest.mark.parametrize("form", list(FORMS))
def test_no_odd_json_is_answered_with_an_error_of_the_server(rentals_server: Server, document: dict[str, Any], form: str) -> None:
    row = document["components"]["schemas"]["Row"]["examples"][0]
    route = form.partition("?")[0]
    statuses = set()
    with closing(http.client.HTTPConnection(rentals_server.url.removeprefix("http://"), timeout=60)) as connection:
        for body in odd_bodies(FORMS[form](row)):
            connection.request("POST", route, body.encode("utf-8", "surrogatepass"), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            statuses.add(answer.status)
            assert answer.status in (200, 202, 400, 413, 422), (answer.status, text, body[:500])
            assert "NaN" not in text or answer.status >= 400, text
            json.loads(text)
    assert statuses >= {POSTED.get(route, 200), 422, 400}


@pytest.mark.long
def test_schemathesis_finds_no_difference_from_the_document(rentals_server: Server, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    program = [f"{sys.prefix}/bin/schemathesis", "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
    options = ["--max-examples", "20", "--seed", "1", "--no-color"]
    done = subprocess.run(
        [*program, f"{rentals_server.url}/openapi.json", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "Unresolvable" not in done.stdout
