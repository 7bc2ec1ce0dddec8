"""Atomic writes (all or nothing, with the mode of the replaced file, through symbolic links), and files that must exist."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from housing.core.errors import DiskFullError, HousingError, WriteError
from housing.core.files import atomic_write, require_file


def write(path: Path, text: str) -> None:
    """Write a text atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def mode(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_and_its_folder_are_created_readable_for_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    write(path, "new")
    assert (path.read_text(encoding="utf-8"), mode(path)) == ("new", 0o644)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("bits", [0o600, 0o664, 0o755])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    path.chmod(bits)
    write(path, "new")
    assert (path.read_text(encoding="utf-8"), mode(path)) == ("new", bits)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("old", ["old", None])
def test_the_target_of_a_symbolic_link_is_replaced(tmp_path: Path, relative: bool, old: str | None) -> None:
    target, link = tmp_path / "elsewhere" / "target.txt", tmp_path / "link.txt"
    if old is not None:
        target.parent.mkdir()
        target.write_text(old, encoding="utf-8")
        target.chmod(0o640)
    link.symlink_to(target.relative_to(tmp_path) if relative else target)
    write(link, "new")
    assert link.is_symlink() and not target.is_symlink()
    assert (target.read_text(encoding="utf-8"), mode(target)) == ("new", 0o644 if old is None else 0o640)
    assert list(tmp_path.glob(".*")) == list(target.parent.glob(".*")) == []


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.txt").touch()
    path = tmp_path / "file.txt" / "below" / "page.html"
    with pytest.raises(WriteError, match=f"Could not write {path}: Not a directory. Choose another path"):
        write(path, "new")


def test_an_error_leaves_the_old_file_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="disk full"), atomic_write(path) as partial:  # noqa: PT012  # the block is what is tested
        partial.write_text("half", encoding="utf-8")
        raise OSError("disk full")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write files of another user")
def test_a_file_that_root_replaces_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    os.chown(path, 4321, 4322)
    write(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (4321, 4322)


@contextmanager
def size_limit(limit: int) -> Iterator[None]:
    """Limit the size of files that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_with_the_path_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(DiskFullError, match=f"Could not write {path}: File too large. Free some space"), size_limit(1000):
        write(path, "x" * 5000)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_or_a_missing_file_is_an_error_that_says_which_it_is(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    require_file(tmp_path / "rows.csv", "a file of rows")
    with pytest.raises(HousingError, match=r" is a folder\. Set file= to a file of rows\."):
        require_file(tmp_path, "a file of rows")
    with pytest.raises(HousingError, match=r" does not exist\. Set file= to a file of rows\."):
        require_file(tmp_path / "other.csv", "a file of rows")
