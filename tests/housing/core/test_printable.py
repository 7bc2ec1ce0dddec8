"""Foreign text in terminals and logs: control characters are escapes, and no message can pretend to be another."""

import json
import logging
import subprocess
import sys
import unicodedata

import pytest

from housing.core.environment import PROJECT
from housing.core.printable import PrintableFormatter, hide_password, printable

BIDIRECTIONAL = {"BN", "LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # classes of Unicode that reorder text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("50%\rdone", r"50%\x0ddone"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\u009b31m"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("a\u2028b\x7f\x85", r"a\u2028b\u007f\u0085"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("Zürich 東京 עברית 🏠 [red] C:\\x1b", "Zürich 東京 עברית 🏠 [red] C:\\x1b"),
    ],
)
def test_control_characters_are_escaped_and_letters_are_not(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_all_control_characters_of_unicode_are_escaped() -> None:
    for code in range(0x3000):
        char = chr(code)
        if unicodedata.category(char) in ("Cc", "Zl", "Zp") and char not in "\t\n":
            assert printable(char).isascii() and printable(char).isprintable(), hex(code)
        if unicodedata.bidirectional(char) in BIDIRECTIONAL - {"BN"}:
            assert printable(char).isascii(), hex(code)


def test_json_stays_json() -> None:
    text = "".join(map(chr, (*range(0x100), 0x202E)))
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


def test_a_log_message_of_several_lines_is_indented() -> None:
    record = logging.makeLogRecord({"msg": "run %s", "args": ("a\nERROR forged \x1b[31m",)})
    assert PrintableFormatter("%(message)s").format(record) == "run a\n    ERROR forged \\x1b[31m"


@pytest.mark.parametrize(
    "code",
    [
        r"raise ValueError('one \x1b[31m two')",
        r"import sys; sys.exit('one \x1b[31m two')",
        r"import warnings; warnings.warn('one \x1b[31m two')",
        r"import logging; logging.error('one \x1b[31m two')",
        r"import sys; print('one \x1b[31m two', file=sys.stderr)",
        r"import sys; sys.stderr.writelines(['one \x1b[31m', ' two'])",
        r"escape_stderr(); print('one \x1b[31m two \udcff', file=__import__('sys').stderr)",
    ],
)
def test_stderr_shows_control_characters_as_escapes(code: str) -> None:
    start = "from housing.core.printable import escape_stderr; escape_stderr()"
    process = subprocess.run([sys.executable, "-c", f"{start}\n{code}"], cwd=PROJECT, capture_output=True, check=False)
    assert rb"one \x1b[31m two" in process.stderr
    assert b"\x1b" not in process.stderr


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://user:secret@host:5432/name", "postgresql://user:***@host:5432/name"),
        ("postgresql+psycopg2://user:se:cret@host/name", "postgresql+psycopg2://user:***@host/name"),
        ("no driver for http://:secret@host and http://a:secret@b", "no driver for http://:***@host and http://a:***@b"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_a_password_in_an_address_is_hidden(uri: str, shown: str) -> None:
    assert hide_password(uri) == shown
