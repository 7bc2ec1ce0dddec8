"""Figures with their 95 % intervals."""

import math
from dataclasses import dataclass

Z_95 = 1.96
MIN_REQUESTS = 30  # with fewer independent requests, an interval from the normal distribution is too narrow: it is not given


@dataclass(frozen=True)
class Measured:
    """A figure with the ends of its 95 % interval; None if there is too little data for them."""

    value: float
    lower: float | None = None
    upper: float | None = None

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return self.lower is not None and self.upper is not None

    def __str__(self) -> str:
        if self.lower is None or self.upper is None:
            return f"{number_text(self.value)} (too little data for an interval)"
        return f"{number_text(self.value)} ({number_text(self.lower)} to {number_text(self.upper)})"


def number_text(value: float) -> str:
    """Return a number with three digits, or as a whole number if it is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def measure_mean(mean: float, standard_error: float, units: int) -> Measured:
    """Return a mean of independent units."""
    if units < MIN_REQUESTS:
        return Measured(mean)
    return Measured(mean, mean - Z_95 * standard_error, mean + Z_95 * standard_error)


def measure_root(square: Measured) -> Measured:
    """Return the square root of a figure that is not negative, such as an RMSE of a mean squared error."""
    if square.lower is None or square.upper is None:
        return Measured(math.sqrt(square.value))
    return Measured(math.sqrt(square.value), math.sqrt(max(square.lower, 0.0)), math.sqrt(square.upper))
