"""Errors for runs and versions that a store does not have. They say how to list those that it has."""

import shlex

from mlflow.exceptions import MlflowException

from housing.command_line.next_command import next_command
from housing.core.errors import ConfigError, StoreError
from housing.tracking.client import Client

SOURCES = ("models:/", "runs:/")  # starts of an address of a model


def run_not_found(client: Client, run_id: str) -> StoreError:
    """Return the error for a run that a store does not have."""
    return StoreError(
        f"The MLflow store {client.name} has no run {run_id}."
        f" Run ids are in the leaderboard.html of each sweep, and in MLflow: {_list_command(client)}"
    )


def model_not_found(client: Client, source: str) -> StoreError:
    """Return the error for an address of a model, `models:/...` or `runs:/...`, that a store does not have."""
    kind, _, path = source.partition(":/")
    if kind == "runs":
        return _artifact_not_found(client, *path.split("/", maxsplit=1))
    name, _, alias = path.partition("@")
    if alias:
        promote = next_command("promote", f"alias={alias}")
        return StoreError(f"{name} has no version at {alias} in the MLflow store {client.name}. Promote one: {promote}")
    return StoreError(
        f"The MLflow store {client.name} has no {source}.\nVersions that served: {next_command('history')}"
        f"\nAll versions: {_list_command(client)}"
    )


def _artifact_not_found(client: Client, run_id: str, name: str = "") -> StoreError:
    """Return the error for an artifact that a store does not have, or for its run if that is missing too."""
    try:
        client.api.get_run(run_id)
    except MlflowException:
        return run_not_found(client, run_id)
    return StoreError(f"Run {run_id} has no artifact {name} in the MLflow store {client.name}.")


def require_source(source: str) -> None:
    """Raise ConfigError if a text is no address of a model."""
    if not source.startswith(SOURCES):
        raise ConfigError(
            f"source must be models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID/bundle (got {source!r})."
            f" Versions that served are listed by: {next_command('history')}"
        )


def _list_command(client: Client) -> str:
    """Return the command that shows the runs of a store, or the address of its pages."""
    is_file = client.uri.startswith("sqlite:")
    return shlex.join(["mlflow", "ui", "--backend-store-uri", client.uri]) if is_file else client.ui
