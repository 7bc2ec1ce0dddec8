"""The proof of a bundle that comes from elsewhere, in a process of its own: it can take no more memory and time than allowed.

python -m server.verify BUNDLE --in-use BUNDLE --memory 1000
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

from housing.errors import BundleError

REFUSED = 3  # exit code: the last line says why


def verify(candidate: Path, in_use: Path | None, memory: int, seconds: float) -> None:
    """Prove a bundle, and that it takes what callers of the one in use send.

    Raises BundleError, which says what is wrong with it, or that it took more than `memory` MB or `seconds`.
    """
    command = [sys.executable, "-m", "server.verify", str(candidate), "--memory", str(memory)]
    command += ["--in-use", str(in_use)] if in_use else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"its proof took more than {seconds:g} s") from error
    if done.returncode == REFUSED:
        raise BundleError(done.stdout.strip().rpartition("\n")[2])
    if done.returncode:
        last = (done.stdout + done.stderr).strip().rpartition("\n")[2]
        raise BundleError(f"its proof ended with {done.returncode} (it may take {memory} MB): {last}")


def main() -> int:
    """Prove a bundle; print why not."""
    parser = argparse.ArgumentParser(prog="python -m server.verify", description="Prove a bundle within limits.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--in-use", type=Path)
    parser.add_argument("--memory", type=int, required=True, metavar="MB")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (asked.memory * 1_000_000,) * 2)

    from housing.bundle import Bundle  # pylint: disable=import-outside-toplevel  # what it imports is to be limited too

    try:
        candidate = Bundle.read(asked.bundle)
        broken = candidate.schema.broken_for(Bundle.read(asked.in_use).schema) if asked.in_use else []
        if broken:
            raise BundleError(f"callers would be refused: {'; '.join(broken)}; serve.keep_columns=false takes it all the same")
    except BundleError as error:
        print(error)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
