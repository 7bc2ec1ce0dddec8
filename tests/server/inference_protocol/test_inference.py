"""The Open Inference Protocol, compared with /predict."""

import copy
import json
import struct
import urllib.request
from functools import partial
from typing import Any

import numpy as np
import pytest

from housing.feedback.log_reader import LogFilter, read_entries
from tests.support.server import Answer, Server, scraped
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

INFER = "/v2/models/housing-rentals/infer"
FLATS = [FLAT, {**FLAT, "area": 60.0, "furnished": False, "quarter": "harbour", "built": None}]
DATATYPES = {"area": "FP64", "rooms": "INT64", "furnished": "BOOL", "quarter": "BYTES", "built": "INT64"}
INPUTS = [
    {"name": name, "shape": [2], "datatype": datatype, "data": [flat[name] for flat in FLATS]}
    for name, datatype in DATATYPES.items()
]


def infer(server: Server, body: Any, route: str = INFER, **headers: str) -> Answer:
    """Send a request of the protocol."""
    return server.ask(route, body if isinstance(body, bytes) else json.dumps(body).encode(), **headers)


def outputs(answer: Answer) -> dict[str, Any]:
    """Return the data of each output of a JSON answer."""
    assert answer.status == 200, answer
    return {output["name"]: output["data"] for output in answer.json["outputs"]}


def assert_refused(answer: Answer, status: int, detail: str) -> None:
    """Check the form of the protocol's errors."""
    assert (answer.status, answer.type) == (status, "application/json"), answer
    assert set(answer.json) == {"error"}
    assert detail in answer.json["error"]


@pytest.fixture(scope="module")
def expected(rentals_server: Server) -> dict[str, list[float]]:
    """Return what /predict answers for the flats."""
    answer = rentals_server.ask("/predict?interval=0.8", json.dumps({"instances": FLATS}).encode()).json
    return {name: answer[name] for name in ("predictions", "lower", "upper")}


def binary_tensors(inputs: list[dict[str, Any]]) -> bytes:
    """Return the data of inputs as raw bytes, and move them out of the inputs."""
    formats, chunks = {"FP64": "<d", "INT64": "<q", "BOOL": "<?"}, []
    for tensor in inputs:
        values = tensor.pop("data")
        if tensor["datatype"] == "BYTES":
            chunks.append(b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values))
        else:
            chunks.append(b"".join(struct.pack(formats[tensor["datatype"]], value) for value in values))
        tensor["parameters"] = {"binary_data_size": len(chunks[-1])}
    return b"".join(chunks)


def test_metadata_describe_the_schema(rentals_server: Server) -> None:
    described = rentals_server.ask("/v2/models/housing-rentals/versions/1").json
    assert described == rentals_server.ask("/v2/models/housing-rentals").json
    assert (described["name"], described["versions"]) == ("housing-rentals", ["1"])
    assert {tensor["name"]: tensor["datatype"] for tensor in described["inputs"]} == DATATYPES
    shapes = {tensor["name"]: tensor["shape"] for tensor in described["outputs"]}
    assert shapes.pop("quantiles") == [-1, -1]
    assert shapes == {"predictions": [-1], "lower": [-1], "upper": [-1], "contributions": [-1, 5], "base_value": [-1]}
    assert rentals_server.ask("/v2").json["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_columns_are_predicted_as_rows_of_predict(
    rentals_server: Server, expected: dict[str, list[float]], shape: list[int]
) -> None:
    body = {"id": "mine", "inputs": [{**tensor, "shape": shape} for tensor in reversed(INPUTS)]}
    answer = infer(rentals_server, body, f"{INFER.removesuffix('/infer')}/versions/1/infer")
    assert outputs(answer) == {"predictions": expected["predictions"]}
    assert (answer.json["id"], answer.json["model_name"], answer.json["model_version"]) == ("mine", "housing-rentals", "1")
    assert answer.json["parameters"] == {"request_id": answer.id}
    nested = [{**tensor, "shape": [2, 1], "data": [[value] for value in tensor["data"]]} for tensor in INPUTS]
    assert outputs(infer(rentals_server, {"inputs": nested})) == {"predictions": expected["predictions"]}


def test_intervals_and_shapley_values_are_outputs(rentals_server: Server, expected: dict[str, list[float]]) -> None:
    body: dict[str, Any] = {"inputs": INPUTS, "parameters": {"interval": 0.8}}
    assert outputs(infer(rentals_server, body)) == expected
    names = ["contributions", "base_value", "upper"]
    found = outputs(infer(rentals_server, {**body, "outputs": [{"name": name} for name in names]}))
    assert list(found) == names and found["upper"] == expected["upper"]
    explained = rentals_server.ask("/explain", json.dumps(FLATS[1]).encode()).json
    assert found["contributions"][5:] == list(explained["contributions"].values())
    assert found["base_value"] == [explained["base_value"]] * 2


def test_quantiles_are_a_tensor_with_a_column_for_each_level(rentals_server: Server) -> None:
    answer = rentals_server.ask("/predict?quantiles=0.1,0.5,0.9", json.dumps({"instances": FLATS}).encode()).json
    by_row = [value for row in zip(*answer["quantiles"].values(), strict=True) for value in row]
    body: dict[str, Any] = {"inputs": INPUTS, "parameters": {"quantiles": [0.1, 0.5, 0.9]}}
    found = infer(rentals_server, body)
    assert outputs(found) == {"predictions": answer["predictions"], "quantiles": by_row}
    assert found.json["outputs"][1]["shape"] == [2, 3] and found.json["parameters"]["quantiles"] == [0.1, 0.5, 0.9]
    assert outputs(infer(rentals_server, {**body, "outputs": [{"name": "quantiles"}]})) == {"quantiles": by_row}


def test_binary_tensors_are_read_and_written(rentals_server: Server, expected: dict[str, list[float]]) -> None:
    inputs = copy.deepcopy(INPUTS)
    raw = binary_tensors(inputs[:4])  # that of built stays JSON, since it has a null
    wanted = [{"name": "predictions", "parameters": {"binary_data": False}}, {"name": "upper"}]
    head = json.dumps({"inputs": inputs, "outputs": wanted, "parameters": {"interval": 0.8, "binary_data_output": True}}).encode()
    headers = {"Content_Type": "application/octet-stream", "Inference_Header_Content_Length": str(len(head))}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(rentals_server.url + INFER, head + raw, named), timeout=30) as answer:
        length, received = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
    assert answer.headers["Content-Type"] == "application/octet-stream"
    first, second = json.loads(received[:length])["outputs"]
    assert first["data"] == expected["predictions"] and "data" not in second
    assert second["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(received[length:], "<f8").tolist() == expected["upper"]
    for broken, length, detail in (
        (head + raw[:-1], len(head), "must be a number from 0 to"),
        (head + raw + b"1", len(head), "1 bytes of the body belong to no input"),
        (head + raw, len(head) + len(raw) + 1, "Inference-Header-Content-Length must be a number"),
        (head + raw.replace(b"hills", b"\xff\xff\xff\xff\xff"), len(head), "no BYTES elements in UTF-8"),
        (head + raw.replace(struct.pack("<I", 5), b"\x90\x00\x00\x00"), len(head), "an element is cut off"),
    ):
        assert_refused(infer(rentals_server, broken, **{**headers, "Inference_Header_Content_Length": str(length)}), 400, detail)


def changed(name: str, **changes: Any) -> dict[str, Any]:
    """Return a request with a changed input."""
    return {"inputs": [{**tensor, **changes} if tensor["name"] == name else tensor for tensor in INPUTS]}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 400, "not valid JSON"),
        (b'{"inputs": [], "inputs": []}', 400, "duplicate key"),
        (json.dumps(changed("area", data=[float("nan"), 1.0])).encode(), 400, "NaN is not a JSON number"),
        ([], 422, 'must be a JSON object with "inputs"'),
        ({"inputs": []}, 422, "at least one tensor"),
        ({"inputs": INPUTS, "x": 1}, 422, 'must be a JSON object with "inputs"'),
        ({"inputs": INPUTS, "id": 1}, 422, '"id" must be a printable text'),
        ({"inputs": INPUTS, "id": "\ud800"}, 400, "surrogates not allowed"),
        ({"inputs": INPUTS, "model_name": "x"}, 422, "differs from the path"),
        (
            {"inputs": INPUTS, "parameters": {"intervall": 0.9}},
            422,
            "keys from binary_data_output, content_type, interval, quantiles",
        ),
        ({"inputs": INPUTS, "parameters": {"interval": 1}}, 422, "interval must be a number between 0 and 1 (got 1)"),
        ({"inputs": INPUTS, "parameters": {"interval": 0.9999}}, 422, "0.9999"),
        (
            {"inputs": INPUTS, "outputs": [{"name": "x"}]},
            422,
            '"name" is predictions, lower, upper, quantiles, contributions',
        ),
        ({"inputs": INPUTS, "outputs": [{"name": "lower"}]}, 422, "need the parameter interval"),
        ({"inputs": INPUTS, "outputs": [{"name": "quantiles"}]}, 422, "quantiles needs quantiles, as in [0.1, 0.9]"),
        ({"inputs": INPUTS, "parameters": {"quantiles": "0.5"}}, 422, "quantiles must be a list of numbers"),
        ({"inputs": INPUTS, "parameters": {"quantiles": []}}, 422, "quantiles must be a list of numbers"),
        ({"inputs": INPUTS, "parameters": {"quantiles": [0.5, 1.1]}}, 422, "at most 0.9"),
        ({"inputs": INPUTS, "parameters": {"quantiles": [0.5], "interval": 2.0}}, 422, "interval must be a number"),
        ({"inputs": [*INPUTS, INPUTS[0]]}, 422, "Two inputs have the same name"),
        ({"inputs": INPUTS[:3]}, 422, "quarter: Missing required value."),
        ({"inputs": [*INPUTS, {**INPUTS[0], "name": "rent"}]}, 422, "rent: Not a column of this model."),
        (changed("area", datatype="FP65"), 422, "datatype of INT8"),
        (changed("area", shape=[3]), 422, "must have 3 values, as its shape [3] says (got 2)"),
        (changed("area", shape=[1, 2]), 422, "must have the shape"),
        (changed("area", shape=[0], data=[]), 422, "both at least 1"),
        (changed("area", data=["1", "2"]), 422, "must be a list of FP64 values"),
        (changed("rooms", data=[1.5, 2]), 422, "must be a list of INT64 values"),
        (
            changed("rooms", data=[99, None]),
            422,
            "row 0, rooms: Must be at most 12 (got 99).\nrow 1, rooms: Missing required value.",
        ),
        (
            changed("quarter", data=["hills", "hell"]),
            422,
            "row 1, quarter: Must be one of old town, harbour, hills (got 'hell').",
        ),
        (changed("area", parameters={"binary_data_size": 16}), 422, 'either "data" or the parameter'),
        (changed("quarter", parameters={"content_type": "base64"}), 422, "unknown content_type"),
        ({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}, 422, "shape [rows, 5]"),
    ],
)
def test_an_invalid_request_is_refused(rentals_server: Server, body: Any, status: int, detail: str) -> None:
    assert_refused(infer(rentals_server, body), status, detail)


def test_other_names_versions_methods_and_types_are_refused(rentals_server: Server) -> None:
    body = {"inputs": INPUTS}
    for route in ("/v2/models/other/infer", "/v2/models/a%20b/infer"):
        assert_refused(infer(rentals_server, body, route), 404, "GET /models lists the models of this server.")
    answer = infer(rentals_server, body, "/v2/models/housing-rentals/versions/2/infer")
    assert_refused(answer, 404, "There is no model 'housing-rentals' with version '2'. This server serves version 1.")
    for route in ("/v2/models/other", "/v2/models/other/ready", "/v2/models/housing-rentals/versions/2/ready"):
        assert_refused(rentals_server.ask(route), 404, "There is no model")
    assert_refused(rentals_server.ask("/v2/other"), 404, "There is no route")
    assert_refused(rentals_server.ask(INFER), 405, "does not take GET")
    assert_refused(infer(rentals_server, body, Content_Type="text/plain"), 415, "application/json or application/octet-stream")
    assert_refused(infer(rentals_server, body, Content_Encoding="br"), 415, "must be identity or gzip or zstd")
    assert_refused(infer(rentals_server, body, f"{INFER}?interval=0.9"), 422, "takes no query")


def test_requests_are_logged_and_counted_as_those_of_predict(rentals_server: Server) -> None:
    def counts() -> list[float]:
        scrape = scraped(rentals_server)
        route = 'route="/v2/models/<name>/infer",status="200"'
        return [scrape[f"housing_request_seconds_count{{{route}}}"], scrape['housing_rows_total{version="1"}']]

    before = counts()
    answer = infer(rentals_server, {"id": "mine", "inputs": INPUTS})
    plain = rentals_server.predict({"instances": FLATS})
    assert np.subtract(counts(), before).tolist() == [1, 4]
    folder = rentals_server.log.parent / "serving" / "rentals-staging.log"
    logged = [partial(read_entries, folder, LogFilter(id=id_)) for id_ in (answer.id, plain.json["request_id"])]
    wait_for(lambda: all(read()[0] for read in logged), "the requests are logged")
    mine, other = (read()[0][0] for read in logged)
    varying = ("id", "time", "latency_ms", "route")
    assert {**mine, **dict.fromkeys(varying)} == {**other, **dict.fromkeys(varying)}
