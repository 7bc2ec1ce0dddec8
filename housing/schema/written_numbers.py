"""Numbers as text: plain ones, and written ones such as "80,000", "$1,200", "12 %" or "45,000 kms"."""

import re

PLAIN_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
PLAIN_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)

# A sign, digits in groups or without, and a fraction, between a currency or unit without digits. Groups have three digits; in
# India, those before the last one have two.
DIGITS = r"\d{1,3}(,\d{2,3})*,\d{3}|\d+"
PATTERN = re.compile(rf"(?P<prefix>[^\d.,+-]*)(?P<number>[+-]?\s?({DIGITS})(\.\d+)?)(?P<suffix>[^\d.,+-]*)", re.ASCII)
MULTIPLIERS = {"k", "m", "mn", "mio", "b", "bn", "thousand", "million", "billion", "lakh", "lac", "crore", "cr"}


def parse_written_number(text: str) -> float | None:
    """Return the number in a text, or None if there is not exactly one. A percentage is not divided by 100.

    A text with a multiplier, such as "12k", has no number: its unit would differ from that of other values.
    """
    if PLAIN_NUMBER.fullmatch(text):
        return float(text)
    match = PATTERN.fullmatch(text)
    if match is None or MULTIPLIERS & set(match["suffix"].casefold().split()):
        return None
    return float(match["number"].replace(",", "").replace(" ", ""))
