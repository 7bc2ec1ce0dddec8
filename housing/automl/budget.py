"""Time budget of a search."""

import time

from housing.core.errors import TrialPruned


class TimeOver(TrialPruned):
    """A candidate was not started, because the time is over."""


class Budget:
    """Seconds that count down from the construction.

    Attributes
    ----------
    reserved
        Seconds that the final fit of the ensemble will need.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.reserved = seconds, 0.0
        self._started_at = time.monotonic()

    def remaining(self) -> float:
        """Return the seconds that are left for candidates. The number is negative after the end."""
        return self.seconds - self.reserved - (time.monotonic() - self._started_at)
