"""The list of served models, in a file."""

from pathlib import Path

import pytest

from housing.core.errors import ConfigError
from housing.core.model_list import Limits, ModelList

RENTALS, TOWNS = "housing-rentals@staging", "housing-towns@production"


def write(file: Path, text: str) -> None:
    """Replace a file."""
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.rename(file)


def test_a_model_in_a_file_may_have_limits_which_may_change(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    write(file, f"- {RENTALS}\n- name: {TOWNS}\n  max_rows: 10\n")
    models = ModelList(str(file), "", tmp_path)
    assert models.folders == {RENTALS: tmp_path / RENTALS, TOWNS: tmp_path / TOWNS}
    assert models.limits == {RENTALS: Limits(), TOWNS: Limits(max_rows=10)}
    assert not models.refresh()
    write(file, f"- {{name: {RENTALS}, max_body: 5000}}\n- name: {TOWNS}\n  max_rows: 10\n")
    assert models.refresh()
    assert models.limits == {RENTALS: Limits(max_body=5000), TOWNS: Limits(max_rows=10)}


def test_names_without_a_file_have_no_limits(tmp_path: Path) -> None:
    assert ModelList(f"{RENTALS},{TOWNS}", "", tmp_path).limits == {RENTALS: Limits(), TOWNS: Limits()}
    alone = ModelList("", RENTALS, tmp_path)
    assert (alone.folders, alone.limits) == ({RENTALS: tmp_path}, {RENTALS: Limits()})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{max_rows: 10}", r"must be a list of at least one MODEL@ALIAS.*\(got \{'max_rows': 10\}\)"),
        (f"{{name: {RENTALS}}}", "each once"),
        (
            f"{{name: {TOWNS}, max_row: 10}}",
            rf"{TOWNS} may have the limits max_rows, max_body \(got 'max_row'\)\. Did you mean max_rows\?",
        ),
        (f"{{name: {TOWNS}, 1: 10}}", r"may have the limits max_rows, max_body \(got 1\)\.$"),
        (f"{{name: {TOWNS}, max_rows: 0}}", rf"{TOWNS}: max_rows must be a whole number, at least 1 \(got 0\)"),
        (f"{{name: {TOWNS}, max_body: true}}", r"max_body must be a whole number, at least 1 \(got True\)"),
        (f"{{name: {TOWNS}, max_body: 4MB}}", r"max_body must be a whole number, at least 1 \(got '4MB'\)"),
        (f"{{name: {TOWNS}, max_body: null}}", r"max_body must be a whole number, at least 1 \(got None\)"),
        (f"[{TOWNS}]", "must be a list of at least one MODEL@ALIAS"),
    ],
)
def test_an_invalid_entry_is_refused_and_the_list_stays(tmp_path: Path, model: str, message: str) -> None:
    file = tmp_path / "models.yaml"
    write(file, f"- {RENTALS}\n")
    models = ModelList(str(file), "", tmp_path)
    write(file, f"- {RENTALS}\n- {model}\n")
    with pytest.raises(ConfigError, match=message):
        models.refresh()
    assert models.limits == {RENTALS: Limits()}
    assert list(models.folders) == [RENTALS]
