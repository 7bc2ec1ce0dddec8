"""The table of security promises: its tests exist, and each section of the security page is in it."""

import ast
import re

from housing.core.environment import PROJECT

PAGE = (PROJECT / "docs" / "how-to" / "secure.md").read_text(encoding="utf-8")
PROMISES = (PROJECT / "docs" / "reference" / "security-promises.md").read_text(encoding="utf-8")
WITHOUT_PROMISES = {"Not done"}


def sections(page: str) -> list[str]:
    """Return the headings of a page."""
    return re.findall(r"^## (.+)$", page, re.MULTILINE)


def defined_tests() -> set[str]:
    """Return the names of all test functions of the project."""
    modules = (ast.parse(path.read_text(encoding="utf-8")) for path in (PROJECT / "tests").rglob("test_*.py"))
    return {node.name for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_tests_that_exist() -> None:
    rows = [line for line in PROMISES.splitlines() if line.startswith("| ") and line != "| promise | tests |"]
    names = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) > 30 and all(names), "each promise needs a test"
    missing = {name for row in names for name in row} - defined_tests()
    assert not missing, f"docs/reference/security-promises.md names tests that do not exist: {sorted(missing)}"


def test_every_section_of_the_page_has_its_promises() -> None:
    assert sections(PROMISES) == [section for section in sections(PAGE) if section not in WITHOUT_PROMISES]
