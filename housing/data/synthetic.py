"""A generated stand-in for the California table: the same columns, believable structure, any number of rows.

Not census data: its numbers show that the program works, never how good a model is on the real table.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from housing.features.landmarks import parse_coordinates

Column = NDArray[np.float64]


def generate(rows: int, seed: int, centres: Sequence[str], coast: str, value_range: Sequence[float]) -> NDArray[np.float64]:
    """Give a table of `rows` block groups, in the order of the California schema (target last).

    People live around `centres`, near the `coast` it is dearer, income drives prices, neighbourhoods share a taste of
    their own, and prices are capped to `value_range`. The same seed gives the same table; block groups repeat
    coordinates now and then, as in the census.
    """
    random = np.random.default_rng(seed)
    latitude, longitude, urban, centre = _place_block_groups(rows, random, parse_coordinates(", ".join(centres)))
    coastal = np.exp(-_km_to_nearest(latitude, longitude, _densify(parse_coordinates(coast))) / 25.0)
    income = np.clip(np.exp(1.05 + 0.25 * urban + 0.25 * coastal + 0.42 * random.standard_normal(rows)), 0.4999, 15.0001)
    age = np.clip(np.round(18 + 16 * urban + 11 * random.standard_normal(rows)), 1, 52)
    rooms = np.clip(2.9 + 0.62 * income - 0.7 * urban + 0.7 * random.standard_normal(rows), 1.0, 60.0)
    bedrooms = np.clip(0.72 + 0.06 * rooms + 0.08 * random.standard_normal(rows), 0.4, 15.0)
    population = np.clip(np.round(np.exp(7.05 + 0.7 * random.standard_normal(rows))), 3, 35000)
    occupancy = np.clip(2.9 - 0.05 * income + 0.6 * np.abs(random.standard_normal(rows)), 1.0, 20.0)
    taste = _random_field(latitude, longitude, random)
    log_price = -0.78 + 0.62 * np.log(income) + 0.62 * coastal + 0.32 * urban + 0.05 * np.sin(centre) + taste
    log_price += (
        0.22 * (bedrooms / rooms - 0.2) + 0.003 * (age - 28) - 0.09 * (occupancy - 3) + 0.15 * random.standard_normal(rows)
    )
    value = np.clip(np.round(1.55 * np.exp(log_price), 3), value_range[0], value_range[1])
    return np.column_stack([income, age, rooms, bedrooms, population, occupancy, latitude, longitude, value])


def _place_block_groups(
    rows: int, random: np.random.Generator, centres: Column
) -> tuple[Column, Column, Column, NDArray[np.intp]]:
    """Place block groups around centres (the first ones are the largest); `urban` falls from 1 with the distance."""
    weights = 1.0 / np.arange(1, len(centres) + 1)
    centre = random.choice(len(centres), size=rows, p=weights / weights.sum())
    spread = np.where(random.random(rows) < 0.75, 0.18, 0.7)
    shift = random.standard_normal((rows, 2)) * spread[:, None]
    twin = random.random(rows) < 0.15  # shares the coordinates of another row
    places = np.round(centres[centre] + shift, 2)
    places[twin] = places[random.integers(rows, size=int(twin.sum()))]
    places = np.clip(places, [32.54, -124.35], [41.95, -114.31])
    urban = np.exp(-np.linalg.norm(places - centres[centre], axis=1) / 0.35)
    return places[:, 0], places[:, 1], urban, centre


def _densify(line: Column) -> Column:
    """Give ten points on each segment of a polyline."""
    steps = np.linspace(0.0, 1.0, 10, endpoint=False)
    return (line[:-1, None] + steps[:, None] * np.diff(line, axis=0)[:, None]).reshape(-1, 2)


def _km_to_nearest(latitude: Column, longitude: Column, points: Column) -> Column:
    nearest = np.full(len(latitude), np.inf)
    for point in points:
        nearest = np.minimum(nearest, np.hypot(latitude - point[0], 0.81 * (longitude - point[1])))
    return 111.2 * nearest


def _random_field(latitude: Column, longitude: Column, random: np.random.Generator) -> Column:
    """A smooth random field over the map: what a place is worth beyond all that the columns say."""
    waves, taste = 60, np.zeros(len(latitude))
    for angle, length, phase in zip(
        random.uniform(0, 2 * np.pi, waves), random.uniform(0.3, 2.0, waves), random.uniform(0, 2 * np.pi, waves), strict=True
    ):
        taste += np.cos(2 * np.pi * (np.cos(angle) * latitude + np.sin(angle) * longitude) / length + phase)
    return 0.22 * taste / np.sqrt(waves / 2)
