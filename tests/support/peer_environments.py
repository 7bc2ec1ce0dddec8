"""Environments of programs that cannot share one with this project: clients, servers, and libraries to compare with."""

import fcntl
import subprocess
import sys
from pathlib import Path

from housing.core.environment import PROJECT


def peer_python(name: str) -> str:
    """Return the Python of an environment with the packages of locks/NAME.txt, installed once.

    Raises
    ------
    subprocess.CalledProcessError
        If the packages cannot be installed.
    """
    lock, environment = PROJECT / "locks" / f"{name}.txt", PROJECT / f".venv-{name}"
    python, installed = environment / "bin" / "python", environment / "installed.txt"
    environment.mkdir(exist_ok=True)
    with (environment / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not installed.is_file() or installed.read_bytes() != lock.read_bytes():
            uv = Path(sys.prefix) / "bin" / "uv"
            _run(str(uv), "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(environment))
            _run(str(uv), "pip", "sync", "--quiet", "--python", str(python), str(lock))
            installed.write_bytes(lock.read_bytes())
    return str(python)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
