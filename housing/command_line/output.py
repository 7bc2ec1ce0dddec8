"""Output for programs: with output=json, a command writes one JSON document to standard output, and all else to stderr."""

import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from housing.core.errors import TableError, Violation

OPTION, TEXT, JSON = "output", "text", "json"
DESCRIPTION = "text, or json: one JSON document on standard output; progress and messages go to stderr"
ERROR_PREFIX = "error: "
STDOUT, STDERR = 1, 2  # file descriptors
MAX_VIOLATIONS = 1000  # of a table, in the document


@dataclass(frozen=True)
class Result:
    """The result of a command.

    Attributes
    ----------
    document
        A dataclass for programs, the member `result` of the document.
    exit_code
        The exit code of the command.
    objective
        What a sweeper of Hydra minimizes.
    """

    document: Any
    exit_code: int = 0
    objective: float | None = None


@dataclass(frozen=True)
class Failure:
    """The error that ended a command.

    Attributes
    ----------
    type
        The class of the error, as the page on exit codes lists them, or that of an unexpected exception.
    message
        What failed, and how to fix it.
    violations
        The values of a table that its schema does not allow, at most 1,000.
    """

    type: str
    message: str
    violations: Sequence[Violation] = field(default_factory=list)


class Document:
    """The document of the running command. It is written once, at the latest when the command ends."""

    current: "Document | None" = None

    def __init__(self, command: str) -> None:
        self.command = command
        self.result: Any = None
        self.failure: Failure | None = None
        self._descriptor: int | None = os.dup(STDOUT)

    def write(self, exit_code: int) -> None:
        """Write the document, unless it is written already. Exit without a message if nobody reads it."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        content = {"command": self.command, "exit_code": exit_code, "result": self.result, "error": self.failure}
        text = json.dumps(to_json_value(content), indent=2, allow_nan=False)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except BrokenPipeError:
            sys.exit(128 + signal.SIGPIPE)


def take_format(words: Sequence[str]) -> tuple[bool, list[str]]:
    """Return whether a command line asks for a JSON document, and its other words: the format is no part of an experiment."""
    chosen = [word.partition("=")[2] for word in words if word.startswith(f"{OPTION}=")]
    unknown = [value for value in chosen if value not in (TEXT, JSON)]
    if unknown:
        sys.exit(f"{ERROR_PREFIX}{OPTION} must be {TEXT} or {JSON} (got {unknown[0]!r}).")
    return chosen[-1:] == [JSON], [word for word in words if not word.startswith(f"{OPTION}=")]


@contextmanager
def one_document(command: str) -> Iterator[None]:
    """Write the document of a command when the block ends. Until then, whatever is printed goes to stderr.

    This holds for subprocesses and compiled libraries too, since the file descriptor itself is redirected.
    """
    sys.stdout.flush()
    document = Document.current = Document(command)
    os.dup2(STDERR, STDOUT)
    code = 0
    try:
        yield
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str) and document.failure is None:
            document.failure = Failure("HousingError", error.code.removeprefix(ERROR_PREFIX))
        elif code and document.failure is None and document.result is None:  # argparse prints what it refuses, and exits
            document.failure = Failure("SystemExit", f"The command ended with exit code {code}. Its output on stderr says why.")
        raise
    except KeyboardInterrupt:
        code, document.failure = 128 + signal.SIGINT, Failure("KeyboardInterrupt", "Interrupted.")
        raise
    except BaseException as error:
        code = 1
        set_error(error)
        raise
    finally:
        sys.stdout.flush()
        if code > 128 and document.failure is None:
            document.failure = Failure("Interrupted", f"Ended by signal {code - 128}.")
        document.write(code)


def set_result(result: Any) -> None:
    """Keep the result of the running command for its document, if one is asked for."""
    if Document.current is not None:
        Document.current.result = result


def set_error(error: BaseException) -> None:
    """Keep the error that ends the running command for its document, if one is asked for."""
    if Document.current is not None:
        violations = error.violations[:MAX_VIOLATIONS] if isinstance(error, TableError) else []
        Document.current.failure = Failure(type(error).__name__, str(error), violations)


def write_result(result: Any) -> None:
    """Write the document now, if one is asked for: the command starts something that lasts."""
    set_result(result)
    if Document.current is not None:
        Document.current.write(0)


def exit_with(error: Exception, code: int = 1) -> NoReturn:
    """Print an error that a user can fix, and exit."""
    set_error(error)
    print(f"{ERROR_PREFIX}{error}", file=sys.stderr)
    sys.exit(code)


def to_json_value(value: Any) -> Any:
    """Return a result as JSON values: dataclasses as objects, times in ISO format, and null for a number that is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_json_value(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(member) for member in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime | Path):
        return value.isoformat() if isinstance(value, datetime) else str(value)
    raise TypeError(f"Expected a value of JSON, a dataclass, a time or a path (got {type(value).__name__}).")
