"""The bundles of the versions that a server has published, each loaded once."""

import logging
from pathlib import Path

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError
from housing.core.model_list import ModelList
from housing.feedback.error_totals import totals_key
from housing.server_files import releases

log = logging.getLogger(__name__)


class ServedBundles:
    """Bundles by version, as long as their releases are on disk."""

    def __init__(self, models: ModelList) -> None:
        self._models = models
        self._loaded: dict[Path, Bundle | None] = {}
        self._paths: dict[str, Path] = {}

    def refresh(self) -> None:
        """Read which releases there are. Raises OSError or ConfigError if that fails."""
        self._models.refresh()
        self._paths = {
            totals_key(info): folder / name
            for folder in self._models.folders.values()
            if folder.exists()
            for name, info in releases.list_releases(folder).items()
        }
        self._loaded = {path: bundle for path, bundle in self._loaded.items() if path in self._paths.values()}

    @property
    def keys(self) -> list[str]:
        """The keys of the versions that have a release."""
        return list(self._paths)

    def get(self, key: str) -> Bundle | None:
        """Return the bundle of a version, or None if it has no release any more or its bundle is damaged."""
        path = self._paths.get(key)
        if path is None:
            return None
        if path not in self._loaded:
            try:
                self._loaded[path] = Bundle.read(path / releases.BUNDLE)
            except BundleError as error:
                log.error("Rows of version %s are skipped: %s", key, error)
                self._loaded[path] = None
        return self._loaded[path]
