"""The private names of other libraries: each that is used is in docs/reference/private-apis.md, and is still what it was."""

import ast
import importlib
import inspect
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import flask_swagger_ui
import gunicorn
import optuna
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import TConn, ThreadWorker
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf  # type: ignore[import-untyped]
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from submitit.core.utils import JobPaths

from housing.core.environment import PROJECT
from server.transport.worker_class import OWN, choose

DOCUMENT = PROJECT / "docs" / "reference" / "private-apis.md"
OURS = ("grafana", "housing", "hydra_plugins.housing", "server", "tests")
# Modules that their library does not document; to import anything from them is private use too.
UNDOCUMENTED = (
    "flask_swagger_ui",
    "gunicorn.arbiter",
    "gunicorn.http",
    "gunicorn.sock",
    "gunicorn.util",
    "gunicorn.workers",
    "hydra_plugins.hydra_submitit_launcher",
    "mlflow.store",
    "mlflow.utils",
    "prometheus_client.exposition",
    "prometheus_client.mmap_dict",
    "prometheus_client.utils",
    "prometheus_client.values",
)
# The arguments of what is called or replaced; those with a default end with "=".
SIGNATURES = {
    "gunicorn.workers.gthread.ThreadWorker.wait_for_and_dispatch_events": "self, timeout",
    "gunicorn.workers.gthread.ThreadWorker.on_client_socket_readable": "self, conn, client",
    "gunicorn.workers.gthread.ThreadWorker.handle_request": "self, req, conn",
    "gunicorn.workers.gthread.ThreadWorker.finish_request": "self, conn, fs",
    "gunicorn.workers.gthread.ThreadWorker.murder_keepalived": "self",
    "gunicorn.workers.gthread.ThreadWorker.handle_exit": "self, sig, frame",
    "gunicorn.workers.gthread.PollableMethodQueue.defer": "self, callback, *args",
    "gunicorn.workers.gthread.TConn": "cfg, sock, client, server",
    "gunicorn.workers.gthread.TConn.set_timeout": "self",
    "gunicorn.workers.gthread.TConn.close": "self, graceful=",
    "gunicorn.http.unreader.Unreader.take_buffered": "self",
    "gunicorn.http.unreader.Unreader.unread": "self, data",
    "gunicorn.http.message.Request.force_close": "self",
    "gunicorn.http.body.LengthReader": "unreader, length",
    "gunicorn.http.wsgi.base_environ": "cfg",
    "gunicorn.util.http_date": "timestamp=",
    "gunicorn.arbiter.Arbiter.signal": "self, sig, frame",
    "hydra._internal.config_loader_impl.ConfigLoaderImpl": "config_search_path",
    "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_sweep_config": "self, master_config, sweep_overrides",
    "hydra._internal.config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config": "overrides, cfg",
    "hydra._internal.config_loader_impl.get_overrides_dirname": "overrides, exclude_keys, item_sep, kv_sep",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": "max_batch_size, params=",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper.get_job_batch": "self",
    "prometheus_client.values.MultiProcessValue": "process_identifier=",
    "prometheus_client.mmap_dict.MmapedDict": "filename, read_mode=",
    "prometheus_client.mmap_dict.MmapedDict.write_value": "self, key, value, timestamp",
    "prometheus_client.mmap_dict.MmapedDict.read_all_values_from_file": "filename",
    "prometheus_client.mmap_dict.mmap_key": "metric_name, name, labelnames, labelvalues, help_text",
    "prometheus_client.utils.floatToGoString": "d",
    "prometheus_client.exposition.choose_encoder": "accept_header",
    "mlflow.store.artifact.artifact_repository_registry.get_artifact_repository": "artifact_uri, tracking_uri=, registry_uri=",
    "optuna.trial.Trial": "study, trial_id",
}
# What has no signature that matters: each is tried out below.
TRIED = {
    "flask_swagger_ui.dist",
    "gunicorn.arbiter.Arbiter.LISTENERS",
    "gunicorn.http.errors.ParseException",
    "gunicorn.workers.gthread.ThreadWorker",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeperConf",
    "hydra.core.utils.JobReturn._return_value",
    "hydra_plugins.hydra_submitit_launcher.config.BaseQueueConf",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "optuna.study.Study._storage",
    "prometheus_client.values.ValueClass",
    "submitit.core.utils.JobPaths.result_pickle",
}


def documented() -> dict[str, set[str]]:
    """Return the files in which the document says that each name is used."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: set(re.findall("`(.*?)`", files)) for name, files in rows}


def sources() -> dict[str, ast.Module]:
    """Return the syntax tree of each file of the project but the tests."""
    folders = [sorted((PROJECT / name).rglob("*.py")) for name in ("grafana", "housing", "hydra_plugins", "server")]
    scripts = [
        path
        for path in sorted((PROJECT / "scripts").iterdir())
        if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env python")
    ]
    paths = [path for folder in (*folders, scripts) for path in folder]
    return {str(path.relative_to(PROJECT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def is_private(name: str) -> bool:
    """Return whether a name begins with an underscore, and is not Python's `__name__` or Hydra's `_name_`."""
    return name.startswith("_") and not name.endswith("_")


def made(tree: ast.Module) -> set[str]:
    """Return all names that a file gives to something."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield what a file imports of others by private names, or from modules that nobody documents."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            is_theirs = not name.startswith(OURS)
            if is_theirs and (any(map(is_private, name.split("."))) or name.startswith(UNDOCUMENTED)):
                yield name


def attributes(tree: ast.Module, of_the_project: set[str]) -> Iterator[str]:
    """Yield the private attributes that a file uses, or sets by a keyword, and that the project does not make itself."""
    here = made(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            is_own = ast.unparse(node.value) in ("self", "cls", "super()")
            if node.attr not in (of_the_project if is_own else here):
                yield node.attr
        elif isinstance(node, ast.keyword) and is_private(node.arg or ""):
            yield str(node.arg)


def test_each_private_name_that_the_project_uses_is_documented() -> None:
    trees, known = sources(), documented()
    of_the_project = set().union(*map(made, trees.values()))
    found = {(name, path) for path, tree in trees.items() for name in imported(tree)}
    found |= {(f".{name}", path) for path, tree in trees.items() for name in attributes(tree, of_the_project)}
    missing = {
        (name, path)
        for name, path in found
        if not any(path in files and f".{one}.".find(f"{name.removeprefix('.')}.") > 0 for one, files in known.items())
    }
    assert missing == set()
    assert len(found) > 10  # else nothing was looked at


def test_each_private_name_that_is_documented_is_used_where_the_document_says() -> None:
    unused = [
        (name, path)
        for name, files in documented().items()
        for path in files
        if not re.search(rf"\b{name.rpartition('.')[2]}\b", (PROJECT / path).read_text(encoding="utf-8"))
    ]
    assert unused == []


def test_the_tests_that_the_document_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", DOCUMENT.read_text(encoding="utf-8"))
    assert named
    assert [path for path in named if not (PROJECT / path).exists()] == []


def test_each_private_name_is_tested_here() -> None:
    assert documented().keys() == SIGNATURES.keys() | TRIED


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_private_name_takes_the_arguments_that_it_took(name: str) -> None:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(found_at(name)).parameters.values()
    words = [stars.get(one.kind, "") + one.name + ("" if one.default is one.empty else "=") for one in parameters]
    assert ", ".join(words) == SIGNATURES[name]


def found_at(name: str) -> Any:
    """Return what a dotted name stands for."""
    module, _, rest = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), rest)
    except ModuleNotFoundError:
        return getattr(found_at(module), rest)


def test_gunicorn_is_of_a_version_that_the_worker_was_tested_with() -> None:
    assert choose(gunicorn.version_info) == OWN


def test_another_gunicorn_serves_with_its_own_worker_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose((27, 0, 1)) == "gthread"
    assert "gunicorn 27.0.1 is not tested" in capsys.readouterr().err


def test_gunicorns_worker_has_what_the_own_worker_reads() -> None:
    config = Config()
    worker = ThreadWorker(0, 0, [], None, 30, config, None)
    worker.tmp.close()
    read = ("alive", "cfg", "keepalived_conns", "max_keepalived", "method_queue", "nr", "nr_conns", "poller", "tpool")
    assert [name for name in read if not hasattr(worker, name)] == []
    assert worker.max_requests > 0
    assert callable(worker.notify)
    assert isinstance(Arbiter.LISTENERS, list)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(one) for one in socket.socketpair())
        conn = TConn(config, ours, ("", 0), ("127.0.0.1", 80))
        assert (conn.sock, conn.server, conn.parser) == (ours, ("127.0.0.1", 80), None)
        theirs.sendall(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET")
        conn.init()
        request = next(conn.parser)
        assert isinstance(request.body.reader, LengthReader)
        assert request.body.buf.tell() == 0
        assert request.body.reader.read(4) == b"body"
        unreader = conn.parser.unreader
        assert unreader.take_buffered() == b"GET"
        unreader.unread(b"GET")
        assert unreader.take_buffered() == b"GET"
        request.force_close()
        assert request.should_close()
    assert issubclass(ParseException, Exception)


def test_prometheus_files_hold_each_number_where_it_is_looked_for(tmp_path: Path) -> None:
    path, key = tmp_path / "counter_1.db", mmap_key("name", "name_total", ["label"], ["value"], "Meaning.")
    file = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    file.write_value(key, 2.5, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    ((found, number, _, place),) = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    assert (found, number, place % 8) == (key, 2.5, 0)
    assert struct.unpack_from("d", path.read_bytes(), place) == (2.5,)
    assert isinstance(values.ValueClass, type)


def test_hydra_keeps_the_error_of_a_job_under_its_private_name() -> None:
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = ValueError("why")
    assert str(failed._return_value) == "why"  # pylint: disable=protected-access
    assert BasicSweeperConf().max_batch_size is None


def test_the_published_launcher_keeps_its_options_and_names_the_common_ones() -> None:
    launcher = SlurmLauncher(partition="p", timeout_min=3)
    assert launcher.params == {"partition": "p", "timeout_min": 3}
    assert callable(launcher)
    assert {"timeout_min", "cpus_per_task", "mem_gb", "nodes", "name"} <= set(OmegaConf.structured(BaseQueueConf))
    assert "partition" not in OmegaConf.structured(BaseQueueConf)


def test_submitit_names_the_file_of_a_result(tmp_path: Path) -> None:
    assert JobPaths(tmp_path, "12_3", 0).result_pickle == tmp_path / "12_3_0_result.pkl"


def test_optuna_reports_to_a_trial_that_is_made_from_its_number() -> None:
    study = optuna.create_study()
    number = study.ask().number
    storage = study._storage  # pylint: disable=protected-access
    study_id = storage.get_study_id_from_name(study.study_name)
    trial = optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))
    trial.report(0.5, 1)
    assert study.trials[number].intermediate_values == {1: 0.5}


def test_swagger_ui_lies_where_the_server_looks() -> None:
    folder = Path(flask_swagger_ui.__file__).parent / "dist"
    assert {"swagger-ui.css", "swagger-ui-bundle.js"} <= {path.name for path in folder.iterdir()}
