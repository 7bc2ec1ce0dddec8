"""What a setting may be, with the words that say so."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from housing.core.errors import ConfigError


@dataclass(frozen=True)
class Validator:
    """A kind of value: its words, and the test of it."""

    description: str
    is_valid: Callable[[Any], bool]

    def validate(self, name: str, value: Any) -> None:
        """Raise ConfigError, which says what is allowed, where the value is of another kind."""
        if not self.is_valid(value):
            raise ConfigError(f"{name} is {value!r}; allowed: {self.description}")


BOOLEAN = Validator("true, false", lambda value: isinstance(value, bool))


POSITIVE = Validator("a number above 0", lambda value: _is_number(value) and value > 0)


NON_NEGATIVE = Validator("a number, 0 or above", lambda value: _is_number(value) and value >= 0)


def integer(minimum: int, maximum: int | None = None) -> Validator:
    """Allow the whole numbers from `least` up to `most`, or without end."""
    words = f"a whole number, {minimum} or above" if maximum is None else f"a whole number from {minimum} to {maximum}"
    return Validator(words, lambda value: _is_integer(value) and minimum <= value <= (value if maximum is None else maximum))


def choice(*choices: str) -> Validator:
    """Allow some words."""
    return Validator(", ".join(choices), lambda value: value in choices)


def optional(validator: Validator) -> Validator:
    """Allow nothing (null) as well."""
    return Validator(f"{validator.description}, or null", lambda value: value is None or validator.is_valid(value))


def validate(values: Mapping[str, Any], validators: Mapping[str, Validator]) -> None:
    """Raise ConfigError for the first of the values that is not what its name allows."""
    for name, kind in validators.items():
        kind.validate(name, values[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
