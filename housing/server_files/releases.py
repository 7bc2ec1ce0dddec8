"""Releases on disk: the puller writes them, the workers read them.

`housing.serving.publishing` writes this layout:

<folder>/<name>/bundle/        the verified bundle
<folder>/<name>/release.json   its model, version and alias
<folder>/<name>/signature.json the signature by which it is trusted, if the server has trusted keys
<folder>/current               a link to the current release, replaced atomically
<folder>/canary.json           the release that answers a share of the requests, and the share; absent without a canary
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

CURRENT = "current"
CANARY_FILE = "canary.json"
RELEASE_FILE, SIGNATURE_FILE = "release.json", "signature.json"
BUNDLE = "bundle"


def current_release(folder: Path) -> Path | None:
    """Return the directory of the current release, or None if there is none."""
    try:
        release = folder / os.readlink(folder / CURRENT)
    except FileNotFoundError:
        return None
    return release if release.is_dir() else None


def canary_release(folder: Path) -> tuple[Path, float] | None:
    """Return the directory of the canary's release and its share of the requests, or None if there is no canary.

    A damaged file counts as none: the puller then writes it again.
    """
    try:
        canary = json.loads((folder / CANARY_FILE).read_text(encoding="utf-8"))
        return folder / canary["release"], float(canary["share"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def list_releases(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the info of the current release, the previous one and the canary, by release name."""
    releases = {}
    for path in release_dirs(folder):
        if path.name[0] != ".":
            with suppress(FileNotFoundError):  # it is being removed
                releases[path.name] = release_info(path)
    return releases


def release_info(release: Path) -> dict[str, Any]:
    """Read model, version and alias of a release."""
    info: dict[str, Any] = json.loads((release / RELEASE_FILE).read_text(encoding="utf-8"))
    return info


def release_dirs(folder: Path) -> list[Path]:
    """Return the directories of all releases."""
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
