"""The time axis of a report: a period in buckets of equal length, so that memory does not grow with the log."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

MAX_BUCKETS = 200
MAX_LABEL_BUCKETS = 30  # there are few true values
WIDTHS = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)  # seconds


@dataclass(frozen=True)
class Timeline:
    """A period (Unix seconds; `until` is exclusive), in at most so many buckets."""

    since: float
    until: float
    max_buckets: int = MAX_BUCKETS

    @property
    def width(self) -> int:
        """The seconds of a bucket."""
        length = self.until - self.since
        longest = WIDTHS[-1] * math.ceil(length / WIDTHS[-1] / self.max_buckets)
        return next((width for width in WIDTHS if length / width <= self.max_buckets), longest)

    def bucket(self, moment: float) -> int:
        """Return the start of the bucket of a moment. Moments before the period belong to its first bucket."""
        return int(max(moment, self.since) // self.width * self.width)

    def coarser(self) -> "Timeline":
        """Return the period in the few buckets of true values."""
        return Timeline(self.since, self.until, MAX_LABEL_BUCKETS)

    def contains(self, moment: float) -> bool:
        """Return whether a moment is in the period."""
        return self.since <= moment < self.until

    @property
    def buckets(self) -> list[int]:
        """The starts of all buckets, oldest first."""
        return list(range(self.bucket(self.since), int(self.until - 1e-6) + 1, self.width))

    @property
    def width_text(self) -> str:
        """The length of a bucket, such as "1 h"."""
        units = ((86_400, "d"), (3600, "h"), (60, "min"))
        seconds, unit = next((seconds, unit) for seconds, unit in units if self.width >= seconds)
        return f"{self.width // seconds} {unit}"


def time_text(moment: float) -> str:
    """Return a moment as people read it, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
