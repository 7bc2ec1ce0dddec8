"""Times on a command line: ISO 8601, or a duration before now."""

import time

import pytest

from housing.command_line.times import parse_period, parse_time
from housing.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 5.0),
        ("2026-11-24", 1_795_478_400.0),
        ("2026-11-24T02:00:00+02:00", 1_795_478_400.0),
        ("30m", 1e9 - 1800),
        ("12h", 1e9 - 43_200),
        ("7d", 1e9 - 604_800),
        ("2w", 1e9 - 1_209_600),
    ],
)
def test_a_time_is_a_moment_or_a_duration_ago(text: str | None, expected: float) -> None:
    assert parse_time("since", text, default=5.0, now=1e9) == expected


@pytest.mark.parametrize("text", ["yesterday", "7", "-7d", "1.5h", "7 d", "99999999d", ""])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="since must be a time such as 2026-11-24.* or a time ago such as 7d"):
        parse_time("since", text, default=0.0, now=1e9)


def test_a_period_ends_after_its_start() -> None:
    since, until = parse_period("2h", None, 0.0, time.time())
    assert until - since == pytest.approx(7200, abs=60)
    with pytest.raises(ConfigError, match=r"since must be before until \(got since=1h and until=2h\)"):
        parse_period("1h", "2h", 0.0, 0.0)
