"""What is published: a folder that the puller writes and the workers read.

<folder>/<name>/bundle/       the bundle, verified
<folder>/<name>/release.json   model, version and alias it came from
<folder>/current              a link to the one in use, replaced in one step
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

CURRENT = "current"


RELEASE_FILE = "release.json"


BUNDLE = "bundle"


def current_release(folder: Path) -> Path | None:
    """Give the folder of what is in use, or None where there is none."""
    try:
        used = folder / os.readlink(folder / CURRENT)
    except FileNotFoundError:
        return None
    return used if used.is_dir() else None


def list_releases(folder: Path) -> dict[str, dict[str, Any]]:
    """Give the names of all that is published, which are in use or were so before, and where each came from."""
    found = {}
    for place in folder.iterdir():
        if place.is_dir() and not place.is_symlink() and place.name[0] != ".":
            with suppress(FileNotFoundError):  # it is being removed
                found[place.name] = release_info(place)
    return found


def release_info(release: Path) -> dict[str, Any]:
    """Give where the version in a folder came from."""
    found: dict[str, Any] = json.loads((release / RELEASE_FILE).read_text(encoding="utf-8"))
    return found


def publish(folder: Path, name: str, bundle: Path, info: Mapping[str, str]) -> None:
    """Put a verified bundle beside the one in use, remove what lay there before these two, then turn the link."""
    folder.mkdir(parents=True, exist_ok=True)
    before = current_release(folder)
    if folder / name != before:
        shutil.rmtree(folder / name, ignore_errors=True)  # it was in use once; what lies there may be damaged by now
        _write_release(folder / name, bundle, info)
    for old in folder.iterdir():  # first, since who sees the link turned takes what is here for published
        if old.is_dir() and not old.is_symlink() and old not in (folder / name, before):
            shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as place:
        link = Path(place) / CURRENT
        link.symlink_to(name)
        link.rename(folder / CURRENT)


def _write_release(target: Path, bundle: Path, info: Mapping[str, str]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        shutil.copytree(bundle, partial / BUNDLE)
        (partial / RELEASE_FILE).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
