"""Printable text: control characters of names, tags, values and error messages are shown as escapes.

Text of tables, requests and MLflow's store could otherwise move the cursor, change colours, rename the window of a
terminal, reverse the reading direction, or pretend to be another line of a log.
"""

import io
import logging
import re
import sys

# All control characters but tab and newline, the marks of reading direction, Unicode's line separators, and surrogates.
CONTROL_PATTERN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
PASSWORD_PATTERN = re.compile(r"(://[^/@:\s]*):[^/@\s]*@")
CONTINUATION = "\n    "  # a log message with several lines: no later line starts where a message starts


def printable(text: str) -> str:
    r"""Return text with its control characters as escapes: `\x1b` for ASCII, else `\u202e`. Tabs and newlines stay.

    JSON stays JSON, because JSON has the control characters of ASCII escaped already.
    """
    return CONTROL_PATTERN.sub(lambda match: _escape(ord(match[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"


def hide_password(uri: str) -> str:
    """Return an address without the password in it, as `postgresql://user:***@host/name`."""
    return PASSWORD_PATTERN.sub(r"\1:***@", uri)


def show(text: str) -> None:
    """Print a line that can contain foreign text."""
    print(printable(text), flush=True)


def show_over(text: str) -> None:
    """Print a text that can be foreign over the current line, without a new one."""
    print(f"\r{printable(text)}", end="", flush=True)


class PrintableFormatter(logging.Formatter):
    """Format log messages and tracebacks with escaped control characters, and indent their lines after the first."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable(super().format(record)).replace("\n", CONTINUATION)


class _PrintableStream(io.TextIOWrapper):
    """A text stream that escapes control characters. It is no terminal, so that no library writes colours to it."""

    def write(self, text: str, /) -> int:
        return super().write(printable(text))

    def isatty(self) -> bool:
        return False


def escape_stderr() -> None:
    """Escape control characters in all that this process writes to stderr: errors, tracebacks, warnings and logs."""
    if not isinstance(sys.stderr, _PrintableStream):
        sys.stderr = _PrintableStream(sys.stderr.buffer, sys.stderr.encoding, errors="backslashreplace", write_through=True)


def configure_logging(line_format: str) -> None:
    """Write log messages from level WARNING on to stderr, and escape whatever else is written there."""
    escape_stderr()
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter(line_format))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
