"""Requests that are refused for their body: clients that send all of it before they read get the response, too."""

import gzip
import http.client
import json
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.raw_client import new, request
from tests.support.server import Server, assert_problem
from tests.support.tables import FLAT

N_BYTES = 30_000_000  # above every buffer of the system
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


@pytest.mark.parametrize("route", ["/predict", "/invocations", "/feedback", "/explain"])
def test_a_compressed_body_gets_415(rentals_server: Server, route: str) -> None:
    body = gzip.compress(json.dumps(FLAT).encode())
    answer = rentals_server.ask(route, body, Content_Encoding="gzip")
    assert_problem(answer, 415, "must not be compressed: send it without Content-Encoding .got gzip")


def test_a_compressed_transfer_gets_415(rentals_server: Server) -> None:
    with new(rentals_server) as client:
        client.send(request(b"{}", fields="Transfer-Encoding: gzip\r\n"))
        status, _, body = client.response()
        assert status == 415 and b"Transfer-Encoding" in body
        assert client.ends()
