"""Requests that are refused for their body: clients that send all of it before they read get the response, too."""

import gzip
import http.client
import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.raw_client import new, request
from tests.support.server import Server
from tests.support.tables import FLAT

N_BYTES = 30_000_000  # above every buffer of the system
Compress = Callable[[bytes], bytes]
COMPRESS: dict[str, Compress] = {"gzip": gzip.compress, "zstd": partial(pa.compress, codec="zstd", asbytes=True)}
DETAIL = "The request body must have at most 4000000 bytes (serve.max_body)."
NODE = f"""
const body = "x".repeat({N_BYTES})
const response = await fetch(process.argv[1] + "/predict", {{method: "POST", body}})
console.log(response.status, (await response.json()).detail)
"""
JAVA = f"""
import java.net.*;

class Post {{
    public static void main(String[] arguments) throws Exception {{
        var connection = (HttpURLConnection) URI.create(arguments[0] + "/predict").toURL().openConnection();
        connection.setDoOutput(true);
        connection.getOutputStream().write(new byte[{N_BYTES}]);
        System.out.println(connection.getResponseCode() + " " + new String(connection.getErrorStream().readAllBytes()));
    }}
}}
"""


@pytest.mark.parametrize("is_chunked", [False, True])
def test_pythons_client_gets_413(rentals_server: Server, is_chunked: bool) -> None:
    with closing(http.client.HTTPConnection(rentals_server.url.removeprefix("http://"), timeout=60)) as connection:
        body = bytes(N_BYTES)
        connection.request("POST", "/predict", iter([body]) if is_chunked else body, encode_chunked=is_chunked)
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (413, "close")
        assert json.load(response)["detail"] == DETAIL


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
def test_fetch_of_node_gets_413(rentals_server: Server) -> None:
    node = subprocess.run(
        ["node", "--input-type=module", "-e", NODE, rentals_server.url], capture_output=True, text=True, check=False
    )
    assert (node.stdout, node.stderr) == (f"413 {DETAIL}\n", "")


@pytest.mark.skipif(not shutil.which("javac"), reason="needs a Java development kit")
def test_the_client_of_java_gets_413(rentals_server: Server, tmp_path: Path) -> None:
    (tmp_path / "Post.java").write_text(JAVA, encoding="utf-8")
    java = subprocess.run(["java", tmp_path / "Post.java", rentals_server.url], capture_output=True, text=True, check=False)
    assert java.stdout.startswith("413 ") and DETAIL in java.stdout, java.stderr


def test_a_client_that_expects_100_continue_sends_no_body(rentals_server: Server) -> None:
    with new(rentals_server) as client:
        client.send(request(b"", fields="Expect: 100-continue\r\n", length=N_BYTES))
        assert client.response()[0] == 413
        assert client.ends()


ROUTES = pytest.mark.parametrize("route", ["/predict", "/invocations", "/explain", "/v2/models/housing-rentals/infer"])


def rows_for(route: str) -> dict[str, Any]:
    """Return a body of one row for a route."""
    if route == "/invocations":
        return {"dataframe_records": [FLAT]}
    if "infer" in route:
        return {"inputs": [tensor(name, value) for name, value in FLAT.items()]}
    return FLAT


def tensor(name: str, value: Any) -> dict[str, Any]:
    """Return an input tensor with the value of one row."""
    datatype = {bool: "BOOL", str: "BYTES"}.get(type(value), "FP64")
    return {"name": name, "shape": [1], "datatype": datatype, "data": [value]}


@ROUTES
@pytest.mark.parametrize("coding", list(COMPRESS))
def test_a_compressed_body_is_answered_like_its_content(rentals_server: Server, route: str, coding: str) -> None:
    body = json.dumps(rows_for(route)).encode()
    plain = rentals_server.ask(route, body)
    assert plain.status == 200
    answer = rentals_server.ask(route, COMPRESS[coding](body), Content_Encoding=coding.upper())
    assert (answer.status, without_id(answer.json)) == (200, without_id(plain.json))


def without_id(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what differs between equal requests."""
    return {name: value for name, value in answer.items() if name not in ("id", "parameters", "request_id")}


@ROUTES
@pytest.mark.parametrize("coding", list(COMPRESS))
@pytest.mark.parametrize(
    ("make", "status", "detail"),
    [
        (lambda _: b"{}", 400, "not valid {}: "),
        (lambda pack: pack(b"{}")[:-3], 400, "not valid {}: "),
        (lambda pack: pack(b"{}") + b"{}", 400, "not valid {}: "),
        (lambda pack: pack(b" " * N_BYTES), 413, "at most"),  # a few thousand bytes are sent
    ],
    ids=["plain", "incomplete", "more", "bomb"],
)
def test_a_faulty_compressed_body_is_refused(
    rentals_server: Server,
    route: str,
    coding: str,
    make: Callable[[Compress], bytes],
    status: int,
    detail: str,
) -> None:
    answer = rentals_server.ask(route, make(COMPRESS[coding]), Content_Encoding=coding)
    assert answer.status == status
    assert detail.format(coding) in answer.text


@ROUTES
def test_another_compression_gets_415(rentals_server: Server, route: str) -> None:
    answer = rentals_server.ask(route, b"{}", Content_Encoding="br")
    assert answer.status == 415
    assert "Content-Encoding must be identity or gzip or zstd (got br)" in answer.text


def test_a_compressed_transfer_gets_415(rentals_server: Server) -> None:
    with new(rentals_server) as client:
        client.send(request(b"{}", fields="Transfer-Encoding: gzip\r\n"))
        status, _, body = client.response()
        assert status == 415 and b"Transfer-Encoding" in body
        assert client.ends()
