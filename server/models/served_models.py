"""The models that a worker serves, by name. Models that were not used for long leave its memory if it has too little."""

import difflib
import logging
import os
import threading
import time
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from housing.core.errors import ConfigError
from housing.core.memory import trim_memory
from housing.core.model_list import Limits, ModelList, split_name
from housing.server_files.signatures import NO_KEYS, TrustedKeys
from server.core.errors import RequestError
from server.models.current_model import CurrentModel, MetricsFactory, Model

FIELDS = ("name", "model", "alias", "version", "canary", "in_memory")
MAX_NAME = 80  # characters of an unknown name that are compared with the known ones
OWN_MEMORY = Path("/proc/self/statm")  # only Linux has it

log = logging.getLogger(__name__)


class NotInMemory(Exception):
    """The model has to be loaded first, which takes too long for the event loop."""


class ServedModels:
    """Holds the current model of each name. A thread watches for new releases and for changes of the list."""

    def __init__(
        self,
        listed: ModelList,
        poll_seconds: float,
        metrics_factory: MetricsFactory,
        max_memory_mb: int = 0,
        trusted_keys: TrustedKeys = NO_KEYS,
        adaptation_dir: Path | None = None,
    ) -> None:
        if max_memory_mb and not OWN_MEMORY.exists():
            raise ConfigError(f"serve.max_memory_mb must be 0 on this system, which has no {OWN_MEMORY} (got {max_memory_mb}).")
        self._list, self._poll_seconds, self._read = listed, poll_seconds, partial(Model.read, metrics_factory, trusted_keys)
        self._max_memory_mb, self._adaptation_dir = max_memory_mb, adaptation_dir
        self._models: dict[str, CurrentModel] = {}
        self._by_name: dict[str, CurrentModel] = {}
        self._last_error = ""
        self._apply_list()
        self._first.reload_if_new()
        threading.Thread(target=self._poll_forever, name="model reload", daemon=True).start()

    def get(self, name: str = "", may_load: bool = True, choice: str = "") -> Model:
        """Return the model of a name, or the first model, that answers the request of a `choice`; without one, the current model.

        Raises
        ------
        RequestError
            If there is no such name (404).
        BundleError
            If the model is not available, with the reason.
        NotInMemory
            If the model has to be loaded, and this must not happen now.
        """
        current = self.find(name) if name else self._first
        if current.model is None:
            if not may_load:
                raise NotInMemory
            current.get()
            self._free_memory()
        return current.get(choice)

    def find(self, name: str) -> CurrentModel:
        """Return what the server has of a name. Raises RequestError (404), which contains the nearest name."""
        if name in self._by_name:
            return self._by_name[name]
        nearest = difflib.get_close_matches(name[:MAX_NAME], self._by_name, 1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        detail = f"There is no model {name!r:.{MAX_NAME}}.{hint} GET /models lists the models of this server."
        raise RequestError(HTTPStatus.NOT_FOUND, detail)

    def listed_name(self, name: str = "") -> str:
        """Return MODEL@ALIAS of a name, or of the first model. Raises RequestError (404)."""
        current = self.find(name) if name else self._first
        return next((listed for listed, model in self._models.items() if model is current), "")

    def limits(self, name: str = "") -> Limits:
        """Return the limits of requests to a model, or to the first one. An unknown name has none: it gets 404 later."""
        current = self._by_name.get(name) if name else self._first
        return Limits() if current is None else current.limits

    @property
    def is_ready(self) -> bool:
        """Whether the first model is in memory."""
        return self._first.model is not None

    def in_memory(self) -> list[Model]:
        """Return the models that are in memory, canaries among them."""
        models = (model for current in self._models.values() for model in (current.model, current.canary.model))
        return [model for model in models if model is not None]

    def describe(self) -> list[dict[str, Any]]:
        """Return name, registered model, alias, version and canary of each model, and whether it is in memory."""
        return [
            dict(
                zip(
                    FIELDS,
                    (name, *split_name(name), current.version, current.canary.describe(), current.model is not None),
                    strict=True,
                )
            )
            for name, current in self._models.items()
        ]

    def _apply_list(self) -> None:
        """Add listed models and drop the others. A model without its alias is the first one with that name."""
        self._models = {
            name: self._models.get(name) or CurrentModel(folder, partial(self._read, split_name(name)[0]), self._adaptation_dir)
            for name, folder in self._list.folders.items()
        }
        for name, limits in self._list.limits.items():
            self._models[name].limits = limits
        self._first = next(iter(self._models.values()))
        aliases = {split_name(name)[0]: current for name, current in reversed(self._models.items())}
        self._by_name = {**aliases, **self._models}

    def _poll_forever(self) -> None:
        while True:
            time.sleep(self._poll_seconds)
            self._follow_list()
            for current in list(self._models.values()):
                if not current.is_unloaded or current is self._first:
                    current.reload_if_new()
                    self._free_memory()

    def _follow_list(self) -> None:
        try:
            if self._list.refresh():
                self._apply_list()
            self._last_error = ""
        except (OSError, ConfigError) as error:
            if str(error) != self._last_error:
                log.error("The served models stay as they are: %s", error)
            self._last_error = str(error)

    def _free_memory(self) -> None:
        """Unload the models that were used least recently, but for the last one, while this process has too much memory."""
        while self._max_memory_mb and _resident_mb() > self._max_memory_mb:
            loaded = [current for current in self._models.values() if current.model and current is not self._first]
            if len(loaded) < 2:
                return
            min(loaded, key=lambda current: current.last_used).unload()
            trim_memory()


def _resident_mb() -> float:
    """Return the resident memory of this process in MB, as ps shows it."""
    pages = int(OWN_MEMORY.read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
