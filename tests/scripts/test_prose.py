"""The prose check: each rule rejects its bad example and accepts its good one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from housing.core.environment import PROJECT

STYLE = PROJECT / ".vale" / "styles" / "Housing"
RULES = sorted(path.stem for path in STYLE.glob("*.yml"))
FORTY_WORDS = " ".join(["Word", *["word"] * 39])
# by rule: a rejected text and an accepted text
EXAMPLES = {
    "Clauses": ("The leaderboard shows what came of it.", "The leaderboard shows the results."),
    "Docstrings": (
        '"""Give the name."""\n',
        '"""Return the name."""\n\n\ndef given() -> None:\n    """Tellers are counted."""\n',
    ),
    "Filler": ("It is simply a list.", "It is a list."),
    "LongSentences": (f"{FORTY_WORDS} word.", f"{FORTY_WORDS}. {FORTY_WORDS}."),
    "Placeholders": ("TODO: write this.", "Write `TODO` in the list."),
    "Semicolons": ("One; two; three.", "One; two.\n\nThree; four."),
    "Terms": ("Use it in\norder to start.", "Use it to start."),
    "Words": ("The server is told the version.", "The server receives the version, as [we said](told.md).\n\n```sh\ntold\n```"),
}


def prose(*paths: Path) -> "subprocess.CompletedProcess[str]":
    """Run scripts/prose on files."""
    command = [sys.executable, str(PROJECT / "scripts" / "prose"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def write_examples(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write a file for each rule: Python for docstrings, Markdown for the others."""
    paths = [folder / f"{rule}.{'py' if rule == 'Docstrings' else 'md'}" for rule in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def test_every_rule_has_examples() -> None:
    assert sorted(EXAMPLES) == RULES


def test_each_bad_example_is_reported_by_its_rule_only(tmp_path: Path) -> None:
    process = prose(*write_examples(tmp_path, {rule: bad for rule, (bad, _) in EXAMPLES.items()}))
    assert process.returncode == 1
    problems = re.findall(r"^.*/(\w+)\.\w+:(\d+): .* \[Housing\.(\w+)\]$", process.stdout, re.MULTILINE)
    assert sorted(problems) == sorted((rule, "1", rule) for rule in EXAMPLES)
    assert ".vale/styles/Housing" in process.stderr


def test_good_examples_pass(tmp_path: Path) -> None:
    process = prose(*write_examples(tmp_path, {rule: good for rule, (_, good) in EXAMPLES.items()}))
    assert process.returncode == 0, process.stdout


def test_a_problem_is_reported_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "# A page\n\n```sh\ntold\n```\n\n| a | b |\n|---|---|\n| c | told |\n\n- good\n- is\n  told\n", encoding="utf-8"
    )
    assert re.findall(r"page\.md:(\d+):", prose(path).stdout) == ["9", "13"]


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_has_the_keys_that_vale_requires(rule: str) -> None:
    spec = yaml.safe_load((STYLE / f"{rule}.yml").read_text(encoding="utf-8"))
    required = {"existence": {"tokens"}, "substitution": {"swap"}, "occurrence": {"max", "token", "scope"}}[spec["extends"]]
    assert required | {"message", "level"} <= set(spec)
    assert spec["message"].count("%s") == {"existence": 1, "substitution": 2, "occurrence": 0}[spec["extends"]]
