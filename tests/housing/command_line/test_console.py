"""Foreign text on a terminal: shown literally by every command, since all of them print through one module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import RenderableType
from rich.table import Table

from housing.command_line.console import FILE_WIDTH, clipped_line, create_console
from housing.core.environment import PROJECT
from housing.promotion.promotion import promote
from tests.support.commands import command
from tests.support.promotions import BETTER
from tests.support.tables import RENTALS_DATA, config, train

EVIL = "[red]eve[/red] [link=https://evil.example]click[/link] :bomb: \x1b[2J\r\u202e"
SHOWN = r"[red]eve[/red] [link=https://evil.example]click[/link] :bomb: \x1b[2J\x0d\u202e"
DOORS = {  # what only these modules may use: all output goes through them
    "print": {"core/printable.py"},
    "Console": {"command_line/console.py"},
    "Text": {"command_line/console.py"},
    "from_markup": set[str](),
    "StreamHandler": {"core/printable.py"},
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a module with the name of what is called; of methods, only those of a class with a capital."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id, node
            elif isinstance(node.func, ast.Attribute) and node.func.attr != "print":
                yield node.func.attr, node


def writes_to_stderr(call: ast.Call) -> bool:
    """Return whether a call is `print(..., file=sys.stderr)`: commands escape all of stderr."""
    return any(keyword.arg == "file" and ast.unparse(keyword.value) == "sys.stderr" for keyword in call.keywords)


def test_all_output_goes_through_the_modules_that_escape() -> None:
    offenders = [
        f"{path.relative_to(PROJECT)}:{call.lineno} calls {name}"
        for folder in ("housing", "hydra_plugins")
        for path in sorted((PROJECT / folder).rglob("*.py"))
        for name, call in calls(path)
        if name in DOORS and str(path.relative_to(PROJECT / folder)) not in DOORS[name] and not writes_to_stderr(call)
    ]
    assert not offenders, f"print foreign text with housing.core.printable.show or create_console: {offenders}"


def _table() -> Table:
    grid = Table(title=EVIL, caption=EVIL)
    grid.add_column(EVIL)
    grid.add_row(EVIL)
    return grid


@pytest.mark.parametrize("renderable", [EVIL, _table(), clipped_line(EVIL, style="")])
@pytest.mark.parametrize("color", ["", "1"])
def test_a_console_shows_foreign_text_literally(
    renderable: RenderableType, color: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    create_console().print(renderable)
    text = capsys.readouterr().out
    assert text.count(SHOWN) == (4 if isinstance(renderable, Table) else 1)
    assert "\x1b[2J" not in text and "\r" not in text and "\u202e" not in text and "\x1b]8" not in text


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_leaves_no_escape_code(
    no_color: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    create_console().print(clipped_line("text", style="bold red"))
    assert ("\x1b[" in capsys.readouterr().out) == (not no_color)


def test_lines_of_redirected_output_end_without_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    grid = Table("name", "value", box=None)
    grid.add_row("rmse", "1")
    create_console().print(grid)
    assert capsys.readouterr().out == " name  value\n rmse  1\n"


@pytest.mark.parametrize("color", ["", "1"])
def test_a_decision_shows_who_made_it_literally(home: Path, color: str) -> None:
    train(home, *BETTER)
    assert promote(config("promote", "data=rentals", f'actor="{EVIL}"')).verdict == "PROMOTE"
    result = command(home, "housing.history", *RENTALS_DATA[:2], FORCE_COLOR=color, TERM="xterm", COLUMNS="300")
    assert {"[red]eve[/red]", ":bomb:"} <= set(result.out.split()), result
    assert r"\x1b[2J" in result.out and r"\u202e" in result.out
    assert "\x1b[2J" not in result.out and "\r" not in result.out and "\u202e" not in result.out


def test_a_file_and_its_values_are_shown_literally(home: Path) -> None:
    file = home / "[red]new\x1b[2J.csv"
    file.write_text("area,rooms,furnished,quarter,built,rent\n50,2,True,[red]moon\x1b[2J,1950,900\n", encoding="utf-8")
    result = command(home, "housing.ingest", RENTALS_DATA[0], "data=rentals", f'file="{file}"')
    assert result.code == 1
    assert r"[red]new\x1b[2J.csv" in result.out and r"[red]new\x1b[2J.csv" in result.err
    assert r"[red]moon\x1b[2J" in result.out
    assert "\x1b" not in result.out + result.err


def test_a_unit_in_brackets_is_shown(home: Path) -> None:
    result = command(home, "housing.train", *RENTALS_DATA, "model=linear", "figures=false", 'data.columns.rent.unit="[EUR]"')
    assert result.code == 0, result.err
    assert "([EUR])" in result.out


@pytest.mark.parametrize(("columns", "width"), [("", FILE_WIDTH), ("100", 100), ("200", 200), ("wide", FILE_WIDTH)])
def test_redirected_output_has_a_fixed_width_or_that_of_the_environment(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert create_console().width == width
