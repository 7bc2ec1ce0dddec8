"""Hostile requests to a real server: no header, path, number, name or id of a client gets further than an error."""

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.support.commands import command
from tests.support.server import Server, free_port
from tests.support.tables import FLAT, RENTALS_DATA

ROW = json.dumps(FLAT)


def send(server: Server, start: str, headers: str = "", body: str = "") -> bytes:
    """Send bytes as they are, and return the whole response."""
    _, _, port = server.url.rpartition(":")
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as connection:
        text = f"{start} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{kind}{headers}\r\n{body}"
        connection.sendall(text.encode("latin-1"))
        response = b""
        while part := connection.recv(65536):
            response += part
    return response


def header_lines(response: bytes) -> list[bytes]:
    """Return the header of a response, line by line."""
    return response.partition(b"\r\n\r\n")[0].split(b"\r\n")


@pytest.mark.parametrize(
    "value",
    [
        "a\r\n Set-Cookie: x=1",
        "a\nSet-Cookie: x=1",
        "a\rSet-Cookie: x=1",
        "a%0d%0aSet-Cookie: x=1",
        "\x1b[31m",
        "\x00",
        "a" * 10_000,
    ],
    ids=["folded", "newline", "carriage return", "percent", "escape", "zero", "10 kB"],
)
@pytest.mark.parametrize("name", ["X-Request-Id", "Origin", "User-Agent"])
def test_a_header_of_the_request_reaches_no_header_of_the_response(rentals_server: Server, name: str, value: str) -> None:
    response = send(rentals_server, "POST /predict", f"{name}: {value}\r\n", ROW)
    assert response.split()[1] in (b"200", b"400", b"431")
    assert not any(line.lower().startswith(b"set-cookie") for line in header_lines(response))
    assert b"aaaa" not in response and b"\x1b" not in response


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../app.py", "/static/..%2f..%2fapp.py", "/static/%2e%2e/%2e%2e/api/auth.py", "/static/..\\..\\app.py"),
        *(
            "/docs/..%2f..%2fsetup.py",
            "/docs/%2fetc%2fpasswd",
            "/static/page.js%00",
            "//etc/passwd",
            "/static/",
            "/../../etc/passwd",
        ),
    ],
)
def test_a_path_leads_to_no_other_file(rentals_server: Server, path: str) -> None:
    response = send(rentals_server, f"GET {path}")
    assert response.split()[1] == b"404", response
    assert b"import" not in response and b"root:" not in response


@pytest.mark.parametrize("route", ["/predict", "/invocations", "/explain", "/curves", "/feedback"])
@pytest.mark.parametrize(
    "body",
    [
        "[" * 500_000,
        '{"a":' * 300_000,
        '{"instances":' * 100_000,
        ROW.replace("50.5", "1e999"),
        ROW.replace("50.5", "9" * 5_000),
        ROW.replace("50.5", "-" + "9" * 1_000_000),
        ROW.replace("50.5", "0." + "9" * 1_000_000 + "e-5000"),
        ROW.replace("hills", "h" * 1_000_000),
    ],
    ids=["arrays", "objects", "instances", "exponent", "5,000 digits", "million digits", "million decimals", "long text"],
)
def test_a_bomb_in_json_is_an_error_in_a_moment(rentals_server: Server, route: str, body: str) -> None:
    status = int(send(rentals_server, f"POST {route}", body=body).split()[1])
    assert status in (400, 404, 422), status
    assert rentals_server.predict(FLAT).status == 200


def test_a_text_of_a_request_forges_no_line_of_the_log(rentals_server: Server) -> None:
    forged = "\r\n[2026-01-01 00:00:00 +0000] [1] [ERROR] forged \x1b[2J\u202e"
    for body in ({**FLAT, forged: 1}, {**FLAT, "quarter": forged}, {"instances": [forged]}):
        assert rentals_server.predict(body).status == 422
    labels = {"request_id": f"0193f5c2a1b3-01-0000002a{forged}", "values": [1]}
    assert rentals_server.ask("/feedback", json.dumps(labels).encode()).status == 422
    for start in ("GET /\x1b[2J%0a%0dforged", "G\x1b[2JET /", "GET /?interval=%0aforged"):
        send(rentals_server, start)
    log = rentals_server.log.read_bytes()
    assert b"\x1b" not in log and b"\r" not in log and b"\xe2\x80\xae" not in log
    assert not any(line.startswith((b"forged", b"[2026-01-01")) for line in log.splitlines())


@pytest.mark.parametrize(
    "request_id", ["x'; DROP TABLE labels; --", "0193f5c2a1b3-01-0000002a' OR '1'='1", "0193f5c2a1b3-01-0000002a\n", "../x"]
)
def test_an_id_that_is_no_request_id_is_refused(rentals_server: Server, request_id: str) -> None:
    labels = {"feedback": [{"request_id": request_id, "row": 0, "value": 1}]}
    assert rentals_server.ask("/feedback", json.dumps(labels).encode()).status == 422


def test_what_the_server_writes_is_readable_by_its_user_only(rentals_server: Server) -> None:
    assert rentals_server.predict(FLAT).status == 200
    serving = rentals_server.log.parent / "serving"
    (log_dir,) = serving.glob("*.log")
    for path in (serving, log_dir, *log_dir.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("setting", ["serve.log_dir", "serve.release_dir"])
def test_a_folder_that_cannot_be_written_ends_the_start_with_a_sentence(home: Path, setting: str) -> None:
    folder = home / "data" / "rentals.csv" / "folder"
    result = command(home, "housing.serve", *RENTALS_DATA[:2], f"serve.port={free_port()}", f"{setting}={folder}")
    assert result.code == 1
    assert result.err.startswith(
        f"error: {setting} must be a folder that this user can write to (got {folder}: Not a directory)."
    )


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("route", ["/", "/predict", "/nothing", "/static/page.js", "/metrics"])
def test_no_response_shows_a_path_or_a_traceback(rentals_server: Server, method: str, route: str) -> None:
    response = send(
        rentals_server, f"{method} {route}", "Range: bytes=5-1,9-\r\nIf-Modified-Since: never\r\nAccept-Charset: \xff\r\n"
    )
    for secret in (b"Traceback", b'File "', os.fsencode(Path.cwd()), os.fsencode(rentals_server.log.parent)):
        assert secret not in response
