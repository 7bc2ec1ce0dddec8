"""API keys, rights and rate limits; metrics port and CORS origins."""

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from housing.promotion import server_status
from housing.promotion.settings import ServerSettings
from server.api.auth import load_keys
from tests.support.commands import NO_NETWORK, command
from tests.support.server import Answer, Server, assert_problem, free_port, new_key, serving
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

BODY = json.dumps(FLAT).encode()
MODELS_BY_NAME = {"rentals": ["housing-other@x,housing-rentals@staging"], "towns": ["housing-towns@staging"]}
OPEN_ROUTES = {  # need no key
    *("/healthz", "/readyz", "/ping", "/health", "/version", "/", "/docs", "/openapi.json"),
    *("/v2", "/v2/health/live", "/v2/health/ready"),
    *("/v2/models/housing-rentals/ready", "/v2/models/housing-rentals/versions/1/ready"),
}


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    """Two keys that may predict, one of them in the file, one for metrics, one for feedback, and two for one model each."""
    rights_by_name = {"old": "predict", "new": "predict,metrics", "prometheus": "metrics", "surveyor": "feedback"}
    made = {name: new_key(name, rights) for name, rights in rights_by_name.items()}
    return made | {name: new_key(name, "predict,metrics", *models) for name, models in MODELS_BY_NAME.items()}


@pytest.fixture(scope="module")
def server(served_home: Path, keys: dict[str, tuple[str, str]]) -> Iterator[Server]:
    """Yield the promoted model behind keys, with metrics on a port of their own, open to the pages of one origin."""
    file = served_home / "keys"
    lines = [keys[name][1] for name in ("old", "prometheus", "surveyor", *MODELS_BY_NAME)]
    file.write_text("\n".join(("# rotated each month", *lines, "")), encoding="utf-8")
    options = (f"serve.keys_file={file}", "serve.workers=1", "serve.cors_origins='https://a.example'", "serve.rate_limit=50")
    port = free_port()
    with serving(served_home, *options, f"serve.metrics_port={port}", environment={"HOUSING_KEYS": keys["new"][1]}) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def ask(server: Server, route: str, key: str | None, body: bytes | None = None, **headers: str) -> Answer:
    """Send a request with a key."""
    named = {} if key is None else {"Authorization": f"Bearer {key}"}
    return server.ask(route, body, **named, **headers)


def test_keys_of_the_file_and_the_environment_are_both_valid(server: Server, keys: dict[str, tuple[str, str]]) -> None:
    assert [ask(server, "/predict", keys[name][0], BODY).status for name in ("old", "new")] == [200, 200]


@pytest.mark.parametrize("route", ["/predict", "/invocations"])
def test_a_missing_or_unknown_key_is_rejected(server: Server, route: str) -> None:
    assert_problem(ask(server, route, None, BODY), 401, "API key required")
    assert_problem(ask(server, route, "guessed", BODY), 401, "Unknown API key")
    assert_problem(ask(server, route, "\u00fc".encode().decode("latin-1"), BODY), 401, "Unknown API key")


def test_a_key_has_only_the_rights_of_its_line(server: Server, keys: dict[str, tuple[str, str]]) -> None:
    assert_problem(ask(server, "/predict", keys["prometheus"][0], BODY), 403, "lacks the right: predict")
    assert_problem(ask(server, "/model", keys["prometheus"][0]), 403, "lacks the right: predict")
    assert ask(server, "/model", keys["old"][0]).status == 200
    assert server.ask("/healthz").status == 200


PREDICTING = ("/predict", "/invocations", "/explain", "/curves", "/model", "/examples")


@pytest.mark.parametrize("root", ["", "/models/housing-rentals@staging", "/models/housing-rentals"])
def test_a_key_with_models_gets_predictions_of_these_alone(server: Server, keys: dict[str, tuple[str, str]], root: str) -> None:
    routes = {f"{root}{route}": BODY if route in PREDICTING[:4] else None for route in PREDICTING}
    routes["/v2/models/housing-rentals"] = None
    routes["/v2/models/housing-rentals/infer"] = b"{}"
    for route, body in routes.items():
        refused = ask(server, route, keys["towns"][0], body)
        assert (refused.status, "This API key is not for the model housing-rentals@staging" in refused.text) == (403, True), (
            refused
        )
        assert ask(server, route, keys["rentals"][0], body).status not in (401, 403), route
    assert ask(server, "/models", keys["towns"][0]).status == 200
    assert ask(server, "/models/nowhere/predict", keys["towns"][0], BODY).status == 404


def test_feedback_needs_its_own_right(server: Server, keys: dict[str, tuple[str, str]]) -> None:
    body = b'{"request_id": "0193f5c2a1b3-00-00000000", "value": 500}'
    assert ask(server, "/feedback", keys["surveyor"][0], body).status == 202
    assert_problem(ask(server, "/feedback", keys["new"][0], body), 403, "lacks the right: feedback")
    assert_problem(ask(server, "/feedback", None, body), 401, "API key required")
    assert_problem(ask(server, "/predict", keys["surveyor"][0], BODY), 403, "lacks the right: predict")


def test_a_key_is_never_logged(server: Server, keys: dict[str, tuple[str, str]]) -> None:
    log = server.log.read_text(encoding="utf-8")
    assert not any(key in log or line.split()[-1] in log for key, line in keys.values())


def test_the_rate_limit_applies_per_key(server: Server, keys: dict[str, tuple[str, str]]) -> None:
    answers = [ask(server, "/predict", keys["new"][0], b"{}") for _ in range(300)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert_problem(refused[0], 429, "Rate limit of 50 requests per second exceeded")
    assert ask(server, "/predict", keys["old"][0], BODY).status == 200


def test_metrics_are_only_on_the_metrics_port(server: Server, keys: dict[str, tuple[str, str]]) -> None:
    assert_problem(ask(server, "/metrics", keys["prometheus"][0]), 404, "/metrics, and no other route, is on port")
    port = server.ask("/metrics").json["detail"].split("port ")[1].rstrip(".")
    metrics_server = Server(f"http://127.0.0.1:{port}", server.process, server.log)
    assert "housing_rows_total" in ask(metrics_server, "/metrics", keys["prometheus"][0]).text
    assert_problem(metrics_server.ask("/metrics"), 401, "API key required")
    assert_problem(ask(metrics_server, "/predict", keys["old"][0], BODY), 404, "/metrics, and no other route, is on port")


def test_only_the_configured_origin_passes_cors(server: Server) -> None:
    assert (
        server.ask("/predict", method="OPTIONS", Origin="https://a.example", Access_Control_Request_Method="POST").status == 204
    )
    assert (
        server.ask("/predict", method="OPTIONS", Origin="https://b.example", Access_Control_Request_Method="POST").status == 200
    )  # without a word of it


@pytest.mark.parametrize("origin", ["null", "https://a.example.evil", "http://a.example", "https://a.example:8000", "*", ""])
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_another_origin_gets_no_cors_header(server: Server, keys: dict[str, tuple[str, str]], method: str, origin: str) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    headers = {"Authorization": f"Bearer {keys['old'][0]}", "Content-Type": "application/json", "Origin": origin}
    connection.request(method, "/predict", BODY if method == "POST" else None, headers)
    assert not [name for name in connection.getresponse().headers if name.startswith("Access-Control")]
    connection.close()


def test_without_a_key_only_health_the_page_and_the_api_document_are_open(server: Server) -> None:
    document = ask(server, "/openapi.json", None)
    documented = [(route, method) for route, path in document.json["paths"].items() for method in path if route != "/metrics"]
    assert len(documented) > 10
    for path, method in documented:
        route = path.format(name="housing-rentals", version="1")
        status = server.ask(route, BODY if method == "post" else None, method.upper()).status
        assert status == (200 if route in OPEN_ROUTES else 401), (route, method, status)


def test_a_line_of_the_keys_file_does_not_reveal_its_key() -> None:
    key, line = new_key("alice", "predict,feedback")
    assert key not in line and line == f"alice predict,feedback {hashlib.sha256(key.encode()).hexdigest()}"


def test_the_release_check_sends_its_key(server: Server, keys: dict[str, tuple[str, str]]) -> None:
    arguments = [sys.executable, str(PROJECT / "scripts" / "first_request"), server.url, "1"]
    environ = {**os.environ, "HOUSING_KEY": keys["old"][0]}
    process = subprocess.run(arguments, env=environ, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "") and '"predictions": [' in process.stdout


def test_the_version_check_of_a_rollback_uses_no_proxy(
    server: Server, keys: dict[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request._opener", None)  # else what the process asked before knows no proxy
    for name, value in {**NO_NETWORK, "no_proxy": ""}.items():
        monkeypatch.setenv(name, value)
    settings = ServerSettings(server.url, keys["old"][0], wait_seconds=5)
    assert server_status.wait_for_version(settings, "housing-rentals", "staging", "1").since


def _says(server: Server, text: str) -> bool:
    return any(
        text in line and "previous keys stay in use" in line for line in server.log.read_text(encoding="utf-8").splitlines()
    )


def test_keys_rotate_without_a_restart_and_invalid_ones_change_nothing(served_home: Path) -> None:
    file, old_key, new_key_ = served_home / "rotated", new_key("one", "predict"), new_key("two", "predict")
    file.write_text(old_key[1], encoding="utf-8")
    with serving(served_home, f"serve.keys_file={file}", "serve.workers=1") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        for bad, message in (("two predict\n", "The key of two must have"), ("", "rotated contains no API key")):
            file.write_text(bad, encoding="utf-8")
            running.process.send_signal(signal.SIGHUP)
            wait_for(partial(_says, running, message), "invalid keys are reported")
            assert ask(running, "/predict", old_key[0], BODY).status == 200
            assert ask(running, "/predict", None, BODY).status == 401
        file.write_text(new_key_[1], encoding="utf-8")
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: ask(running, "/predict", new_key_[0], BODY).status == 200, "the new key is good")
        wait_for(lambda: ask(running, "/predict", old_key[0], BODY).status == 401, "the old one is not")


@pytest.mark.long
@pytest.mark.parametrize("bad", ["one pred", "", None], ids=["half-written", "empty", "deleted"])
def test_the_replacement_of_a_crashed_worker_keeps_the_loaded_keys(served_home: Path, bad: str | None) -> None:
    file, old_key, new_key_ = served_home / "crashed", new_key("one", "predict"), new_key("two", "predict")
    file.write_text(old_key[1], encoding="utf-8")
    with serving(served_home, f"serve.keys_file={file}", "serve.workers=1") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        file.unlink()
        if bad is not None:
            file.write_text(bad, encoding="utf-8")
        running.process.send_signal(signal.SIGHUP)
        wait_for(partial(_says, running, "error: "), "invalid keys are reported")
        (victim,) = running.workers()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in running.workers() and running.answers("/readyz"), "another worker answers")
        statuses = [ask(running, "/predict", key, BODY).status for key in (old_key[0], new_key_[0], None)]
        assert (statuses, running.process.poll()) == ([200, 401, 401], None)
        file.write_text(new_key_[1], encoding="utf-8")
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: ask(running, "/predict", new_key_[0], BODY).status == 200, "the new key is good")
        wait_for(lambda: ask(running, "/predict", old_key[0], BODY).status == 401, "the old one is not")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("foo predict\n", "^The key of foo must have the form"),
        ("secret\n", "^A line must have the form"),
        (f"foo predict {'x' * 64}\n", "^The key of foo must have the form"),
        (f"foo predict {'a' * 64} housing-rentals\n", "^The key of foo must have the form"),  # without an alias
        (f"foo predict {'a' * 64} m@a m@b\n", "^The key of foo must have the form"),
        ("# none yet\n", "contains no API key"),
    ],
)
def test_an_unreadable_key_is_an_error_that_does_not_repeat_it(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        load_keys(str(file))
    assert "secret" not in str(error.value) and "xxx" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("secret\n", "error: A line must have the form"), ("", "contains no API key"), (None, "No such file")],
    ids=["invalid", "empty", "missing"],
)
def test_unreadable_keys_stop_the_server_at_start(served_home: Path, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    options = (f"--config-dir={PROJECT}/tests/tables", "data=rentals", f"serve.port={free_port()}", f"serve.keys_file={file}")
    result = command(served_home, "housing.serve", *options)
    assert result.code == 1
    assert message in result.err and "Traceback" not in result.err
    assert "secret" not in result.err


def test_a_keys_file_of_another_editor_is_read_and_a_readable_one_warns(served_home: Path, tmp_path: Path) -> None:
    file, first, second = tmp_path / "my keys", new_key("one", "predict"), new_key("two", "predict")
    lines = ("\ufeff# byte order mark", "", *(first[1], first[1]), "   ", f"  {second[1]}  ", " # indented")
    file.write_bytes("\r\n".join(lines).encode())
    file.chmod(0o644)
    with serving(served_home, f"serve.keys_file='{file}'", "serve.workers=1", "serve.rate_limit=5") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        statuses = [ask(running, "/predict", key, BODY).status for key in (first[0], second[0], first[1], None)]
        assert statuses == [200, 200, 401, 401]
        log = running.log.read_text(encoding="utf-8")
    assert f"WARNING: {file} can be read by its group and all users (mode 0644). Run: chmod 600 '{file}'" in log


@pytest.mark.parametrize("arguments", [(), ("a",), ("a b", "predict"), ("a", "admin"), ("a", "predict", "")])
def test_invalid_arguments_for_a_new_key_are_reported(arguments: tuple[str, ...]) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "server.access", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1 and "predict,metrics" in process.stderr


def test_a_public_server_without_keys_warns(served_home: Path) -> None:
    with serving(served_home, "serve.host=0.0.0.0", "serve.workers=1") as running:
        assert "WARNING: this server can be reached from other machines" in running.log.read_text(encoding="utf-8")


@contextmanager
def limited(home: Path, rate: float) -> Iterator[tuple[Server, str]]:
    """Run a server of two workers with a rate limit, and yield it with its only key."""
    key, line = new_key("limited", "predict")
    file = home / "limited"
    file.write_text(line, encoding="utf-8")
    with serving(home, f"serve.keys_file={file}", "serve.workers=2", f"serve.rate_limit={rate}") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running, key


def test_all_workers_share_the_budget_of_a_key(served_home: Path) -> None:
    with limited(served_home, rate=0.001) as (running, key):
        answers = [ask(running, "/predict", key, BODY) for _ in range(20)]  # on new connections, so to both workers
    assert [answer.status for answer in answers].count(200) == 1
    assert_problem(answers[-1], 429, r"Rate limit of 0\.001 requests per second exceeded\. Retry after \d+ s\.")


def test_one_kept_connection_gets_the_whole_budget(served_home: Path) -> None:
    headers = {"Content-Type": "application/json"}
    with limited(served_home, rate=20) as (running, key):
        connection = http.client.HTTPConnection(running.url.removeprefix("http://"))
        statuses = []
        for _ in range(20):
            connection.request("POST", "/predict", BODY, {**headers, "Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()
    assert statuses == [200] * 20
