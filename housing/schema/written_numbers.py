"""Numbers as text: plain ones, and written ones such as "80,000", "$1,200", "(1,200)", "12 %", "45,000 kms" or "1.200,50 €"."""

import re
from dataclasses import dataclass

PLAIN_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
PLAIN_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)

# Digits in groups of three or without groups, and a fraction, between a currency or unit without digits. In India, the groups
# before the last one have two digits.
DIGITS = r"\d{1,3}(?P<group>[,'\u2019 \u00a0\u202f])(\d{2,3}(?P=group))*\d{3}|\d+"
PATTERN = re.compile(
    rf"(?P<sign>[+-]?)(?P<prefix>[^\d.,+-]*)(?P<inner_sign>[+-]?)\s?(?P<number>({DIGITS})(\.\d+)?)"
    r"(?P<suffix>[^\d.,+-]*)(?P<end_sign>-?)",
    re.ASCII,
)
IN_PARENTHESES = re.compile(r"\((.*)\)")  # how accounts write a number below 0
SWAPPED_SIGNS = str.maketrans(".,", ",.")
MULTIPLIERS = {"k", "m", "mn", "mio", "b", "bn", "thousand", "million", "billion", "lakh", "lac", "crore", "cr"}
PARSES = ("number", "decimal_comma")  # how numbers are written: as 1,200.5 or as 1.200,5


@dataclass(frozen=True)
class WrittenNumber:
    """The number in a text, and the currency or unit before and behind it."""

    value: float
    prefix: str
    suffix: str


def parse_written_number(text: str, parse: str = "number") -> float | None:
    """Return the number in a text, or None if there is not exactly one. A percentage is not divided by 100.

    A text with a multiplier, such as "12k", has no number: its unit would differ from that of other values.

    Parameters
    ----------
    parse
        How the number is written: one of `PARSES`.
    """
    written = read_written_number(text, parse)
    return None if written is None or MULTIPLIERS & set(written.suffix.casefold().split()) else written.value


def read_written_number(text: str, parse: str = "number") -> WrittenNumber | None:
    """Return the number in a text with what stands around it, multipliers too, or None if there is not exactly one."""
    if parse == "decimal_comma":
        text = text.translate(SWAPPED_SIGNS)
    if PLAIN_NUMBER.fullmatch(text):
        return WrittenNumber(float(text), "", "")
    text = text.strip().replace("\u2212", "-")
    match = PATTERN.fullmatch(IN_PARENTHESES.sub(r"-\1", text))
    if match is None:
        return None
    signs = match["sign"] + match["inner_sign"] + match["end_sign"]
    if len(signs) > 1:
        return None
    value = float(re.sub(r"[^\d.]", "", match["number"]))
    return WrittenNumber(-value if signs == "-" else value, match["prefix"].strip(), match["suffix"].strip())
