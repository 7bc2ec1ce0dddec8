"""Locks exclude processes and threads, end with their process, time out and leave no files."""

import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from housing.core.errors import ConfigError, LockError
from housing.core.locks import LockTimeout, file_lock, machine_lock, store_file, store_lock, try_lock

HOLD_LOCK = "from housing.core.locks import machine_lock\nwith machine_lock('a key'):\n print('held', flush=True)\n input()"


@contextmanager
def holder_process(temporary: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that holds the lock of a key until it reads a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK],
        env={"TMPDIR": str(temporary), "PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_machine_lock_excludes_other_processes_and_ends_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with holder_process(tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with holder_process(tmp_path) as second:
            assert second.stdout is not None and second.stderr is not None and second.stdin is not None
            assert "Another process is doing the same work" in second.stderr.readline()  # the second process is waiting
            with machine_lock("another key"):
                pass
            assert second.poll() is None
            holder.kill()
            assert second.stdout.readline() == "held\n"
            second.stdin.write("\n")
            second.stdin.close()
            assert second.wait(60) == 0
    (directory,) = tmp_path.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700 and not list(directory.iterdir())


def test_waiting_ends_after_the_timeout_with_the_file_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "new" / "some.lock"
    with file_lock(path), pytest.raises(LockTimeout, match=f"{path} for over 0.1 s") as error, file_lock(path, 0.1):
        pass
    assert error.value.path == path


def test_a_lock_excludes_threads_although_each_removes_the_lock_file(tmp_path: Path) -> None:
    path, holders = tmp_path / "some.lock", 0

    def hold(_: int) -> bool:
        nonlocal holders
        with file_lock(path):
            holders += 1
            is_alone = holders == 1
            holders -= 1
        return is_alone

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(hold, range(100)))
    assert not path.exists()


def test_a_held_lock_cannot_be_acquired_again(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    assert try_lock(path) is not None
    assert try_lock(path) is None


def test_only_a_store_in_a_file_is_locked(tmp_path: Path) -> None:
    with store_lock("http://127.0.0.1:5000"), store_lock("http://127.0.0.1:5000"):
        pass
    with store_lock(f"sqlite:///{tmp_path}/mlflow.db"):
        assert try_lock(tmp_path / "mlflow.db.lock") is None


def lock_directory(temporary: Path) -> Path:
    """Return the lock directory of this user."""
    return temporary / f"housing-locks-{os.getuid()}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory to another user")
def test_a_lock_directory_of_another_user_is_an_error_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = lock_directory(tmp_path)
    directory.mkdir()
    os.chown(directory, 4321, 4321)
    with pytest.raises(LockError, match=rf"{directory} \(owner: user ID 4321, this user: 0\).*TMPDIR"):
        machine_lock("a key")


@pytest.mark.parametrize("planted", ["link", "file"])
def test_a_link_or_a_file_as_lock_directory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outside = tmp_path / "outside"
    outside.mkdir()
    if planted == "link":
        lock_directory(tmp_path).symlink_to(outside)
    else:
        lock_directory(tmp_path).touch()
    with pytest.raises(LockError, match=str(lock_directory(tmp_path))):
        machine_lock("a key")
    assert not list(outside.iterdir())


def test_a_lock_file_that_is_a_link_or_has_no_directory_is_an_error(tmp_path: Path) -> None:
    link = tmp_path / "some.lock"
    link.symlink_to(tmp_path / "target")
    with pytest.raises(LockError, match=rf"{link} \(owner: user ID {os.getuid()}"):
        try_lock(link)
    assert not (tmp_path / "target").exists()
    with pytest.raises(LockError, match="No such file"):
        try_lock(tmp_path / "missing" / "some.lock")


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "a%2Fb"])
def test_a_store_path_with_special_characters_of_urls_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"must not contain % or \? or # \(got '/homes/{re.escape(name)}/mlflow.db'\)"):
        store_file(f"sqlite:////homes/{name}/mlflow.db")
