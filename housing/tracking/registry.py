"""The model registry: versions of a registered model, and the aliases that point at them."""

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from housing.command_line.next_command import next_command
from housing.core.canary import Canary, canary_alias, canary_tag
from housing.core.errors import StoreError
from housing.tracking.client import Client
from housing.tracking.tags import MODEL_ID, NOT_FOUND


class Registry:
    """Registered models of a store."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def register(self, name: str, run_id: str, model_description: str = "", description: str = "") -> str:
        """Create a version of a run's bundle and return its number. The first version of a model creates the model."""
        try:
            self._client.api.create_registered_model(name, description=model_description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model_id = self._model_id(run_id)
        with self._client.translate_errors():
            created = self._client.api.create_model_version(
                name, f"models:/{model_id}", run_id, model_id=model_id, description=description
            )
        return str(created.version)

    def version_at(self, name: str, alias: str) -> str | None:
        """Return the version at an alias, or None if the alias is unset."""
        version = self._find(name, alias)
        return None if version is None else str(version.version)

    def canary_at(self, name: str, alias: str) -> Canary | None:
        """Return the canary beside an alias, or None if there is none. It is over once the alias has moved."""
        version = self._find(name, canary_alias(alias))
        if version is None:
            return None
        return Canary.parse(str(version.version), self.version_at(name, alias), version.tags.get(canary_tag(alias)))

    def _find(self, name: str, alias: str) -> ModelVersion | None:
        try:
            return self._client.api.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code not in NOT_FOUND:
                raise StoreError(f"The MLflow store {self._client.name} failed: {error}") from error
            return None

    def start_canary(self, name: str, alias: str, canary: Canary) -> None:
        """Make a version the canary beside an alias. Its own alias is set last: without it there is no canary."""
        self.tag_version(name, canary.version, canary_tag(alias), canary.tag)
        self.set_alias(name, canary_alias(alias), canary.version)

    def end_canary(self, name: str, alias: str) -> None:
        """End the canary beside an alias. Do nothing if there is none."""
        if self.version_at(name, canary_alias(alias)) is not None:
            with self._client.translate_errors():
                self._client.api.delete_registered_model_alias(name, canary_alias(alias))

    def version_of_run(self, name: str, run_id: str) -> str | None:
        """Return the version that was made of a run's bundle, or None if there is none."""
        source = f"models:/{self._model_id(run_id)}"
        with self._client.translate_errors():
            versions = self._client.api.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        return next((str(version.version) for version in versions if version.source == source), None)

    def run_of_version(self, name: str, version: str) -> str:
        """Return the id of the run that a version was made of. Raises StoreError if there is no such version."""
        try:
            return str(self._client.api.get_model_version(name, version).run_id)
        except MlflowException as error:
            raise StoreError(f"The MLflow store {self._client.name} has no version {version} of {name}.") from error

    def runs_of_versions(self) -> set[str]:
        """Return the ids of the runs of all versions of all registered models."""
        run_ids, token = set[str](), None
        with self._client.translate_errors():
            while True:
                page = self._client.api.search_model_versions(max_results=1000, page_token=token)
                run_ids |= {str(version.run_id) for version in page}
                token = page.token
                if not token:
                    return run_ids

    def tag_version(self, name: str, version: str, tag: str, value: str) -> None:
        """Set a tag of a version."""
        with self._client.translate_errors():
            self._client.api.set_model_version_tag(name, version, tag, value)

    def tags_of_version(self, name: str, version: str) -> dict[str, str]:
        """Return the tags of a version."""
        with self._client.translate_errors():
            return dict(self._client.api.get_model_version(name, version).tags)

    def append_description(self, name: str, version: str, line: str) -> None:
        """Add a line to the description of a version."""
        with self._client.translate_errors():
            present = self._client.api.get_model_version(name, version).description or ""
            self._client.api.update_model_version(name, version, f"{present}\n\n{line}".strip())

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version."""
        with self._client.translate_errors():
            self._client.api.set_registered_model_alias(name, alias, version)

    def move_alias(self, name: str, alias: str, expected: str | None, version: str) -> None:
        """Move an alias, unless it is no longer at the expected version.

        MLflow has no atomic compare-and-set, so the alias is checked before and after the move.

        Raises
        ------
        StoreError
            If another process moved the alias in the meantime.
        """
        current = self.version_at(name, alias)
        if current != expected:
            raise StoreError(
                f"Alias {alias} moved from version {expected} to {current} during the decision. Run the command again."
            )
        self.set_alias(name, alias, version)
        current = self.version_at(name, alias)
        if current != version:
            raise StoreError(
                f"Alias {alias} was set to version {version}, and to {current} by somebody else at the same time."
                f" See who decided what: {next_command('history')}"
            )

    def _model_id(self, run_id: str) -> str:
        with self._client.translate_errors():
            return str(self._client.api.get_run(run_id).data.tags[MODEL_ID])
