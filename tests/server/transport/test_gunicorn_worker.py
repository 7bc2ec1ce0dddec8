"""Gunicorn worker: requests of every form are answered, whole or in parts, and connections are kept or closed as they should."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support.raw_client import JSON, WARM, Client, keep_alive, new, request
from tests.support.server import Server, free_port, promoted, scraped, serving
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

THREADS, TIMEOUT, METRICS_PORT = 2, 3, free_port()
METRICS = f"http://127.0.0.1:{METRICS_PORT}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """One worker with two threads."""
    home = promoted(tmp_path_factory.mktemp("served"), "rentals", empty_store)
    options = (
        "serve.workers=1",
        f"serve.threads={THREADS}",
        f"serve.request_timeout_seconds={TIMEOUT}",
        f"serve.metrics_port={METRICS_PORT}",
    )
    with serving(home, *options) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


ROW = json.dumps(FLAT).encode()
GOOD = request(ROW)
ROWS, MANY = 500, 1000
LARGE = request(
    json.dumps({"columns": list(FLAT), "rows": [list(FLAT.values())] * ROWS}, separators=(",", ":")).encode(),
    "/predict?interval=0.9",
)


BODIES = {
    "a row": (ROW, "/predict"),
    "a row with an interval": (ROW, "/predict?interval=0.9"),
    "instances": (json.dumps({"instances": [FLAT] * 20}).encode(), "/invocations"),
    "a text for a number": (json.dumps(FLAT | {"area": "1"}).encode(), "/predict"),
    "a row without a column": (json.dumps({"area": 1}).encode(), "/invocations"),
    "no JSON": (b'{"area":', "/predict"),
    "nothing": (b"", "/predict"),
    "another interval": (ROW, "/predict?interval=2"),
}


@pytest.mark.parametrize(("body", "route"), BODIES.values(), ids=BODIES.keys())
def test_inline_thread_and_flask_responses_are_equal(served: Server, body: bytes, route: str) -> None:
    message = request(body, route)
    head = message.removesuffix(body)
    counted_before = count_answers(served)
    with new(served) as client:
        client.send(message)
        by_thread = client.response()
        client.send(message)
        assert client.response() == by_thread
        client.send(head)
        client.send(body)
        assert client.response() == by_thread
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in dict.fromkeys((body, b"")))
        client.send(re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head) + chunks)
        status, _, body_sent = client.response()  # Flask's routes answer that, with more headers
        assert (status, body_sent) == (by_thread[0], by_thread[2])
    name = f'housing_request_seconds_count{{route="{route.partition("?")[0]}",status="{status}"}}'
    assert (count_answers(served) - counted_before)[name] == 4  # beside it, what an earlier test left may be given up


def count_answers(served: Server) -> Counter[str]:
    """Return the number of answered requests of the fast routes, by route and status."""
    hot = re.compile(r'housing_request_seconds_count\{route="/(predict|invocations)".*')
    return Counter({name: int(number) for name, number in scraped(replace(served, url=METRICS)).items() if hot.match(name)})


ODD = {
    "HTTP/1.0": GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "no Host": GOOD.replace(b"Host: x\r\n", b""),
    "two Hosts": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nHost: y\r\n"),
    "two lengths": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nContent-Length: 3\r\n"),
    "a length twice": request(ROW, fields="").replace(b"Content-Length", b"Content-Length: 5, 5\r\nX"),
    "a length with a sign": GOOD.replace(b"Content-Length: ", b"Content-Length: +"),
    "a length that is no number": request(b"{}").replace(b"Content-Length: 2", b"Content-Length: two"),
    "no length": GOOD.replace(b"Content-Length", b"X-Length"),
    "a length and chunks": request(b"0\r\n\r\n", fields="Transfer-Encoding: chunked\r\n"),
    "chunks of an unknown coding": request(b"{}", fields="Transfer-Encoding: gzip\r\n"),
    "another name of the method": GOOD.replace(b"POST", b"post"),
    "a space before the colon": GOOD.replace(b"Content-Type:", b"Content-Type :"),
    "a folded line": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nX-Folded: a\r\n b\r\n"),
    "a control character": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nX-Odd: a\x00b\r\n"),
    "an underscore": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nX_Odd: b\r\n"),
    "the whole address": GOOD.replace(b"/predict", b"http://x/predict"),
    "an encoded path": GOOD.replace(b"/predict", b"/%70redict"),
    "many fields": GOOD.replace(b"Host: x\r\n", b"Host: x\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(150))),
    "a long field": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nX-Long: " + 9000 * b"a" + b"\r\n"),
    "a long query": request(b"{}", "/predict?" + 5000 * "a"),
    "Connection: close": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"),
    "a scheme and another": GOOD.replace(b"Host: x\r\n", b"Host: x\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Ssl: on\r\n"),
    "no type": request(ROW, fields=""),
    "another type": request(ROW, fields="Content-Type: text/plain\r\n"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_unusual_requests_are_left_to_gunicorn(served: Server, odd: bytes) -> None:
    with new(served) as first, keep_alive(served) as client:
        for connection in (first, client):
            connection.send(odd)
        assert client.response() == first.response()


def test_connection_close_is_honoured(served: Server) -> None:
    with keep_alive(served) as client:
        client.send(ODD["Connection: close"])
        assert client.response()[1]["Connection"] == "close"
        assert client.ends()


def test_a_client_that_keeps_a_closed_connection_open_delays_nobody(served: Server) -> None:
    with keep_alive(served) as client, new(served) as other:
        other.send(ODD["Connection: close"])
        assert other.response()[0] == 200
        client.socket.settimeout(1)
        for _ in range(20):  # not the first alone: the other connection may not have been closed yet
            client.send(GOOD)
            assert client.response()[0] == 200


def test_the_metrics_port_serves_no_predictions(served: Server) -> None:
    with new(replace(served, url=METRICS)) as client:
        for _ in range(2):
            client.send(GOOD)
            assert client.response()[0] == 404


def test_expect_100_continue_is_answered(served: Server) -> None:
    with keep_alive(served) as client:
        client.send(request(b"", fields=f"{JSON}Expect: 100-continue\r\n", length=len(ROW)))
        assert client.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(ROW)
        assert client.response()[0] == 200


def test_a_missing_body_times_out_and_delays_nobody(served: Server) -> None:
    with keep_alive(served) as client, keep_alive(served) as other:
        client.send(request(b"{", length=10))
        started = time.monotonic()
        other.send(GOOD)
        assert other.response()[0] == 200
        assert time.monotonic() - started < TIMEOUT / 2
        status, headers, _ = client.response()
        assert (status, headers["Connection"]) == (408, "close")  # else the rest, when it comes, is taken for a request
        assert TIMEOUT <= time.monotonic() - started < 2 * TIMEOUT
        assert client.ends()


@pytest.mark.parametrize("broken", [b"no number\r\n", b"1\r\n{no end", b"0\r\nHost: in a trailer\r\n\r\n"])
def test_data_after_a_malformed_chunk_is_not_parsed_as_a_request(served: Server, broken: bytes) -> None:
    with keep_alive(served) as client:
        client.send(re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", request(b"")) + broken)
        status, headers, _ = client.response()
        assert (status, headers["Connection"]) == (400, "close")
        assert client.ends()


@pytest.mark.long
def test_a_request_at_the_end_of_the_idle_timeout_ends_no_worker(tmp_path: Path, empty_store: Path) -> None:
    brief = "serve.keep_alive_seconds=1"  # and the loop looks once a second
    with serving(promoted(tmp_path, "rentals", empty_store), "serve.workers=1", brief) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        workers = running.workers()
        with keep_alive(running) as client, new(running) as other:
            time.sleep(0.5)
            other.send(WARM)
            assert (
                other.response()[0] == 200
            )  # a second from now the loop looks again, and half a second before that time is over
            time.sleep(0.75)
            client.send(GOOD.removesuffix(ROW))
            time.sleep(0.005)  # so that the parts are two for the server
            client.send(ROW)
            assert client.response()[0] == 200
        assert running.workers() == workers


def test_a_body_sent_byte_by_byte_is_read(served: Server) -> None:
    with keep_alive(served) as client:
        for position in range(len(GOOD)):
            client.send(GOOD[position : position + 1])
        assert client.response()[0] == 200


def test_pipelined_requests_are_answered_in_order(served: Server) -> None:
    with keep_alive(served) as client:
        client.send(GOOD + request(b"[]") + WARM + GOOD)
        assert [client.response()[0] for _ in range(4)] == [200, 422, 200, 200]


def test_endless_pipelining_does_not_fill_the_memory(served: Server) -> None:
    (worker,) = served.workers()
    before, end = memory(worker), time.monotonic() + 2
    with keep_alive(served) as client, ThreadPoolExecutor() as beside:
        reads = beside.submit(lambda: all(iter(partial(client.socket.recv, 2**20), b"")))
        while time.monotonic() < end:
            if select.select([], [client.socket], [], 0.1)[1]:
                client.socket.send(1000 * WARM)
        client.socket.shutdown(socket.SHUT_RDWR)
        reads.exception()  # the server may end the connection first
    assert memory(worker) - before < 10


def memory(pid: int) -> float:
    """Return the peak memory of a process in MB."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    assert match
    return int(match[1]) / 1000


def fill(served: Server, client: Client) -> int:
    """Send requests without reading until the server stalls on a full buffer. Return their number."""
    metrics = replace(served, url=METRICS)
    for count in range(1, MANY):
        due = predicted(metrics) + ROWS
        client.send(LARGE)
        try:
            wait_for(partial(is_predicted, metrics, due), "it is predicted", seconds=1)
        except AssertionError:
            return count
    raise AssertionError("the buffer holds whatever comes")


def is_predicted(metrics: Server, due: float) -> bool:
    """Whether so many rows have been predicted."""
    return predicted(metrics) >= due


def predicted(metrics: Server) -> float:
    """Return the number of predicted rows."""
    return sum(number for name, number in scraped(metrics).items() if name.startswith("housing_rows_total"))


def test_a_slow_reader_gets_complete_responses(served: Server) -> None:
    with keep_alive(served, receives=2048) as client:
        answers = [client.response() for _ in range(fill(served, client))]
        assert {(status, len(json.loads(body)["upper"])) for status, _, body in answers} == {(200, ROWS)}


def test_a_client_that_disconnects_early_ends_no_worker(served: Server) -> None:
    workers = served.workers()
    for _ in range(20):
        with keep_alive(served) as client:
            client.send(GOOD)
    with keep_alive(served, receives=2048) as client:
        fill(served, client)
    with keep_alive(served) as client:
        client.send(GOOD)
        assert client.response()[0] == 200
    assert served.workers() == workers


@pytest.mark.long
def test_an_untested_gunicorn_serves_with_its_own_worker(served: Server, tmp_path: Path, empty_store: Path) -> None:
    home = promoted(tmp_path, "rentals", empty_store)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "sitecustomize.py").write_text(
        "import gunicorn\ngunicorn.version_info = (99, 1, 0)\n", encoding="utf-8"
    )
    path = os.pathsep.join([str(tmp_path / "newer"), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "GUNICORN_CMD_ARGS": "--log-level=info"}
    with serving(home, "serve.workers=1", environment=environment) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        answer = running.predict(FLAT)
        assert (answer.status, answer.json["predictions"]) == (200, served.predict(FLAT).json["predictions"])
    log = running.log.read_text(encoding="utf-8")
    assert log.count("WARNING: gunicorn 99.1.0 is not tested with server.transport.gunicorn_worker.Worker") == 1
    assert "Using worker: gthread" in log
    assert "WARNING: gunicorn" not in served.log.read_text(encoding="utf-8")  # the version of the lock is a tested one


HOST = b"Host: x\r\n"


@pytest.mark.parametrize("message", [GOOD, request(ROW, "/feedback"), WARM], ids=["inline", "thread", "get"])
@pytest.mark.parametrize("hosts", [b"", HOST + b"Host: y\r\n"], ids=["none", "two"])
def test_a_request_needs_one_host(served: Server, message: bytes, hosts: bytes) -> None:
    with new(served) as client:
        client.send(message.replace(HOST, hosts))
        status, _, body = client.response()
        assert status == 400 and b"HOST" in body.upper()


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Script-Name", "script_name", "PATH_INFO"])
def test_a_header_does_not_change_the_route(served: Server, name: str) -> None:
    with new(served) as client:
        client.send(WARM.replace(HOST, HOST + f"{name}: /elsewhere\r\n".encode()))
        assert client.response()[0] == 200


def chunked(body: bytes, route: str) -> bytes:
    """Return a request with a body in two chunks."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:100], body[100:], b""))
    return re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", request(b"", route)) + chunks


@pytest.mark.parametrize("route", ["/predict", "/invocations", "/feedback", "/explain", "/curves"])
def test_a_chunked_body_above_the_limit_is_refused(served: Server, route: str) -> None:
    rows = json.dumps({"columns": list(FLAT), "rows": [list(FLAT.values())] * 100}).encode()
    with new(served) as client:
        client.send(chunked(rows + b" " * 4_000_000, route))
        status, headers, body = client.response()
        assert (status, headers["Connection"]) == (413, "close") and b"4000000 bytes (serve.max_body)" in body
        assert client.ends()  # what is left of the body must not be read as a request


def test_a_chunked_body_within_the_limit_is_read_whole(served: Server) -> None:
    rows = json.dumps({"columns": list(FLAT), "rows": [list(FLAT.values())] * 500}).encode()
    with keep_alive(served) as client:
        client.send(chunked(rows, "/predict") + GOOD)
        status, _, body = client.response()
        assert (status, len(json.loads(body)["predictions"])) == (200, 500)
        assert client.response()[0] == 200


@pytest.mark.long
def test_replaced_workers_answer_until_their_successors_are_ready(served_home: Path, tmp_path: Path) -> None:
    may_start = tmp_path / "may_start"
    may_start.touch()
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import os, sys, time

class Blocker:
    def find_spec(self, name, path=None, target=None):
        while name == "server.app" and not os.path.exists({str(may_start)!r}):
            time.sleep(0.05)

sys.meta_path.insert(0, Blocker())
""",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with serving(served_home, "serve.workers=2", environment={"PYTHONPATH": path}) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        before = set(running.workers())
        may_start.unlink()
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(running.workers()) == 4, "the successors are started")
        end = time.monotonic() + 4
        while time.monotonic() < end:
            assert running.predict(FLAT).status == 200
        assert before < set(running.workers())
        may_start.touch()
        wait_for(lambda: len(running.workers()) == 2 and not before & set(running.workers()), "the old workers are gone")
        assert running.predict(FLAT).status == 200


def test_a_server_listens_on_an_ipv6_address(served_home: Path) -> None:
    port = free_port()
    with serving(served_home, "serve.host='::1'", "serve.workers=1", f"serve.port={port}", url=f"http://[::1]:{port}") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        assert running.predict(FLAT).status == 200
        assert f"http://[::1]:{port}/" in running.log.read_text(encoding="utf-8")
        environment = {**os.environ, "HOUSING_HOST": "::1", "HOUSING_PORT": str(port)}
        serve = dict.fromkeys(("MODEL", "TRACKING_URI", "RELEASE_DIR", "LOG_DIR"), "x")
        environment |= {f"HOUSING_{name}": value for name, value in serve.items()}
        probe = subprocess.run(
            [sys.executable, "-m", "housing.serving.probe", "predict"], env=environment, cwd=PROJECT, check=False
        )
        assert probe.returncode == 0


def test_a_head_request_gets_headers_only(served: Server) -> None:
    with keep_alive(served) as client:
        client.send(WARM.replace(b"GET", b"HEAD") + GOOD)
        assert client.answers.readline() == b"HTTP/1.1 200 OK\r\n"
        while client.answers.readline() != b"\r\n":
            pass
        assert client.response()[0] == 200


@pytest.mark.parametrize(("field", "stays_open"), [("Connection: keep-alive\r\n", True), ("", False)])
def test_http_1_0_keeps_a_connection_only_if_asked_to(served: Server, field: str, stays_open: bool) -> None:
    with new(served) as client:
        client.send(f"GET /healthz HTTP/1.0\r\n{field}\r\n".encode())
        status, headers, _ = client.response()
        assert (status, headers["Connection"]) == (200, "keep-alive" if stays_open else "close")
        if stays_open:
            client.send(GOOD)
            assert client.response()[0] == 200
        else:
            assert client.ends()


def test_a_client_that_stops_in_the_middle_of_a_body_is_told(served: Server) -> None:
    with keep_alive(served) as client:
        client.send(GOOD[:-1])
        client.socket.shutdown(socket.SHUT_WR)
        status, _, body = client.response()
        assert status == 400 and b"The request is incomplete" in body
