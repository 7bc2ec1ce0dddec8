"""What is published: a folder that the puller writes and the workers read.

<folder>/<name>/bundle/       the bundle, verified
<folder>/<name>/served.json   model, version and alias it came from
<folder>/current              a link to the one in use, replaced in one step
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

CURRENT = "current"
SERVED = "served.json"
BUNDLE = "bundle"


def current(folder: Path) -> Path | None:
    """Give the folder of what is in use, or None where there is none."""
    try:
        used = folder / os.readlink(folder / CURRENT)
    except FileNotFoundError:
        return None
    return used if used.is_dir() else None


def publish(folder: Path, name: str, bundle: Path, served: Mapping[str, str]) -> None:
    """Put a verified bundle beside the one in use, then turn the link; remove what lay there before these two."""
    folder.mkdir(parents=True, exist_ok=True)
    before = current(folder)
    if not (folder / name).exists():
        _place(folder / name, bundle, served)
    link = Path(tempfile.mkdtemp(prefix=".", dir=folder)) / CURRENT
    link.symlink_to(name)
    link.rename(folder / CURRENT)
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink() and old not in (folder / name, before):
            shutil.rmtree(old)


def _place(target: Path, bundle: Path, served: Mapping[str, str]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        shutil.copytree(bundle, partial / BUNDLE)
        (partial / SERVED).write_text(json.dumps(served, indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
