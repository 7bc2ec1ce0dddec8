"""Publication: makes a verified bundle the current release, which the workers read (`housing.server_files.releases`)."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from housing.server_files import releases


def publish(folder: Path, name: str, bundle: Path, info: Mapping[str, str]) -> None:
    """Make a verified bundle the current release. The previous release stays, older ones are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    target, previous = folder / name, releases.current_release(folder)
    if target != previous:
        shutil.rmtree(target, ignore_errors=True)  # left from an earlier use of this version, and possibly damaged since
        _write_release(target, bundle, info)
    for path in releases.release_dirs(folder):  # before the link moves: a worker that sees the new link counts what it finds here
        if path not in (target, previous):
            shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
        link = Path(scratch) / releases.CURRENT
        link.symlink_to(name)
        link.rename(folder / releases.CURRENT)


def _write_release(target: Path, bundle: Path, info: Mapping[str, str]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        shutil.copytree(bundle, partial / releases.BUNDLE)
        (partial / releases.RELEASE_FILE).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
