"""The settings of runs and of the server are validated before anything starts."""

from pathlib import Path

import pytest

from housing.core.errors import ConfigError
from housing.serving.supervisor import server_environment
from server.core.settings import Settings
from tests.support.tables import config, train


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=abc", "seed must be a whole number from 0 to 4294967295 (got 'abc')."),
        ("seed=-1", "seed must be a whole number from 0 to 4294967295 (got -1)."),
        ("max_rows=abc", "max_rows must be a whole number, at least 1, or null (got 'abc')."),
        ("max_rows=0", "max_rows must be a whole number, at least 1, or null (got 0)."),
        ("refit=maybe", "refit must be true or false (got 'maybe')."),
        ("force_rerun=x", "force_rerun must be true or false (got 'x')."),
        ("n_threads=-5", "n_threads must be a whole number, at least 0 (got -5)."),
        ("parity_tolerance=inf", "parity_tolerance must be a number above 0 (got inf)."),
        ("n_golden_rows=-1", "n_golden_rows must be a whole number, at least 1 (got -1)."),
        ("log_model=some", "log_model must be one of all, best (got 'some')."),
    ],
)
def test_an_invalid_setting_of_a_run_is_an_error_with_its_value(home: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        train(home, override)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("model", "override", "message"),
    [
        (
            "decision_tree",
            "model.estimator.max_depth=abc",
            "model.estimator: The 'max_depth' par",
        ),
        (
            "xgboost",
            "model.estimator.max_depth=abc",
            "model.estimator of xgboost cannot be fitted: Invalid Parameter format for max",
        ),
        (
            "xgboost",
            "model.estimator.max_depth=-3",
            "model.estimator of xgboost cannot be fitted: .*value -3 for Parameter max_depth",
        ),
    ],
)
def test_a_parameter_that_the_library_rejects_is_an_error_of_one_line(
    home: Path, model: str, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        train(home, f"model={model}", override)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("port=99999", "serve.port (HOUSING_PORT) must be a whole number from 1 to 65535 (got 99999)."),
        ("port=web", "serve.port (HOUSING_PORT) must be a whole number from 1 to 65535 (got 'web')."),
        ("workers=0", "serve.workers (HOUSING_WORKERS) must be a whole number from 1 to 256 (got 0)."),
        ("threads=0", "serve.threads (HOUSING_THREADS) must be a whole number, at least 1 (got 0)."),
        ("max_rows=-1", "serve.max_rows (HOUSING_MAX_ROWS) must be a whole number, at least 1 (got -1)."),
        ("poll_seconds=0", "serve.poll_seconds (HOUSING_POLL_SECONDS) must be a number above 0 (got 0.0)."),
        ("drain_seconds=nan", "serve.drain_seconds (HOUSING_DRAIN_SECONDS) must be a number, at least 0 (got nan)."),
        (
            "forbid_breaking_columns=no way",
            "serve.forbid_breaking_columns (HOUSING_FORBID_BREAKING_COLUMNS) must be true or false (got 'no way').",
        ),
        ("cors_origins=foo", "serve.cors_origins (HOUSING_CORS_ORIGINS) must be origins such as https://a.example,"),
        ("cors_origins='https://a.example/path'", "HOUSING_CORS_ORIGINS"),
    ],
)
def test_an_invalid_setting_of_the_server_is_an_error_with_its_value(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Settings.from_environment(server_environment(config("serve", f"serve.{override}").serve))
    assert message in str(raised.value)


def test_valid_settings_of_the_server_are_used() -> None:
    overrides = ("serve.cors_origins='https://a.example,http://[::1]:8000'", "serve.metrics_port=9100", "serve.drain_seconds=0")
    settings = Settings.from_environment(server_environment(config("serve", *overrides).serve))
    assert (settings.cors_origins, settings.metrics_port, settings.drain_seconds) == (
        "https://a.example,http://[::1]:8000",
        9100,
        0.0,
    )
