"""Parts of dates: calendar numbers, days since 1970, and positions in the year, the week and the day as points on a circle."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Vector
from housing.schema.dates import has_time

DAY, DAYS_OF_YEAR, DAYS_OF_WEEK, HOURS = 86_400, 366, 7, 24
DATE_PARTS = ("year", "month", "weekday", "days", "year_sin", "year_cos", "weekday_sin", "weekday_cos")
TIME_PARTS = ("hour", "hour_sin", "hour_cos")


def _circle(function: Callable[[float], float], steps: int) -> Vector:
    """Return a function's values around a circle. A table, since NumPy's sine depends on the processor."""
    return np.array([function(2 * math.pi * step / steps) for step in range(steps)])


SIN, COS = (
    {steps: _circle(function, steps) for steps in (DAYS_OF_YEAR, DAYS_OF_WEEK, HOURS)} for function in (math.sin, math.cos)
)


def date_part_names(name: str, date_format: str) -> list[str]:
    """Return the names of the parts of a column."""
    return [f"{name}_{part}" for part in (*DATE_PARTS, *(TIME_PARTS if has_time(date_format) else ()))]


def date_parts(seconds: Vector, date_format: str) -> NDArray[np.float64]:
    """Return the parts of dates in seconds since 1970, shape (rows, parts). All parts of a missing date are NaN."""
    is_known = ~np.isnan(seconds)
    days = np.floor(seconds[is_known] / DAY)
    dates = days.astype(np.int64).astype("datetime64[D]")
    months = dates.astype("datetime64[M]").astype(np.int64)
    day_of_year = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64)
    weekday = ((days + 3) % DAYS_OF_WEEK).astype(np.int64)  # 1970 began on a Thursday; Monday is 0
    parts = [months // 12 + 1970, months % 12 + 1, weekday, days, *_on_circle(day_of_year, DAYS_OF_YEAR)]
    parts += _on_circle(weekday, DAYS_OF_WEEK)
    if has_time(date_format):
        hour = (seconds[is_known] - days * DAY) / 3600
        parts += [hour, *_on_circle(hour.astype(np.int64), HOURS)]
    result = np.full((len(seconds), len(parts)), np.nan)
    result[is_known] = np.column_stack(parts)
    return result


def _on_circle(step: NDArray[np.int64], steps: int) -> list[Vector]:
    return [SIN[steps][step], COS[steps][step]]
