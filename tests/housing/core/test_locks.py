"""Locks exclude processes and threads, end with their process, time out and leave no files."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from housing.core.locks import LockTimeout, file_lock, machine_lock, store_lock, try_lock

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


def test_a_machine_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with holder_process(tmp_path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with holder_process(tmp_path) as second:
            assert second.stdout is not None and second.stderr is not None and second.stdin is not None
            assert "Another process is doing the same work" in second.stderr.readline()  # it waits now
            with machine_lock("another key"):
                pass
            assert second.poll() is None
            holder.kill()
            assert second.stdout.readline() == "held\n"
            second.stdin.write("\n")
            second.stdin.close()
            assert second.wait(60) == 0
    assert not list(tmp_path.iterdir())


def test_waiting_ends_after_the_timeout_with_the_file_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "new" / "some.lock"
    with file_lock(path), pytest.raises(LockTimeout, match=f"{path} for over 0.1 s") as error, file_lock(path, 0.1):
        pass
    assert error.value.path == path


def test_one_thread_at_a_time_holds_a_lock_though_each_removes_its_file(tmp_path: Path) -> None:
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


def test_a_lock_that_was_taken_without_waiting_is_not_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    assert try_lock(path) is not None
    assert try_lock(path) is None


def test_a_store_that_is_a_server_needs_no_lock(tmp_path: Path) -> None:
    with store_lock("http://127.0.0.1:5000"), store_lock("http://127.0.0.1:5000"):
        pass
    with store_lock(f"sqlite:///{tmp_path}/mlflow.db"):
        assert try_lock(tmp_path / "mlflow.db.lock") is None
