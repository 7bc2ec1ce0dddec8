"""Publication: makes a verified bundle the current release, which the workers read (`housing.server_files.releases`)."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from housing.core.files import atomic_write
from housing.server_files import releases


def publish(folder: Path, name: str, bundle: Path, info: Mapping[str, str], signature: str = "") -> None:
    """Make a verified bundle the current release. The previous release and a canary stay, older ones are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    target, previous, canary = folder / name, releases.current_release(folder), releases.canary_release(folder)
    canary_folder = canary[0] if canary else None
    if target not in (previous, canary_folder):
        shutil.rmtree(target, ignore_errors=True)  # left from an earlier use of this version, and possibly damaged since
        _write_release(target, bundle, info, signature)
    for path in releases.release_dirs(folder):  # before the link moves: a worker that sees the new link counts what it finds here
        if path not in (target, previous, canary_folder):
            shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
        link = Path(scratch) / releases.CURRENT
        link.symlink_to(name)
        link.rename(folder / releases.CURRENT)


def publish_canary(folder: Path, name: str, bundle: Path, info: Mapping[str, str], share: float, signature: str = "") -> None:
    """Make a verified bundle the release that answers a share of the requests, beside the current one."""
    target, canary = folder / name, releases.canary_release(folder)
    if target not in (releases.current_release(folder), canary and canary[0]):  # workers read these
        shutil.rmtree(target, ignore_errors=True)
        _write_release(target, bundle, info, signature)
    set_canary(folder, name, share)


def set_canary(folder: Path, name: str, share: float) -> None:
    """Make a published release the canary, with a share of the requests."""
    with atomic_write(folder / releases.CANARY_FILE) as partial:
        partial.write_text(json.dumps({"release": name, "share": share}) + "\n", encoding="utf-8")


def remove_canary(folder: Path) -> None:
    """End the canary: all requests are answered by the current release. The next publication removes its files."""
    (folder / releases.CANARY_FILE).unlink(missing_ok=True)


def _write_release(target: Path, bundle: Path, info: Mapping[str, str], signature: str) -> None:
    partial = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        shutil.copytree(bundle, partial / releases.BUNDLE)
        (partial / releases.RELEASE_FILE).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        if signature:
            (partial / releases.SIGNATURE_FILE).write_text(signature, encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
