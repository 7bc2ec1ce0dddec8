"""Private APIs of other libraries: each is listed in docs/reference/private-apis.md and still works as expected."""

import ast
import importlib
import inspect
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask_swagger_ui
import gunicorn
import numpy as np
import optuna
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import LimitRequestHeaders, ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.workers.base import Worker as BaseWorker
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf  # type: ignore[import-untyped]
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import SVR
from submitit.core.utils import JobPaths

from housing.core.environment import PROJECT
from server.transport.worker_class import OWN, choose

DOCUMENT = PROJECT / "docs" / "reference" / "private-apis.md"
OURS = ("grafana", "housing", "hydra_plugins.housing", "server", "tests")
# undocumented modules: every import from them is private use
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
# arguments of private functions that the project calls or overrides; "=" marks a default
SIGNATURES = {
    "gunicorn.workers.base.Worker": "age, ppid, sockets, app, timeout, cfg, log",
    "gunicorn.workers.base.Worker.handle_error": "self, req, client, addr, exc",
    "gunicorn.workers.base.Worker.handle_exit": "self, sig, frame",
    "gunicorn.http.parser.RequestParser": "cfg, source, source_addr",
    "gunicorn.http.message.Message.parse_headers": "self, data, from_trailer=",
    "gunicorn.http.wsgi.base_environ": "cfg",
    "gunicorn.http.wsgi.create": "req, sock, client, server, cfg, response_class=, response_args=",
    "gunicorn.util.http_date": "timestamp=",
    "gunicorn.util.write_error": "sock, status_int, reason, mesg",
    "gunicorn.arbiter.Arbiter.signal": "self, sig, frame",
    "hydra._internal.config_loader_impl.ConfigLoaderImpl": "config_search_path",
    "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_sweep_config": "self, master_config, sweep_overrides",
    "hydra._internal.config_loader_impl.ConfigLoaderImpl._apply_overrides_to_config": "overrides, cfg",
    "hydra._internal.config_loader_impl.get_overrides_dirname": "overrides, exclude_keys, item_sep, kv_sep",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": "max_batch_size, params=",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper.get_job_batch": "self",
    "omegaconf.grammar_parser.parse": "value, parser_rule=, lexer_mode=",
    "prometheus_client.values.MultiProcessValue": "process_identifier=",
    "prometheus_client.mmap_dict.MmapedDict": "filename, read_mode=",
    "prometheus_client.mmap_dict.MmapedDict.write_value": "self, key, value, timestamp",
    "prometheus_client.mmap_dict.MmapedDict.read_all_values_from_file": "filename",
    "prometheus_client.mmap_dict.mmap_key": "metric_name, name, labelnames, labelvalues, help_text",
    "prometheus_client.utils.floatToGoString": "d",
    "prometheus_client.exposition.choose_encoder": "accept_header",
    "mlflow.store.artifact.artifact_repository_registry.get_artifact_repository": "artifact_uri, tracking_uri=, registry_uri=",
    "optuna.trial.Trial": "study, trial_id",
    "sklearn.base.BaseEstimator._validate_params": "self",
}
# private names without a relevant signature: each has a test below
TESTED_BELOW = {
    "flask_swagger_ui.dist",
    "gunicorn.arbiter.Arbiter.LISTENERS",
    "gunicorn.http.body.ChunkedReader",
    "gunicorn.http.errors.LimitRequestHeaders",
    "gunicorn.http.errors.ParseException",
    "gunicorn.http.message.Request._expected_100_continue",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeperConf",
    "hydra.core.utils.JobReturn._return_value",
    "hydra_plugins.hydra_submitit_launcher.config.BaseQueueConf",
    "hydra_plugins.hydra_submitit_launcher.config.SlurmQueueConf",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "optuna.study.Study._storage",
    "prometheus_client.values.ValueClass",
    "sklearn.base.BaseEstimator._parameter_constraints",
    "sklearn.ensemble.HistGradientBoostingRegressor._baseline_prediction",
    "sklearn.ensemble.HistGradientBoostingRegressor._predictors",
    "sklearn.neighbors.KNeighborsRegressor._fit_X",
    "sklearn.neighbors.KNeighborsRegressor._y",
    "sklearn.svm.SVR._gamma",
    "submitit.core.utils.JobPaths.result_pickle",
}


def documented() -> dict[str, set[str]]:
    """Return the files that use each name according to the document."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: set(re.findall("`(.*?)`", files)) for name, files in rows}


def sources() -> dict[str, ast.Module]:
    """Return the syntax trees of all files of the project except tests."""
    folders = [sorted((PROJECT / name).rglob("*.py")) for name in ("grafana", "housing", "hydra_plugins", "server")]
    scripts = [
        path
        for path in sorted((PROJECT / "scripts").iterdir())
        if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env python")
    ]
    paths = [path for folder in (*folders, scripts) for path in folder]
    return {str(path.relative_to(PROJECT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def is_private(name: str) -> bool:
    """Return whether a name starts with an underscore and is neither Python's `__name__` nor Hydra's `_name_`."""
    return name.startswith("_") and not name.endswith("_")


def defined_names(tree: ast.Module) -> set[str]:
    """Return all names that a file defines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the private or undocumented names that a file imports from other libraries."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            is_foreign = not name.startswith(OURS)
            if is_foreign and (any(map(is_private, name.split("."))) or name.startswith(UNDOCUMENTED)):
                yield name


def private_attributes(tree: ast.Module, project_names: set[str]) -> Iterator[str]:
    """Yield the private attributes and keywords that a file uses and the project does not define."""
    file_names = defined_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            is_own = ast.unparse(node.value) in ("self", "cls", "super()")
            if node.attr not in (project_names if is_own else file_names):
                yield node.attr
        elif isinstance(node, ast.keyword) and is_private(node.arg or ""):
            yield str(node.arg)


def test_each_used_private_name_is_documented() -> None:
    trees, files_by_name = sources(), documented()
    project_names = set().union(*map(defined_names, trees.values()))
    used = {(name, path) for path, tree in trees.items() for name in imported(tree)}
    used |= {(f".{name}", path) for path, tree in trees.items() for name in private_attributes(tree, project_names)}
    missing = {
        (name, path)
        for name, path in used
        if not any(
            path in files and f".{listed}.".find(f"{name.removeprefix('.')}.") > 0 for listed, files in files_by_name.items()
        )
    }
    assert missing == set()
    assert len(used) > 10  # the search itself works


def test_each_documented_name_is_used_in_the_listed_files() -> None:
    unused = [
        (name, path)
        for name, files in documented().items()
        for path in files
        if not re.search(rf"\b{name.rpartition('.')[2]}\b", (PROJECT / path).read_text(encoding="utf-8"))
    ]
    assert unused == []


def test_the_tests_that_the_document_names_exist() -> None:
    paths = re.findall(r"`(tests/[\w/.]+)`", DOCUMENT.read_text(encoding="utf-8"))
    assert paths
    assert [path for path in paths if not (PROJECT / path).exists()] == []


def test_each_documented_name_has_a_test() -> None:
    assert documented().keys() == SIGNATURES.keys() | TESTED_BELOW


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_private_function_keeps_its_signature(name: str) -> None:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(resolve(name)).parameters.values()
    arguments = [
        stars.get(parameter.kind, "") + parameter.name + ("" if parameter.default is parameter.empty else "=")
        for parameter in parameters
    ]
    assert ", ".join(arguments) == SIGNATURES[name]


def resolve(name: str) -> Any:
    """Return the object of a dotted name."""
    module, _, rest = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), rest)
    except ModuleNotFoundError:
        return getattr(resolve(module), rest)


def test_the_installed_gunicorn_is_a_tested_version() -> None:
    assert choose(gunicorn.version_info) == OWN


def test_an_untested_gunicorn_uses_gthread_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose((27, 0, 1)) == "gthread"
    assert "gunicorn 27.0.1 is not tested" in capsys.readouterr().err


def test_gunicorns_worker_has_the_attributes_that_the_own_worker_uses() -> None:
    worker = BaseWorker(0, 0, [], None, 30, Config(), None)
    worker.tmp.close()
    names = ("PIPE", "alive", "cfg", "log", "nr", "ppid", "sockets")
    assert [name for name in names if not hasattr(worker, name)] == []
    assert worker.max_requests > 0
    assert callable(worker.notify)
    assert isinstance(Arbiter.LISTENERS, list)


@pytest.mark.parametrize(
    ("framing", "reader"), [("Content-Length: 4", LengthReader), ("Transfer-Encoding: chunked", ChunkedReader)]
)
def test_gunicorns_parser_says_how_a_body_is_framed(framing: str, reader: type) -> None:
    head = f"POST /a?b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n{framing}\r\n\r\n".encode()
    request = next(RequestParser(Config(), [head], ("127.0.0.1", 1)))
    assert (request.method, request.path, type(request.body.reader)) == ("POST", "/a", reader)
    assert getattr(request.body.reader, "length", 4) == 4
    assert request._expected_100_continue  # pylint: disable=protected-access
    with pytest.raises(ParseException):
        request.parse_headers(b"Host: y", from_trailer=True)
    assert issubclass(LimitRequestHeaders, ParseException)


def test_metric_files_of_prometheus_store_each_value_at_its_offset(tmp_path: Path) -> None:
    path, key = tmp_path / "counter_1.db", mmap_key("name", "name_total", ["label"], ["value"], "Meaning.")
    file = MmapedDict(str(path))  # type: ignore[no-untyped-call]
    file.write_value(key, 2.5, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    ((stored_key, value, _, offset),) = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    assert (stored_key, value, offset % 8) == (key, 2.5, 0)
    assert struct.unpack_from("d", path.read_bytes(), offset) == (2.5,)
    assert isinstance(values.ValueClass, type)


def test_hydra_stores_the_error_of_a_job_in_its_private_attribute() -> None:
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = ValueError("why")
    assert str(failed._return_value) == "why"  # pylint: disable=protected-access
    assert BasicSweeperConf().max_batch_size is None


def test_the_submitit_launcher_stores_its_options_and_lists_the_common_ones() -> None:
    launcher = SlurmLauncher(partition="p", timeout_min=3)
    assert launcher.params == {"partition": "p", "timeout_min": 3}
    assert callable(launcher)
    assert {"timeout_min", "cpus_per_task", "mem_gb", "nodes", "name"} <= set(OmegaConf.structured(BaseQueueConf))
    assert "partition" not in OmegaConf.structured(BaseQueueConf) and "partition" in OmegaConf.structured(SlurmQueueConf)


def test_submitit_returns_the_path_of_a_result_file(tmp_path: Path) -> None:
    assert JobPaths(tmp_path, "12_3", 0).result_pickle == tmp_path / "12_3_0_result.pkl"


def test_a_trial_of_optuna_created_from_its_number_reports_values() -> None:
    study = optuna.create_study()
    number = study.ask().number
    storage = study._storage  # pylint: disable=protected-access
    study_id = storage.get_study_id_from_name(study.study_name)
    trial = optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))
    trial.report(0.5, 1)
    assert study.trials[number].intermediate_values == {1: 0.5}


def test_the_files_of_swagger_ui_are_in_its_dist_folder() -> None:
    folder = Path(flask_swagger_ui.__file__).parent / "dist"
    assert {"swagger-ui.css", "swagger-ui-bundle.js"} <= {path.name for path in folder.iterdir()}


def test_fitted_estimators_of_scikit_learn_have_the_parts_that_are_exported() -> None:
    # pylint: disable=protected-access
    columns, target = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60.0)
    trees = HistGradientBoostingRegressor(max_iter=3).fit(columns, target)
    ((tree,), *_), base = trees._predictors, trees._baseline_prediction
    names = {"feature_idx", "num_threshold", "left", "right", "missing_go_to_left", "is_leaf", "value", "is_categorical"}
    assert len(trees._predictors) == 3 and names <= set(tree.nodes.dtype.names) and base.item() == target.mean()
    neighbours = KNeighborsRegressor().fit(columns, target)
    np.testing.assert_array_equal(neighbours._fit_X, columns)
    np.testing.assert_array_equal(neighbours._y, target)
    assert SVR(gamma="scale").fit(columns, target)._gamma == pytest.approx(1 / (2 * columns.var()))
    assert "alpha" not in SVR._parameter_constraints and "C" in SVR._parameter_constraints
