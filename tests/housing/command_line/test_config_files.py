"""Config files with mistakes: the message names the file, where in it, and what to write instead."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import command, user_error
from tests.support.tables import TABLES

RENTALS = (TABLES / "data" / "rentals.yaml").read_text(encoding="utf-8")
TABLE = """name: flats
description: Flats
path: ${paths.data}/rentals.csv
columns:
  area: {type: float}
  quarter: {type: category, categories: [old town, harbour, hills]}
  rent: {type: float, role: target}
"""


def changed(old: str, new: str) -> bytes:
    """Return the table's config with one change."""
    assert TABLE.count(old) == 1
    return TABLE.replace(old, new).encode()


# that Hydra finds
UNREADABLE = {
    "tab": (changed("  quarter", "\tquarter"), "line 6, column 1: YAML allows no tab here. Indent with spaces."),
    "bracket": (
        changed("hills]", "hills"),
        "line 6, column 66: A bracket is not closed, or a comma is missing. It was opened in",
    ),
    "quote": (changed("Flats", "'Flats"), "A quote is not closed. It was opened in line 2, column 14."),
    "apostrophe": (changed("Flats", "'Bob's flats'"), "line 2, column 19: Text follows a closing quote."),
    "duplicate": (changed("  quarter", "  area: {type: int}\n  quarter"), "line 6, column 3: A name is there twice."),
    "deeper": (changed("  quarter", "   quarter"), "line 6, column 4: The indentation does not match."),
    "shallower": (changed("  quarter", " quarter"), "line 6, column 2: The indentation does not match."),
    "colon in text": (changed("Flats", "Flats: all"), "line 2, column 19: A colon is not allowed here."),
    "no space": (changed("name: ", "name:"), "line 2, column 12: A colon is not allowed here."),
    "no colon": (changed("columns:", "columns"), "A name has no colon. Write NAME: VALUE."),
    "at": (changed("Flats", "@flats"), "line 2, column 14: Text that starts with this character needs quotes."),
    "star": (changed("Flats", "*flats"), "line 2, column 14: Text that starts with * needs quotes."),
    "exclamation": (changed("Flats", "!flats"), "line 2, column 14: Text that starts with ! needs quotes."),
    "two documents": (
        TABLE.encode() + b"---\nname: b\n",
        "line 8, column 1: A config file is one document. Remove the line ---.",
    ),
    "Latin-1": (TABLE.replace("Flats", "Häuser").encode("latin-1"), "line 2, column 15: Byte 0xe4 is not UTF-8."),
    "UTF-16": (TABLE.encode("utf-16-le").join((b"\xff\xfe", b"")), "line 1, column 1: Byte 0xff is not UTF-8."),
    "control character": (changed("Flats", "Fl\x07ats"), r"line 2, column 16: YAML does not allow the character '\x07'."),
    "open reference": (
        changed("Flats", "'${price USD'"),
        "A reference ${NAME} in description is not closed. If it is meant as text",
    ),
    "null": (changed("  quarter", "  null"), "A name below columns is empty or null. Put it in quotes: 'null'"),
    "defaults": (b"defaults: 3\n" + TABLE.encode(), "Invalid defaults list in 'data/flats', defaults must be a list (got int)."),
}
# that the command finds
UNUSABLE = {
    "empty": (b"", "is empty. Expected a mapping: lines of NAME: VALUE."),
    "comment": (b"# later\n", "is empty. Expected a mapping: lines of NAME: VALUE."),
    "list": (b"- name: flats\n", "holds a list. Expected a mapping: lines of NAME: VALUE."),
    "text": (b"flats\n", "holds no names. Expected a mapping: lines of NAME: VALUE."),
    "no name": (changed("name: flats\n", ""), "data.name is missing in "),
    "no path": (changed("path: ${paths.data}/rentals.csv\n", ""), "data.path is missing in "),
    "reference": (changed("${paths.data}", "${paths.dat}"), "flats.yaml refers to ${paths.dat}, which the config does not have."),
    "category": (changed("old town", "'${old}'"), "data.columns.quarter.categories[0] in "),
    "resolver": (
        changed("Flats", "'${price:USD} a month'"),
        "has a reference that cannot be resolved: Unsupported interpolation type",
    ),
    "escaped reference": (
        changed("Flats", r"'\${price}'"),
        "Table flats: text in its config must not contain ${ (got '${price}').",
    ),
    "true": (changed("  quarter", "  true"), "YAML reads the name of a column as True (bool)."),
    "list of products": (
        TABLE.encode() + b"derived_products: []\n",
        "derived_products must be a mapping: lines of NAME: VALUE (got []).",
    ),
    "text of slices": (
        TABLE.encode() + b"slice_columns: area\n",
        "slice_columns must be a list of column names, such as [area] (got 'area').",
    ),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_hydra_cannot_read_is_explained(
    content: bytes, message: str, home: Path, refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "conf" / "data" / "flats.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    monkeypatch.chdir(home)
    error = refuse("train", "--config-dir=conf", "data=flats")
    assert message in error
    assert "conf/data/flats.yaml" in error or "data/flats" in error


@pytest.mark.parametrize(("content", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_declares_no_table_is_explained(content: bytes, message: str, home: Path) -> None:
    file = home / "conf" / "data" / "flats.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    result = command(home, "housing.train", "--config-dir=conf", "data=flats", "model=linear", "features=none", cwd=home)
    error = user_error(result)
    assert message in error


def test_a_mistake_in_any_config_file_is_explained(home: Path) -> None:
    file = home / "conf" / "model" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("name: mine\nestimator:\n\t_target_: sklearn.linear_model.Ridge\n", encoding="utf-8")
    error = user_error(command(home, "housing.train", "--config-dir=conf", "data=synthetic", "model=mine", cwd=home))
    assert error.startswith(
        "conf/model/mine.yaml, line 3, column 1: YAML allows no tab here. Indent with spaces.\n    \\t_target_: "
    )


def test_an_unreadable_file_of_another_table_does_not_matter(home: Path) -> None:
    data = home / "conf" / "data"
    data.mkdir(parents=True)
    (data / "flats.yaml").write_text(RENTALS.replace("rentals.csv", "missing.csv"), encoding="utf-8")
    (data / "broken.yaml").write_text("a: [", encoding="utf-8")
    (data / "latin.yaml").write_bytes(b"name: \xe4\n")
    error = user_error(command(home, "housing.train", "--config-dir=conf", "data=flats", cwd=home))
    assert "missing.csv does not exist. Get it with: python -m housing.fetch --config-dir=conf data=flats" in error
