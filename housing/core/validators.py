"""What a setting may be, with the words that say so."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from housing.core.errors import ConfigError


@dataclass(frozen=True)
class Allowed:
    """A kind of value: its words, and the test of it."""

    words: str
    holds: Callable[[Any], bool]

    def require(self, name: str, value: Any) -> None:
        """Raise ConfigError, which says what is allowed, where the value is of another kind."""
        if not self.holds(value):
            raise ConfigError(f"{name} is {value!r}; allowed: {self.words}")


FLAG = Allowed("true, false", lambda value: isinstance(value, bool))


ANY_NUMBER = Allowed("a finite number", lambda value: _is_number(value))


POSITIVE = Allowed("a number above 0", lambda value: _is_number(value) and value > 0)


NOT_NEGATIVE = Allowed("a number, 0 or above", lambda value: _is_number(value) and value >= 0)


def whole(least: int, most: int | None = None) -> Allowed:
    """Allow the whole numbers from `least` up to `most`, or without end."""
    words = f"a whole number, {least} or above" if most is None else f"a whole number from {least} to {most}"
    return Allowed(words, lambda value: _is_whole(value) and least <= value <= (value if most is None else most))


def one_of(*names: str) -> Allowed:
    """Allow some words."""
    return Allowed(", ".join(names), lambda value: value in names)


def or_null(allowed: Allowed) -> Allowed:
    """Allow nothing (null) as well."""
    return Allowed(f"{allowed.words}, or null", lambda value: value is None or allowed.holds(value))


def require(values: Mapping[str, Any], allowed: Mapping[str, Allowed]) -> None:
    """Raise ConfigError for the first of the values that is not what its name allows."""
    for name, kind in allowed.items():
        kind.require(name, values[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
