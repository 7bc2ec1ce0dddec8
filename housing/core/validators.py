"""Validators of settings: a check, and the description of valid values for the error message."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from housing.core.errors import ConfigError


@dataclass(frozen=True)
class Validator:
    """A check of a value. `description` completes the sentence "X must be ..."."""

    description: str
    is_valid: Callable[[Any], bool]

    def validate(self, name: str, value: Any) -> None:
        """Raise ConfigError if the value is not valid."""
        if not self.is_valid(value):
            raise ConfigError(f"{name} must be {self.description} (got {value!r}).")


BOOLEAN = Validator("true or false", lambda value: isinstance(value, bool))
POSITIVE = Validator("a number above 0", lambda value: _is_number(value) and value > 0)
NON_NEGATIVE = Validator("a number, at least 0", lambda value: _is_number(value) and value >= 0)
SHARE = Validator("a number from 0, but below 1", lambda value: _is_number(value) and 0 <= value < 1)
AT_LEAST_ONE = Validator("a number, at least 1", lambda value: _is_number(value) and value >= 1)


def integer(minimum: int, maximum: int | None = None) -> Validator:
    """Accept the whole numbers from `minimum` to `maximum`, both included, or without an upper bound if it is None."""
    description = f"a whole number, at least {minimum}" if maximum is None else f"a whole number from {minimum} to {maximum}"
    upper_bound = math.inf if maximum is None else maximum
    return Validator(description, lambda value: _is_integer(value) and minimum <= value <= upper_bound)


def choice(*choices: str) -> Validator:
    """Accept some strings."""
    return Validator(f"one of {', '.join(choices)}", lambda value: value in choices)


def optional(validator: Validator) -> Validator:
    """Accept null, and what another validator accepts."""
    return Validator(f"{validator.description}, or null", lambda value: value is None or validator.is_valid(value))


def validate(values: Mapping[str, Any], validators: Mapping[str, Validator]) -> None:
    """Raise ConfigError for the first value that its validator, the one of the same name, does not accept."""
    for name, validator in validators.items():
        validator.validate(name, values[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
