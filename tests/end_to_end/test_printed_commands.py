"""Printed commands, pasted into a shell in a folder that is not the project's: from a file to reports, rows and a rollback."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing.core.environment import PROJECT
from tests.support.commands import CommandResult, command

QUICK = " features=none interval=none figures=false model=linear"  # added to a pasted housing.train: one fit without figures


class Shell:
    """A user's shell, in a folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "my work"
        self.folder.mkdir()

    def run(self, line: str) -> CommandResult:
        """Run a command line, which a real shell splits into words."""
        words = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {line}"], check=True, capture_output=True, text=True, cwd=self.folder
        ).stdout.split("\0")
        assert words[:2] == ["python", "-m"] and words[-1] == ""
        return command(self.home, *words[2:-1], cwd=self.folder, PYTHONPATH=str(PROJECT))

    def paste(self, text: str, name: str, more: str = "") -> CommandResult:
        """Run the only command line of `housing.<name>` in a text as it is printed, with `more` behind it."""
        (line,) = re.findall(rf"python -m housing\.{name}(?: .*?)?(?=\.?$)", text, flags=re.MULTILINE)
        assert "'--config-dir=my conf'" in line
        return self.run(line + more)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that stands once in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new), encoding="utf-8")


def write_houses(path: Path, rows: int = 120) -> None:
    """Write a table with semicolons, decimal commas, and names that a shell would split."""
    random = np.random.default_rng(0)
    size, kind = random.uniform(1, 99, rows).round(1), random.choice(["old", "new"], rows)
    price = (3 * size + 20 * (kind == "new") + random.normal(0, 30, rows)).round(2)
    frame = pd.DataFrame({"order id": [f"A-{row:04d}" for row in range(rows)], "size, m": size, "kind": kind, "price €": price})
    frame.to_csv(path, sep=";", decimal=",", index=False)


def describe(shell: Shell) -> str:
    """Describe the table with the commands that are printed, and return the last output."""
    listed = shell.run("""python -m housing.describe --config-dir='my conf' file='"my houses.csv"' read.header=first name=t""")
    (line,) = re.findall(r"^ *(python -m housing.describe .*) target=\.\.\.$", listed.out, flags=re.MULTILINE)
    (target,) = re.findall(r"^ *(\S*target=.*price €.*?)  ", listed.out, flags=re.MULTILINE)
    assert "read.header=first" in line and "name=t" in line
    described = shell.run(f"{line} {target}")
    assert described.code == 0, described.err
    return described.out


def break_and_repair(declared: Path, shell: Shell, described: str) -> None:
    """Declare a wrong delimiter and leave a column out, and do what the errors say."""
    edit(declared, "delimiter: ';'", "delimiter: ','")
    (delimiter,) = re.findall(r"set read.delimiter to (.*) in", shell.paste(described, "train", QUICK).err)
    edit(declared, "delimiter: ','", f"delimiter: {delimiter}")
    edit(declared, "  kind: {type: category, categories: [new, old]}", "")
    (entry,) = re.findall(r"add to columns: (.*)$", shell.paste(described, "train", QUICK).err, flags=re.MULTILINE)
    edit(declared, "columns:\n", f"columns:\n  {entry}\n")


@pytest.mark.long
def test_each_printed_command_works_as_printed(home: Path) -> None:
    shell = Shell(home)
    table, folder = shell.folder / "my houses.csv", shell.folder / "my conf"
    folder.mkdir()
    write_houses(table)
    described = describe(shell)

    unpromoted = shell.run(f"python -m housing.predict --config-dir='my conf' data=t file='{table.name}' out=o.csv")
    untrained = shell.paste(unpromoted.err, "promote")
    break_and_repair(folder / "data" / "t.yaml", shell, described)
    swept = shell.paste(untrained.err, "train", f"{QUICK},mean")
    trained = shell.paste(described, "train", QUICK)
    assert trained.code == swept.code == 0, trained.err
    assert "reused" in trained.out

    for fitted in (swept, trained):
        held = shell.paste(fitted.out, "promote", " gate.smoke_test_seconds=null")
        assert held.out.startswith("HOLD") and "gate.min_rows" in held.out, held.err
    promoted = shell.paste(held.out, "promote", " gate.smoke_test_seconds=null")
    assert "staging is version 1 (moved)" in promoted.out, promoted.err

    asked = shell.run("python -m housing.report --config-dir='my conf' data=t")
    assert "has no run ID" in shell.paste(asked.err, "report").err
    ingested = shell.run(f"python -m housing.ingest --config-dir='my conf' data=t file='{table.name}'")
    assert ingested.code == 0, ingested.err
    table.rename(shell.folder / "moved.csv")
    missing = shell.run("python -m housing.train --config-dir='my conf' data=t")
    assert "has no source. Put the file there" in shell.paste(missing.err, "fetch").err
