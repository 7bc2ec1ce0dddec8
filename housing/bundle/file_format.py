"""TODO docstring."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import BundleError
from housing.core.files import sha256

FORMAT = 5


CHECKSUMS = "SHA256SUMS"


SHARED_FILES = ("schema.json", "ensemble.json", "reference.json", "card.json", "golden.json")


ENSEMBLE_ARRAYS, BACKGROUND_ARRAYS, MEMBER_MODEL = "ensemble.npz", "background.npz", "model.onnx"


INTERVAL_FILES = ("interval.npz", "interval.onnx")


FEATURES_FILES = ("features.json", "arrays.npz")


def make_numbered_dirs(folder: Path, parts: Sequence[Any]) -> Iterator[tuple[Path, Any]]:
    """Make a numbered folder for each part."""
    for place, part in enumerate(parts):
        home = folder / str(place)
        home.mkdir(parents=True)
        yield home, part


def list_numbered_dirs(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda home: int(home.name))


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def validate_card(card: Mapping[str, Any]) -> None:
    """Raise BundleError, KeyError or ValueError where the card does not say what a server tells of its model."""
    names, rmse = (card["run_id"], card["data"]["fingerprint"]), card["metrics"]["rmse"]
    if not all(isinstance(name, str) for name in names) or not is_number(rmse):
        raise BundleError(
            f"card.json: run_id, data.fingerprint and metrics.rmse are {(*names, rmse)}; allowed: two texts, a number"
        )
    datetime.fromisoformat(card["created"]).timestamp()


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_files(folder: Path) -> None:
    """Compare the files that are there with those of the format and with their sums. Raises BundleError."""
    if not (folder / CHECKSUMS).is_file():
        raise BundleError(f"{CHECKSUMS} is missing")
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
    expected |= set(INTERVAL_FILES) if set(INTERVAL_FILES) & set(present) else set()
    for what, names in (
        ("is missing", (expected | set(listed)) - set(present)),
        ("is not part of a bundle", set(present) - expected),
        (f"is not in {CHECKSUMS}", set(present) - set(listed)),
        ("does not have the sum that was written", {name for name in present if listed.get(name) != sha256(folder / name)}),
    ):
        if names:
            raise BundleError(f"{min(names)} {what}")


def _expected_files(present: Sequence[str], kind: str, names: Sequence[str]) -> set[str]:
    """Give the files that the numbered folders of a kind must have: as many as there are, and one at least."""
    count = max(len({name.split("/")[1] for name in present if name.startswith(f"{kind}/")}), 1)
    return {f"{kind}/{place}/{name}" for place in range(count) for name in names}


def list_files(folder: Path) -> list[str]:
    """Names of all files below the folder but the sums, sorted. A link is refused: it may point anywhere."""
    names = []
    for home, folders, files in os.walk(folder):
        for name in folders + files:
            if (Path(home) / name).is_symlink():
                raise BundleError(f"{name} is a link")
        names += [(Path(home) / name).relative_to(folder).as_posix() for name in files]
    return sorted(set(names) - {CHECKSUMS})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
