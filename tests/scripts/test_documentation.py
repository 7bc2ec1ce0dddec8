"""The reference pages agree with the code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from housing.core.environment import PROJECT
from tests.support.server import Server

PAGES = PROJECT / "docs" / "reference"


def documentation(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run scripts/documentation."""
    command = [sys.executable, str(PROJECT / "scripts" / "documentation"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_reference_pages_are_up_to_date(rentals_server: Server) -> None:
    process = documentation("--check", "--url", rentals_server.url)
    assert process.returncode == 0, process.stderr


def test_an_outdated_page_is_named_with_the_command_that_writes_it(rentals_server: Server, tmp_path: Path) -> None:
    shutil.copytree(PAGES, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "metrics.md").open("a", encoding="utf-8") as file:
        file.write("one more line\n")
    process = documentation("--check", "--url", rentals_server.url, "--out", str(tmp_path))
    assert process.returncode == 1
    assert process.stderr.startswith("error: not up to date in docs/reference/: metrics.md. ")
    assert "scripts/documentation" in process.stderr


def test_the_bundle_format_page_lists_every_file_of_a_bundle(rentals_server: Server) -> None:
    page = (PAGES / "bundle-format.md").read_text(encoding="utf-8")
    served = rentals_server.log.parent / "serving" / "rentals-staging" / "current"
    bundle = next(path.parent for path in served.rglob("SHA256SUMS"))
    names = {re.sub(r"/\d+/", "/<n>/", path.relative_to(bundle).as_posix()) for path in bundle.rglob("*") if path.is_file()}
    assert len(names) > 10
    assert {name for name in names if not re.search(rf"[` ]{re.escape(name)}[`,]", page)} == set()


def test_the_metrics_page_lists_every_metric_of_the_recording_rules() -> None:
    page = (PAGES / "metrics.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(housing_\w+)`", page, re.MULTILINE))
    rules = (PROJECT / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\bhousing_[a-z_]+_total\b", rules))
    assert used and used <= listed
