"""TODO docstring."""

from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from housing.core.config import instantiate
from housing.core.errors import DataVersionError, DownloadError, HousingError
from housing.core.files import atomic_write, sha256
from housing.data import dvc

if TYPE_CHECKING:
    import pandas as pd

EX_UNAVAILABLE = 69  # the exit code that sysexits.h gives to a service that cannot be had


def fetch_table(data: DictConfig) -> str:
    """Write the table once, whole or not at all; give a line that says what there is and where it is from.

    A table under DVC is pulled; where DVC cannot give it, the public source may, if it has that very version. Raises
    HousingError where a table has no source, or the source gives another table than the pinned one.
    """
    path = Path(data.path)
    version = dvc.tracked_version(path)
    if path.is_file() and (version is None or version.matches(path)):
        return describe(data, path, "is there already")
    if version is not None and _pull_with_dvc(data, path):
        return describe(data, path, "pulled by DVC")
    if data.get("source") is None:
        raise HousingError(f"{path} is not there, and data={data.name} names no source. Put the file there.")
    source = data.source._target_  # pylint: disable=protected-access
    print(f"getting table {data.name} from {source}", flush=True)
    _write(path, _download(data), data, version)
    return describe(data, path, f"written, from {source}")


def _pull_with_dvc(data: DictConfig, path: Path) -> bool:
    """Pull the version that git names; where that fails, say why. Raises VersionError where another table is in its place."""
    print(f"pulling {path.name} with DVC", flush=True)
    try:
        dvc.pull(path)
    except DataVersionError as error:
        if path.is_file():
            raise DataVersionError(
                f"{path} is not the version that {dvc.dvc_file(path).name} names, and DVC does not put that in its place."
                f"\n  {error}\n  To keep the present table: dvc add {path}. To drop it: remove it, then fetch again."
            ) from error
        if data.get("source") is None:
            raise
        print(f"not in DVC's cache or remote, so the public source is asked: {error}", flush=True)
        return False
    return True


def _download(data: DictConfig) -> "pd.DataFrame":
    # pylint: disable=import-outside-toplevel  # not needed where the table is there already, and slow
    import numpy as np
    import pandas as pd

    from housing.data.table import parse_schema

    names = [column.name for column in parse_schema(data).columns]
    try:
        fetched = instantiate(data.source)
    except (OSError, HTTPException) as error:
        raise DownloadError(f"table {data.name} cannot be had: {type(error).__name__}: {error}") from error
    if isinstance(fetched, pd.DataFrame):
        return fetched
    if hasattr(fetched, "target"):  # what scikit-learn's fetchers give
        given = [*fetched.feature_names, *fetched.target_names]
        return pd.DataFrame(np.column_stack([fetched.data, fetched.target]), columns=given)[names]
    return pd.DataFrame(fetched, columns=names)


def _write(path: Path, frame: "pd.DataFrame", data: DictConfig, version: dvc.Version | None) -> None:
    from housing.data.table import parse_schema, validate_frame  # pylint: disable=import-outside-toplevel

    validate_frame(parse_schema(data), frame, digest="")
    with atomic_write(path) as partial:
        frame.to_csv(partial, index=False, lineterminator="\n")
        got, pinned = sha256(partial), data.get("fingerprint")
        if pinned is not None and got != pinned:
            raise HousingError(f"data={data.name}: the source gives a table with fingerprint {got}; the config pins {pinned}")
        if version is not None and not version.matches(partial):
            raise DownloadError(
                f"table {data.name} cannot be had: the public source has another version than {dvc.dvc_file(path).name} names"
            )


def describe(data: DictConfig, path: Path, state: str) -> str:
    """Say where the table is, its rows and its fingerprint, and whether that is the public source's."""
    with path.open("rb") as file:
        rows = sum(1 for _ in file) - 1
    got, pinned = sha256(path), data.get("fingerprint")
    note = (
        "" if pinned is None else "  (the public source's)" if got == pinned else f"  (changed: the public source's is {pinned})"
    )
    return f"table {data.name}: {path} {state}\nrows {rows:,}\nfingerprint {got}{note}"
