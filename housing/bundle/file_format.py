"""File format of bundles: names, checksums, and reading and writing of the files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from housing.core.errors import BundleError
from housing.core.files import sha256

FORMAT = 9
READABLE_FORMATS = (8, FORMAT)
CHECKSUMS = "SHA256SUMS"
SCHEMA = "schema.json"
SHARED_FILES = (SCHEMA, "ensemble.json", "reference.json", "card.json", "golden.json")
ENSEMBLE_ARRAYS, BACKGROUND_ARRAYS, MEMBER_MODEL = "ensemble.npz", "background.npz", "model.onnx"
TEXT_ARRAYS = "text.npz"  # only if a feature is a text
INTERVAL_FILES, QUANTILES = ("interval.npz", "interval.onnx"), "quantiles"
FEATURES_FILES = ("features.json", "arrays.npz")


def check_format(folder: Path) -> None:
    """Raise BundleError if a bundle has another format. A damaged bundle passes: `check_files` names the damaged file."""
    try:
        written = json.loads((folder / SCHEMA).read_text(encoding="utf-8"))["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if written not in READABLE_FORMATS:
        raise BundleError(
            f"The bundle has format {written}, but this version of the program reads only formats"
            f" {' and '.join(map(str, READABLE_FORMATS))};"
            " train the model again: python -m housing.train"
        )


def reject_special_files(folder: Path) -> None:
    """Raise BundleError for symbolic links, which can point outside, and for pipes, whose readers block forever."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(
                f"{path.relative_to(folder)} is not a regular file. A bundle must not contain links, pipes or devices."
            )


def check_files(folder: Path) -> None:
    """Raise BundleError unless a bundle has exactly the files of the format, each with its checksum."""
    if not (folder / CHECKSUMS).is_file():
        raise BundleError(f"{CHECKSUMS} is missing.")
    listed = {}
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    present = list_files(folder)
    expected = {
        *SHARED_FILES,
        ENSEMBLE_ARRAYS,
        BACKGROUND_ARRAYS,
        *_expected_files(present, "features", FEATURES_FILES),
        *_expected_files(present, "members", (MEMBER_MODEL,)),
    }
    expected |= {TEXT_ARRAYS} & set(present)
    if set(INTERVAL_FILES) & set(present):
        expected |= {*INTERVAL_FILES, *_expected_files(present, QUANTILES, (MEMBER_MODEL,), at_least=0)}
    for problem, names in (
        ("is missing", (expected | set(listed)) - set(present)),
        ("does not belong to a bundle", set(present) - expected),
        (f"is not listed in {CHECKSUMS}", set(present) - set(listed)),
        (f"does not match its checksum in {CHECKSUMS}", {name for name in present if listed.get(name) != sha256(folder / name)}),
    ):
        if names:
            raise BundleError(f"{min(names)} {problem}.")


def list_files(folder: Path) -> list[str]:
    """Return the sorted names of all files but the checksums, relative to `folder`."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted(names - {CHECKSUMS})


def make_numbered_dirs(folder: Path, parts: Sequence[Any]) -> Iterator[tuple[Path, Any]]:
    """Create a numbered directory per part, and yield both."""
    for index, part in enumerate(parts):
        directory = folder / str(index)
        directory.mkdir(parents=True)
        yield directory, part


def list_numbered_dirs(folder: Path) -> list[Path]:
    """Return the numbered directories below a directory in numerical order; none if it does not exist."""
    return [] if not folder.is_dir() else sorted(folder.iterdir(), key=lambda directory: int(directory.name))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file for people and programs. Raises ValueError for NaN and infinity."""
    path.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def validate_card(card: Mapping[str, Any]) -> None:
    """Raise BundleError, KeyError or ValueError if a model card lacks a property that servers publish."""
    names, rmse = (card["run_id"], card["data"]["fingerprint"]), card["metrics"]["rmse"]
    if not all(isinstance(name, str) for name in names) or not is_number(rmse):
        raise BundleError(
            "card.json: run_id and data.fingerprint must be strings and metrics.rmse a finite number"
            f" (got {', '.join(map(repr, (*names, rmse)))})."
        )
    datetime.fromisoformat(card["created"]).timestamp()


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _expected_files(present: Sequence[str], kind: str, names: Sequence[str], at_least: int = 1) -> set[str]:
    """Return the files of the numbered directories of a kind, which count from 0 without gaps."""
    count = max(len({name.split("/")[1] for name in present if name.startswith(f"{kind}/")}), at_least)
    return {f"{kind}/{index}/{name}" for index in range(count) for name in names}
