"""Config files that cannot be used: which file, where in it, what is wrong, and how to write it instead."""

import io
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, KeyValidationError, OmegaConfBaseException

from housing.core.config import read_yaml
from housing.core.files import short_path

AS_TEXT = "If it is meant as text, write it without ${."
MAX_LINE = 100  # characters that are shown of a line
# What to do, by a part of PyYAML's description of the problem. PyYAML names the symptom, which is often not where the mistake is.
ADVICE = {
    "found character '\\t'": "YAML allows no tab here. Indent with spaces",
    "found duplicate key": "A name is there twice. Remove one of them",
    "expected ',' or": "A bracket is not closed, or a comma is missing",
    "found '<block mapping start>'": "The indentation does not match. Names of one level start in the same column",
    "found '<scalar>'": "Text follows a closing quote. Write a quote within single quotes twice: 'Bob''s'",
    "found '?'": "The indentation does not match. A list and a name cannot start in the same column",
    "found '-'": "The indentation does not match. A list and a name cannot start in the same column",
    "mapping values are not allowed": "A colon is not allowed here. Write a space behind the colon of each name, indent"
    " names of one level alike, and put text with a colon in quotes",
    "could not find expected ':'": "A name has no colon. Write NAME: VALUE",
    "cannot start any token": "Text that starts with this character needs quotes",
    "undefined alias": "Text that starts with * needs quotes",
    "could not determine a constructor": "Text that starts with ! needs quotes",
    "found another document": "A config file is one document. Remove the line ---",
    "unexpected end of stream": "A quote is not closed",
    "unknown escape character": "A backslash in double quotes needs a second one. Use single quotes instead",
}


def describe_fault(path: Path) -> str | None:
    """Return why a config file cannot be read, with line and column, or None if it can."""
    content, text = b"", ""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
        OmegaConf.load(io.StringIO(text))
    except UnicodeDecodeError as error:
        readable = content[: error.start].decode("utf-8")
        return _sentence(path, f"Byte {content[error.start]:#04x} is not UTF-8. Save the file as UTF-8", readable, len(readable))
    except yaml.MarkedYAMLError as error:
        return _describe_yaml(path, text, error)
    except yaml.reader.ReaderError as error:
        return _sentence(path, f"YAML does not allow the character {chr(error.character)!r}. Remove it", text, error.position)
    except (OmegaConfBaseException, OSError, ValueError) as error:
        return f"{short_path(path)}: {_describe_value(error)}"
    return None


def _describe_value(error: Exception) -> str:
    if isinstance(error, KeyValidationError):
        return f"A name below {error.full_key} is empty or null. Put it in quotes: 'null'"
    if isinstance(error, GrammarParseError):
        return f"A reference ${{NAME}} in {error.full_key} is not closed. {AS_TEXT}"
    return one_line(error)


def describe_content(path: Path) -> str | None:
    """Return why a readable config file declares nothing, or None if it is a mapping."""
    config = read_yaml(path)
    if isinstance(config, dict):
        return None
    content = "is empty" if config is None else "holds a list" if isinstance(config, list) else "holds no names"
    return f"{short_path(path)} {content}. Expected a mapping: lines of NAME: VALUE."


def one_line(error: Exception) -> str:
    """Return the first line of an error's message, and the key that it is about."""
    key = getattr(error, "full_key", None)
    return str(error).strip().partition("\n")[0].strip(". ") + (f" ({key})." if key else ".")


def _describe_yaml(path: Path, text: str, error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem).split())
    advice = next((advice for part, advice in ADVICE.items() if part in problem), problem)
    if error.context_mark is not None and "not closed" in advice:
        advice += f". It was opened in line {error.context_mark.line + 1}, column {error.context_mark.column + 1}"
    assert error.problem_mark is not None  # PyYAML sets it whenever it reads
    return _sentence(path, advice, text, error.problem_mark.index)


def _sentence(path: Path, advice: str, text: str, index: int) -> str:
    """Return the place of a character in a file, what to do, and the line."""
    before = text[:index]
    line, column = before.count("\n"), index - (before.rfind("\n") + 1)
    shown = "".join(_visible(character) for character in text.split("\n")[line][:MAX_LINE])
    return f"{short_path(path)}, line {line + 1}, column {column + 1}: {advice}." + (f"\n    {shown}" if shown.strip() else "")


def _visible(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]
