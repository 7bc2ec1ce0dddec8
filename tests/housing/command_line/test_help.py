"""The help of the commands: complete, narrow and plain, because it is made from the comments in conf/."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from housing.command_line import help as command_help
from housing.core.config import CONF

COMMANDS = command_help.command_names()
FILES = sorted(Path(CONF).glob("*.yaml"))
PRESETS = ("debug", "experiment", "search")  # they change keys of other files, which describe them
GROUPS = sorted({path.parent for path in Path(CONF).rglob("*.yaml")} - {Path(CONF)} - {Path(CONF) / name for name in PRESETS})


HEAVY = {"matplotlib", "mlflow", "onnxruntime", "pandas", "scipy", "sklearn", "xgboost"}
SEPARATOR = "=== "
PRINT_ALL = """
import runpy, sys
for command in sys.argv[1:]:
    print("=== " + command)
    sys.argv = [command, "--help"]
    try:
        runpy.run_module("housing." + command, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        assert not error.code, command
print("=== modules", *sys.modules, sep="\\n")
"""


@cache
def printed_by_all() -> dict[str, str]:
    """Return what `--help` of each command prints to a pipe; one process starts them all, as imports take seconds."""
    process = subprocess.run(
        [sys.executable, "-c", PRINT_ALL, *COMMANDS], capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr
    texts = (part.partition("\n") for part in process.stdout.split(SEPARATOR)[1:])
    return {name: text for name, _, text in texts}


def printed(command: str) -> str:
    """Return the help of one command."""
    return printed_by_all()[command]


def test_commands_are_those_that_hydra_can_start() -> None:
    started = {path.stem for path in FILES if '@command("' in _module_text(path.stem)}
    assert started == set(COMMANDS)


def _module_text(name: str) -> str:
    module = Path(CONF).parent / "housing" / f"{name}.py"
    return module.read_text(encoding="utf-8") if module.is_file() else ""


def test_help_imports_no_slow_library() -> None:
    assert not HEAVY & {name.partition(".")[0] for name in printed("modules").splitlines()}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_the_purpose_the_usage_and_a_line_for_each_option_of_the_command(command: str) -> None:
    text = printed(command)
    assert text.startswith(f"python -m housing.{command}: ")
    assert f"\nUsage: python -m housing.{command} " in text
    file = command_help.read(Path(CONF) / f"{command}.yaml")
    for option in file.options:
        mark = ".*" if option.is_branch else "="
        if option.description or not option.is_branch:
            assert re.search(rf"^  {re.escape(option.name + mark)}", text, re.MULTILINE), option.name
        assert " ".join(option.description.split()) in " ".join(text.split()), option.name


@pytest.mark.parametrize("command", [command for command in COMMANDS if "data" in command_help.keys(command)])
def test_help_names_every_choice_of_every_group_it_mentions(command: str) -> None:
    text = printed(command)
    for group in ("data", "mlflow"):
        assert re.search(rf"^  {group}=\w+", text, re.MULTILINE)
    for path in (Path(CONF) / "data").glob("*.yaml"):
        assert path.stem in text.partition("Config groups:")[2]


def test_help_of_a_sweep_names_launchers_and_sweepers() -> None:
    groups = " ".join(printed("train").partition("Config groups:")[2].split())
    assert re.search(r"hydra/launcher=basic [^=]*basic, dask, dask_slurm, processes, slurm", groups)
    assert re.search(r"hydra/sweeper=basic [^=]*basic, search", groups)
    assert "hydra/launcher" not in printed("promote")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_without_escape_codes(command: str) -> None:
    text = printed(command)
    assert max(map(len, text.splitlines())) <= command_help.WIDTH
    assert text.isascii() and "\x1b" not in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_and_every_group_of_a_command_has_a_comment(path: Path) -> None:
    file = command_help.read(path)
    assert not [option.name for option in file.options if not option.description and not option.is_branch]
    assert not [group.name for group in file.groups if not group.description]


@pytest.mark.parametrize("folder", GROUPS, ids=lambda folder: str(folder.relative_to(CONF)))
def test_every_key_of_a_config_group_has_a_comment_in_one_of_its_files(folder: Path) -> None:
    options = [option for path in folder.glob("*.yaml") for option in command_help.read(path).options if "." not in option.name]
    described = {option.name for option in options if option.description}
    assert {option.name for option in options if not option.is_branch} <= described | {"_target_"}


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("key: 1  # behind\n", "behind"),
        ("key: '#1'  # behind # and more\n", "behind # and more"),
        ("other: 0\n# above,\n# in two lines\nkey: 1\n", "above, in two lines"),
        ("other: 0\n# of another\n\nkey: 1\n", ""),
        ("# header\nkey: 1\n", ""),
        ("key:  # of a branch\n  nested: 1\n", "of a branch"),
        ("key: {a: 1,\n  b: 2}  # behind the end\n", "behind the end"),
    ],
)
def test_a_comment_describes_the_key_before_it_or_below_it(text: str, description: str, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    assert next(option for option in command_help.read(path).options if option.name == "key").description == description
