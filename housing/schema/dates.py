"""Dates as text in a declared format, encoded as seconds since 1970 in UTC. A date without an offset counts as UTC."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ISO_DATE = "%Y-%m-%d"  # the default format
TIME_DIRECTIVES = ("%H", "%I", "%c", "%X")
MIN_YEAR = 1000  # strftime writes earlier years with fewer digits than strptime reads
# A date without its last part is that of midnight, or of a whole second: many programs leave out zeros.
SHORTER = {
    "%Y-%m-%d %H:%M:%S": ISO_DATE,
    "%Y-%m-%d %H:%M:%S.%f": "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%f": "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f%z": "%Y-%m-%d %H:%M:%S%z",
    "%Y-%m-%dT%H:%M:%S.%f%z": "%Y-%m-%dT%H:%M:%S%z",
}
SAMPLE = datetime(2001, 2, 3, tzinfo=UTC)


def parse_date(text: str, date_format: str) -> float:
    """Return the seconds since 1970 of a date. Raises ValueError if the text does not have the format."""
    try:
        date = datetime.strptime(text, date_format)
    except ValueError:
        if date_format not in SHORTER:
            raise
        return parse_date(text, SHORTER[date_format])
    if date.year < MIN_YEAR:
        raise ValueError(f"The year must be at least {MIN_YEAR} (got {date.year}).")
    return (date.replace(tzinfo=date.tzinfo or UTC) - EPOCH) / timedelta(seconds=1)


def format_date(seconds: float, date_format: str) -> str:
    """Return the text that `parse_date` reads. Parts that the format does not have are lost."""
    return (EPOCH + timedelta(seconds=seconds)).strftime(date_format)


def has_time(date_format: str) -> bool:
    """Return whether a format has the hour of the day."""
    return any(directive in date_format for directive in TIME_DIRECTIVES)


def is_date_format(date_format: object) -> bool:
    """Return whether a format has year and month, so that it reads what it writes. Without a day, it means the first."""
    try:
        read = isinstance(date_format, str) and parse_date(SAMPLE.strftime(date_format), date_format)
        return read in [(day - EPOCH) / timedelta(seconds=1) for day in (SAMPLE, SAMPLE.replace(day=1))]
    except ValueError:
        return False
