"""Releases on disk: the puller writes them, the workers read them.

<folder>/<name>/bundle/        the verified bundle
<folder>/<name>/release.json   its model, version and alias
<folder>/current               a link to the current release, replaced atomically
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
    """Return the directory of the current release, or None if there is none."""
    try:
        release = folder / os.readlink(folder / CURRENT)
    except FileNotFoundError:
        return None
    return release if release.is_dir() else None


def list_releases(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the info of the current and the previous release, by release name."""
    releases = {}
    for path in _release_dirs(folder):
        if path.name[0] != ".":
            with suppress(FileNotFoundError):  # it is being removed
                releases[path.name] = release_info(path)
    return releases


def release_info(release: Path) -> dict[str, Any]:
    """Read model, version and alias of a release."""
    info: dict[str, Any] = json.loads((release / RELEASE_FILE).read_text(encoding="utf-8"))
    return info


def publish(folder: Path, name: str, bundle: Path, info: Mapping[str, str]) -> None:
    """Make a verified bundle the current release. The previous release stays, older ones are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    target, previous = folder / name, current_release(folder)
    if target != previous:
        shutil.rmtree(target, ignore_errors=True)  # left from an earlier use of this version, and possibly damaged since
        _write_release(target, bundle, info)
    for path in _release_dirs(folder):  # before the link moves: a worker that sees the new link counts what it finds here
        if path not in (target, previous):
            shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
        link = Path(scratch) / CURRENT
        link.symlink_to(name)
        link.rename(folder / CURRENT)


def _release_dirs(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


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
