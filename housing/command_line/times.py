"""Times on a command line: a moment in ISO 8601, or how long ago it was."""

import re
import time
from datetime import UTC, datetime

from housing.core.errors import ConfigError

AGO = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)  # 7d
SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_period(since: object, until: object, default_since: float, default_until: float) -> tuple[float, float]:
    """Return the Unix seconds of the options `since` and `until`. None is the default.

    Raises ConfigError if one is no time, or `since` is not before `until`.
    """
    now = time.time()
    ends = parse_time("since", since, default_since, now), parse_time("until", until, default_until, now)
    if ends[0] >= ends[1]:
        raise ConfigError(f"since must be before until (got since={since} and until={until}).")
    return ends


def parse_time(name: str, text: object, default: float, now: float) -> float:
    """Return the Unix seconds of an option: a time in ISO 8601, UTC if it has no time zone, or a duration before `now`.

    Raises ConfigError for another text. None is the default.
    """
    if text is None:
        return default
    if ago := AGO.fullmatch(str(text)):
        return now - int(ago[1]) * SECONDS[ago[2]]
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ConfigError(
            f"{name} must be a time such as 2026-11-24 or 2026-11-24T10:00:00+00:00, or a time ago such as 7d, 12h or 30m"
            f" (got {text!r})."
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
