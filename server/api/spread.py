"""The spread of predictions that a request asks for: an interval, quantiles, or both."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from server.core.errors import raise_unprocessable

INTERVAL, QUANTILES = "interval", "quantiles"
LOWER, UPPER = "lower", "upper"


class Spread(NamedTuple):
    """The coverage of an interval, and the levels of quantiles."""

    coverage: float | None = None
    levels: tuple[float, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what a response has beside predictions."""
        return (*(() if self.coverage is None else (LOWER, UPPER)), *((QUANTILES,) if self.levels else ()))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that ask for this spread."""
        quantiles = {QUANTILES: self.levels} if self.levels else {}
        return quantiles if self.coverage is None else {INTERVAL: self.coverage, **quantiles}


POINT = Spread()


def parse_query(query: str) -> Spread:
    """Parse `interval=0.9&quantiles=0.1,0.5`. Raises RequestError for other parameters."""
    if not query:
        return POINT
    pairs = parse_qsl(query, keep_blank_values=True)
    parameters: dict[str, Any] = dict(pairs)
    if not parameters or len(parameters) < len(pairs) or not parameters.keys() <= {INTERVAL, QUANTILES}:
        raise_unprocessable("Unknown query. It must have interval, quantiles or both, as in ?interval=0.9 or ?quantiles=0.1,0.5.")
    with suppress(ValueError):  # the error names what is no number
        for name, text in pairs:
            parameters[name] = float(text) if name == INTERVAL else list(map(float, text.split(",")))
    return read_spread(parameters)


def read_spread(parameters: Mapping[str, Any]) -> Spread:
    """Return the spread that parameters name, with ascending levels. Raises RequestError if they are no numbers."""
    coverage, levels = parameters.get(INTERVAL), parameters.get(QUANTILES)
    if not (coverage is None or (isinstance(coverage, float) and 0.0 < coverage < 1.0)):
        raise_unprocessable(f"{INTERVAL} must be a number between 0 and 1 (got {coverage!r:.80}).")
    if not (levels is None or (isinstance(levels, list) and set(map(type, levels)) == {float})):
        raise_unprocessable(f"{QUANTILES} must be a list of numbers between 0 and 1 (got {levels!r:.80}).")
    return Spread(coverage, tuple(sorted(levels or ())))
