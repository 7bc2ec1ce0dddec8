"""Synthetic data: a generated table with the columns of the California table and a plausible structure, of any size.

It shows that the program works. Scores on it say nothing about the real table.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from housing.features.landmarks import parse_coordinates
from housing.schema.column import Matrix, Vector


def generate(rows: int, seed: int, centres: Sequence[str], coast: str, value_range: Sequence[float]) -> Matrix:
    """Return `rows` block groups, with the columns of the California schema in order (target last).

    People live around `centres`. Prices rise with income and near the `coast`, vary by neighbourhood, and are capped to
    `value_range`. As in the census, several block groups share coordinates. The table is a function of its arguments.
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
    neighbourhood = _random_field(latitude, longitude, random)
    log_price = -0.78 + 0.62 * np.log(income) + 0.62 * coastal + 0.32 * urban + 0.05 * np.sin(centre) + neighbourhood
    log_price += (
        0.22 * (bedrooms / rooms - 0.2) + 0.003 * (age - 28) - 0.09 * (occupancy - 3) + 0.15 * random.standard_normal(rows)
    )
    value = np.clip(np.round(1.55 * np.exp(log_price), 3), value_range[0], value_range[1])
    return np.column_stack([income, age, rooms, bedrooms, population, occupancy, latitude, longitude, value])


def _place_block_groups(
    rows: int, random: np.random.Generator, centres: Matrix
) -> tuple[Vector, Vector, Vector, NDArray[np.intp]]:
    """Return latitude, longitude, urbanity and centre of block groups.

    They lie around the centres, most of them around the first ones. Urbanity falls from 1 with the distance to the centre.
    """
    weights = 1.0 / np.arange(1, len(centres) + 1)
    centre = random.choice(len(centres), size=rows, p=weights / weights.sum())
    spread = np.where(random.random(rows) < 0.75, 0.18, 0.7)
    shift = random.standard_normal((rows, 2)) * spread[:, None]
    is_twin = random.random(rows) < 0.15  # has the coordinates of another row
    coordinates = np.round(centres[centre] + shift, 2)
    coordinates[is_twin] = coordinates[random.integers(rows, size=int(is_twin.sum()))]
    coordinates = np.clip(coordinates, [32.54, -124.35], [41.95, -114.31])
    urban = np.exp(-np.linalg.norm(coordinates - centres[centre], axis=1) / 0.35)
    return coordinates[:, 0], coordinates[:, 1], urban, centre


def _densify(line: Matrix) -> Matrix:
    """Return ten points on each segment of a polyline."""
    steps = np.linspace(0.0, 1.0, 10, endpoint=False)
    return (line[:-1, None] + steps[:, None] * np.diff(line, axis=0)[:, None]).reshape(-1, 2)


def _km_to_nearest(latitude: Vector, longitude: Vector, points: Matrix) -> Vector:
    nearest = np.full(len(latitude), np.inf)
    for point in points:
        nearest = np.minimum(nearest, np.hypot(latitude - point[0], 0.81 * (longitude - point[1])))
    return 111.2 * nearest


def _random_field(latitude: Vector, longitude: Vector, random: np.random.Generator) -> Vector:
    """Return a smooth random field over the map: the value of a neighbourhood beyond what the columns explain."""
    waves, neighbourhood = 60, np.zeros(len(latitude))
    for angle, length, phase in zip(
        random.uniform(0, 2 * np.pi, waves), random.uniform(0.3, 2.0, waves), random.uniform(0, 2 * np.pi, waves), strict=True
    ):
        neighbourhood += np.cos(2 * np.pi * (np.cos(angle) * latitude + np.sin(angle) * longitude) / length + phase)
    return 0.22 * neighbourhood / np.sqrt(waves / 2)
