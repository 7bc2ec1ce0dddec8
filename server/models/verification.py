"""The proof of a bundle that comes from elsewhere, in a process of its own: it can take no more memory and time than allowed.

python -m server.models.verification BUNDLE --in-use BUNDLE --memory 1000 --rows 10000
"""

import argparse
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

from housing.core.errors import BundleError
from server.models import onnx_policy

EXIT_REJECTED = 3  # exit code: the last line says why


def verify(candidate: Path, current: Path | None, memory_mb: int, seconds: float, n_rows: int) -> None:
    """Prove a bundle: that it can answer a request of `rows` rows, and takes what callers of the one in use send.

    Raises BundleError, which says what is wrong with it, or that it took more than `memory` MB or `seconds`.
    """
    command = [
        sys.executable,
        "-m",
        "server.models.verification",
        str(candidate),
        "--memory",
        str(memory_mb),
        "--rows",
        str(n_rows),
    ]
    command += ["--in-use", str(current)] if current else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=_child_environment())
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"its proof took more than {seconds:g} s") from error
    if done.returncode == EXIT_REJECTED:
        raise BundleError(done.stdout.strip().rpartition("\n")[2])
    if done.returncode:
        last = (done.stdout + done.stderr).strip().rpartition("\n")[2]
        raise BundleError(f"its proof ended with {done.returncode} (it may take {memory_mb} MB): {last}")


def _child_environment() -> dict[str, str]:
    """Give ours without the folder of metrics: what the child counts is no request."""
    return {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}


def reject_special_files(bundle: Path) -> None:
    """Refuse links, which lead elsewhere, and pipes, whose reader waits for ever. Raises BundleError."""
    for path in sorted(bundle.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{path.relative_to(bundle)} is no plain file")


def inspect_files(bundle: Path, max_bytes: int) -> None:
    """Look into the files of a bundle before they are used. Raises BundleError for what no bundle has.

    Unpacked they may have `most` bytes: workers read them without a limit of their own.
    """
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
    unpacked = sum(_unpacked_size(path) for path in files)
    if unpacked > max_bytes:
        raise BundleError(
            f"its files have {unpacked} bytes when they are unpacked; allowed: {max_bytes}, half of serve.verify_memory"
        )
    for path in (path for path in files if path.suffix == ".onnx"):
        try:
            onnx_policy.check_graph(path.read_bytes())
        except BundleError as error:
            raise BundleError(f"{path.relative_to(bundle)} {error}") from error


def _unpacked_size(path: Path) -> int:
    if path.suffix != ".npz":
        return path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(item.file_size for item in archive.infolist())
    except zipfile.BadZipFile as error:
        raise BundleError(f"{path.name} is no archive: {error}") from error


def main() -> int:
    """Prove a bundle; print why not."""
    parser = argparse.ArgumentParser(prog="python -m server.models.verification", description="Prove a bundle within limits.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--in-use", type=Path)
    parser.add_argument("--memory", type=int, required=True, metavar="MB")
    parser.add_argument("--rows", type=int, required=True, help="of the largest request")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (asked.memory * 1_000_000,) * 2)

    # pylint: disable=import-outside-toplevel  # what they import is to be limited too
    from housing.bundle.bundle import Bundle
    from housing.bundle.file_format import check_files
    from housing.bundle.onnx_model import VerifiedOnnxModel
    from server.models import dry_run

    try:
        reject_special_files(asked.bundle)
        check_files(asked.bundle)
        inspect_files(asked.bundle, asked.memory * 1_000_000 // 2)
        candidate = Bundle.read(asked.bundle, VerifiedOnnxModel)
        broken = candidate.schema.breaking_changes(Bundle.read(asked.in_use).schema) if asked.in_use else []
        if broken:
            raise BundleError(
                f"callers would be refused: {'; '.join(broken)}; serve.forbid_breaking_columns=false takes it all the same"
            )
        dry_run.dry_run(candidate, asked.rows)
    except BundleError as error:
        print(error)
        return EXIT_REJECTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
