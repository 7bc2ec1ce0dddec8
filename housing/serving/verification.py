"""The verification of an untrusted bundle, in a child process with limits on memory and time.

python -m housing.serving.verification BUNDLE --in-use BUNDLE --memory 1000 --rows 10000
"""

import argparse
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

from housing.core.errors import BundleError
from housing.core.printable import show

EXIT_REJECTED = 3  # the last line of the output has the reason


def verify(candidate: Path, current: Path | None, memory_mb: int, seconds: float, n_rows: int) -> None:
    """Check that a bundle can answer a request of `n_rows` rows and accepts the rows that `current` accepts.

    Raises
    ------
    BundleError
        If a check fails, or if it takes more than `memory_mb` MB or `seconds` seconds.
    """
    command = [sys.executable, "-m", "housing.serving.verification", str(candidate)]
    command += ["--memory", str(memory_mb), "--rows", str(n_rows), *(["--in-use", str(current)] if current else [])]
    environ = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}  # count no requests
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=environ)
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"Verification took more than {seconds:g} s. Raise serve.verify_seconds if that is expected."
        ) from error
    if child.returncode == EXIT_REJECTED:
        raise BundleError(_last_line(child.stdout))
    if child.returncode:
        raise BundleError(
            f"Verification exited with code {child.returncode} (memory limit {memory_mb} MB, serve.verify_memory_mb):"
            f" {_last_line(child.stdout + child.stderr)}"
        )


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def check_size(bundle: Path, max_bytes: int) -> None:
    """Raise BundleError if the unpacked files exceed `max_bytes`: workers load them without a memory limit."""
    unpacked = sum(_unpacked_size(path) for path in sorted(bundle.rglob("*")) if path.is_file())
    if unpacked > max_bytes:
        raise BundleError(
            f"The unpacked files must have at most {max_bytes} bytes, half of serve.verify_memory_mb (got {unpacked})."
        )


def _unpacked_size(path: Path) -> int:
    if path.suffix != ".npz":
        return path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise BundleError(f"{path.name} is not a ZIP archive: {error}") from error


def main() -> int:
    """Verify a bundle. On failure, print the reason and return EXIT_REJECTED."""
    parser = argparse.ArgumentParser(prog="python -m housing.serving.verification", description="Verify a bundle within limits.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--in-use", type=Path, metavar="BUNDLE", help="current bundle, whose rows must stay valid")
    parser.add_argument("--memory", type=int, required=True, metavar="MB", help="memory limit")
    parser.add_argument("--rows", type=int, required=True, help="rows of the largest request")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (arguments.memory * 1_000_000,) * 2)

    # pylint: disable=import-outside-toplevel  # the limit applies to these imports as well
    from housing.bundle.bundle import Bundle
    from housing.bundle.file_format import reject_special_files
    from housing.bundle.onnx_model import VerifiedOnnxModel
    from housing.serving import dry_run

    try:
        reject_special_files(arguments.bundle)
        check_size(arguments.bundle, arguments.memory * 1_000_000 // 2)
        candidate = Bundle.read(arguments.bundle, VerifiedOnnxModel)
        changes = candidate.schema.breaking_changes(Bundle.read(arguments.in_use).schema) if arguments.in_use else []
        if changes:
            raise BundleError(
                f"Breaking column changes: {'; '.join(changes)}. To publish anyway, set serve.forbid_breaking_columns=false."
            )
        dry_run.dry_run(candidate, arguments.rows)
    except BundleError as error:
        show(str(error))
        return EXIT_REJECTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
