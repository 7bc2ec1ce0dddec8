"""TODO docstring."""

from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from housing.core.config import make
from housing.core.errors import HousingError, SourceError, VersionError
from housing.core.files import sha256, written_whole
from housing.data import dvc

if TYPE_CHECKING:
    import pandas as pd

UNAVAILABLE = 69  # the exit code that sysexits.h gives to a service that cannot be had


def fetch(data: DictConfig) -> str:
    """Write the table once, whole or not at all; give a line that says what there is and where it is from.

    A table under DVC is pulled; where DVC cannot give it, the public source may, if it has that very version. Raises
    HousingError where a table has no source, or the source gives another table than the pinned one.
    """
    path = Path(data.path)
    version = dvc.named(path)
    if path.is_file() and (version is None or version.is_in(path)):
        return describe(data, path, "is there already")
    if version is not None and _pulled(data, path):
        return describe(data, path, "pulled by DVC")
    if data.get("source") is None:
        raise HousingError(f"{path} is not there, and data={data.name} names no source. Put the file there.")
    source = data.source._target_  # pylint: disable=protected-access
    print(f"getting table {data.name} from {source}", flush=True)
    _write(path, _from_source(data), data, version)
    return describe(data, path, f"written, from {source}")


def _pulled(data: DictConfig, path: Path) -> bool:
    """Pull the version that git names; where that fails, say why. Raises VersionError where another table is in its place."""
    print(f"pulling {path.name} with DVC", flush=True)
    try:
        dvc.pull(path)
    except VersionError as error:
        if path.is_file():
            raise VersionError(
                f"{path} is not the version that {dvc.pointer(path).name} names, and DVC does not put that in its place."
                f"\n  {error}\n  To keep the present table: dvc add {path}. To drop it: remove it, then fetch again."
            ) from error
        if data.get("source") is None:
            raise
        print(f"not in DVC's cache or remote, so the public source is asked: {error}", flush=True)
        return False
    return True


def _from_source(data: DictConfig) -> "pd.DataFrame":
    # pylint: disable=import-outside-toplevel  # not needed where the table is there already, and slow
    import numpy as np
    import pandas as pd

    from housing.data.table import schema_of

    names = [column.name for column in schema_of(data).columns]
    try:
        fetched = make(data.source)
    except (OSError, HTTPException) as error:
        raise SourceError(f"table {data.name} cannot be had: {type(error).__name__}: {error}") from error
    if isinstance(fetched, pd.DataFrame):
        return fetched
    if hasattr(fetched, "target"):  # what scikit-learn's fetchers give
        given = [*fetched.feature_names, *fetched.target_names]
        return pd.DataFrame(np.column_stack([fetched.data, fetched.target]), columns=given)[names]
    return pd.DataFrame(fetched, columns=names)


def _write(path: Path, frame: "pd.DataFrame", data: DictConfig, version: dvc.Version | None) -> None:
    from housing.data.table import check, schema_of  # pylint: disable=import-outside-toplevel

    check(schema_of(data), frame, digest="")
    with written_whole(path) as partial:
        frame.to_csv(partial, index=False, lineterminator="\n")
        got, pinned = sha256(partial), data.get("fingerprint")
        if pinned is not None and got != pinned:
            raise HousingError(f"data={data.name}: the source gives a table with fingerprint {got}; the config pins {pinned}")
        if version is not None and not version.is_in(partial):
            raise SourceError(
                f"table {data.name} cannot be had: the public source has another version than {dvc.pointer(path).name} names"
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
