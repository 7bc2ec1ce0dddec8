"""The docs site: every page is in its navigation; .ci/run builds it and checks its links."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from housing.core.environment import PROJECT

DOCS = PROJECT / "docs"
CONFIG = yaml.safe_load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(item)


def test_navigation_has_each_page_once() -> None:
    files = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "templates" not in path.parts]
    assert sorted(pages(CONFIG["nav"])) == sorted(files)


def test_pages_load_no_external_fonts() -> None:
    assert CONFIG["theme"]["font"] is False


@pytest.mark.parametrize("level", ["nav", "links"])
def test_every_link_problem_is_a_warning_which_fails_the_strict_build(level: str) -> None:
    assert set(CONFIG["validation"][level].values()) == {"warn"}


def test_environment_of_the_docs_is_ignored_by_git_and_locked_with_hashes() -> None:
    ignored = Path(PROJECT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/.venv-docs/", "/site/"} <= set(ignored)
    lock = (PROJECT / "locks" / "docs.txt").read_text(encoding="utf-8")
    assert "mkdocs-material==" in lock and "--hash=sha256:" in lock
