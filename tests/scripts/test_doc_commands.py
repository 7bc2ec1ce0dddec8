"""Commands in the documentation that no test runs: their commands, scripts, options and choices exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from housing.core.config import CONF
from housing.core.environment import PROJECT
from tests.support import code_blocks

PAGES = [*code_blocks.pages(), *sorted((PROJECT / "docs" / "explanation").glob("*.md")), PROJECT / "CONTRIBUTING.md"]
LANGUAGES = ("text", "")  # test_scripts.py runs the blocks in `sh`
OPTION_GROUPS = {"serve": "registry", "gate": "promote", "drift": "ingest"}  # a prefix of options, and a command that has them
NEXT_COMMAND = re.compile(r"\s(?:&&|>>|[|>&])\s?|\s{3,}")


def lines(prefix: str) -> Iterator[tuple[Path, str]]:
    """Yield each command in the documentation that starts with `prefix`, with its page."""
    for page in PAGES:
        for line in code_blocks.commands(page, *LANGUAGES):
            for command in NEXT_COMMAND.split(line):
                if command.startswith(prefix):
                    yield page, command


@pytest.fixture(scope="module")
def config_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config files that the documentation shows."""
    folder = tmp_path_factory.mktemp("config")
    for page in PAGES:
        for name, content in code_blocks.files(page).items():
            path = folder / Path(*Path(name).parts[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", sorted({command for _, command in lines("python -m housing.")}))
def test_config_of_a_command_composes(command: str, config_dir: Path) -> None:
    _, _, module, *arguments = shlex.split(command)
    name = module.removeprefix("housing.")
    overrides = [argument for argument in arguments if not argument.startswith("-") and argument != "job"]
    parsed = OverridesParser.create().parse_overrides(overrides)
    with initialize_config_dir(CONF, version_base="1.3"):
        assert compose(name, [f"hydra.searchpath=[file://{config_dir}]", *map(_first_value, parsed)])


def _first_value(override: Override) -> str:
    """Return an override without its sweep: with the first of its values."""
    text = override.input_line
    assert text is not None
    if not override.is_sweep_override():
        return text
    return f"{text.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"


@pytest.mark.parametrize("path", sorted({command.split()[0] for _, command in lines("./scripts/")}))
def test_script_exists(path: str) -> None:
    assert (PROJECT / path).is_file()


@pytest.mark.parametrize("module", sorted({command.split()[2] for _, command in lines("python -m server.")}))
def test_module_of_the_server_exists(module: str) -> None:
    assert (PROJECT / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("prefix", OPTION_GROUPS)
def test_options_in_the_text_exist(prefix: str) -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        options: Any = OmegaConf.to_container(compose(OPTION_GROUPS[prefix])[prefix])
    for page in PAGES:
        names = set(re.findall(rf"(?<![\w./-]){prefix}\.(\w+)", page.read_text(encoding="utf-8")))
        assert names <= {*options, "txt", "yaml"}, page


def test_changelog_names_options_that_exist() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = text.partition("### Options and config keys")[2].partition("\n\n|")[2].partition("\n\n")[0]
    current = {name for row in section.splitlines()[2:] for name in re.findall(r"`([\w.]+)", row.split("|")[-2])}
    files = [path.read_text(encoding="utf-8") for path in Path(CONF).rglob("*.yaml")]
    keys = set(re.findall(r"\w+(?=:)|(?<=@)\w+", "\n".join(files)))  # `@` begins a group in the defaults list
    assert len(current) > 50
    assert {name for name in current if name.rpartition(".")[2] not in keys} == set()
