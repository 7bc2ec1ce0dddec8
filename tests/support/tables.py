"""Small tables with known formulas, and configs and runs for them."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from housing.core.config import CONF
from housing.core.environment import OPTIONAL_LIBRARIES, PROJECT
from housing.runs.outcome import Outcome
from housing.runs.run import Job, run

TABLES = PROJECT / "tests" / "tables"


RENTALS_DATA = (f"--config-dir={TABLES}", "data=rentals", "features=none")


RENTALS_SWEEP = ("-m", *RENTALS_DATA, "refit=false", "interval=none", "figures=false", "log_model=best")  # one quick fit per job


FLAT = {"area": 50.5, "rooms": 2, "furnished": True, "quarter": "hills", "built": 1950}  # a row of the rentals table


COORDINATES = {
    "lat": {"type": "float", "role": "latitude"},
    "lon": {"type": "float", "role": "longitude"},
}  # columns for a schema in a test


NO_BLOCKS: dict[str, Any] = {
    "blocks": {},
    "exclude_roles": [],
    "applicability": None,
    "encoding": {"method": "auto", "max_one_hot_levels": 30, "smoothing": 10},
}  # the config of features without blocks


WITHOUT_REHEARSAL = {"promote": ("gate.smoke_test_seconds=null",)}  # off by default in tests: it takes seconds to start a server


def require_library(model: str) -> None:
    """Skip a test if the library of an option of the group `model` is an extra that is not installed."""
    if model in OPTIONAL_LIBRARIES:
        pytest.importorskip(model, reason=f"{model}, an extra, is not installed")


def rentals_frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Return synthetic flats whose rent is a known formula of their columns. A tenth lack the year."""
    random = np.random.default_rng(seed)
    area, rooms = random.uniform(20, 150, rows).round(1), random.integers(1, 7, rows)
    furnished, quarter = random.random(rows) < 0.3, random.choice(["old town", "harbour", "hills"], rows)
    built = np.where(random.random(rows) < 0.1, np.nan, random.integers(1900, 2020, rows))
    rent = 8 * area + 40 * rooms + 100 * furnished + np.select([quarter == "harbour", quarter == "hills"], [150, 300], 0)
    rent = rent + np.where(np.isnan(built), 50, (built - 1900)) + random.normal(0, 20, rows)
    return pd.DataFrame(
        {"area": area, "rooms": rooms, "furnished": furnished, "quarter": quarter, "built": built, "rent": rent.round(2)}
    )


def towns_frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Return synthetic houses whose price is a known formula of coordinates and columns. A third share coordinates."""
    random = np.random.default_rng(seed)
    coordinates = random.uniform((45.0, 5.0), (47.0, 8.0), (rows, 2)).round(3)
    coordinates[: rows // 3] = coordinates[random.integers(rows // 3, rows, rows // 3)]
    area, garden = random.uniform(20, 200, rows).round(1), random.random(rows) < 0.4
    rooms = np.where(random.random(rows) < 0.1, np.nan, random.integers(1, 9, rows))
    kind = random.choice(["flat", "house", "barn"], rows)
    price = (
        300
        + 150 * np.sin(2 * coordinates[:, 0])
        + 150 * np.cos(2 * coordinates[:, 1])
        + area
        + 30 * garden
        + 50 * (kind == "house")
    )
    price = (price + random.normal(0, 10, rows)).round(2)
    columns = {"area": area, "rooms": rooms, "garden": garden, "kind": kind, "price": price}
    return pd.DataFrame({"north": coordinates[:, 0], "east": coordinates[:, 1], **columns})


def orders_frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Return synthetic orders, with a column of each role. One in twenty lacks the price."""
    random = np.random.default_rng(seed)
    size, colour = random.uniform(1, 99, rows).round(1), random.choice(["red", "green", ""], rows)
    age = np.where(random.random(rows) < 0.2, np.nan, random.integers(0, 50, rows))
    placed = pd.Timestamp("2019-12-30") + pd.to_timedelta(random.integers(0, 2_000_000, rows), unit="min")
    grade, worn = random.choice(["poor", "fair", "good"], rows), random.integers(0, 90_000, rows)
    town, brand, shelf = random.integers(0, 60, rows), random.choice(["acme", "zeta", ""], rows), random.integers(0, 25, rows)
    price = 3 * size + 40 * (colour == "red") - np.nan_to_num(age) + 2 * town + 20 * (grade == "good") + random.normal(0, 5, rows)
    remark = remarks(rows, seed)
    price = price - 60 * np.array(["scratch" in text for text in remark])
    return pd.DataFrame(
        {
            "order": [f"{seed:02d}{row:05d}" for row in range(rows)],
            "customer": random.choice(["ann", "bob", "cem"], rows),
            "week": np.arange(rows) // 10,
            "copies": random.integers(1, 4, rows),
            "note": random.choice(["", "call first", "12,5"], rows),
            "size": size,
            "colour": colour,
            "age": age,
            "town": [f"town {number}" for number in town],
            "brand": brand,
            "shelf": [f"S{number:02d}" for number in shelf],
            "placed": placed.strftime("%d.%m.%Y %H:%M"),
            "grade": grade,
            "worn": [f"{km:,} km" for km in worn],
            "remark": remark,
            "price": np.where(random.random(rows) < 0.05, np.nan, price.round(2).clip(0)),
        }
    )


def goods_frame(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return synthetic goods as text, with a column of each type. The logarithm of the price is a sum of effects."""
    random = np.random.default_rng(seed)
    size, age, town = random.uniform(1, 99, rows).round(1), random.integers(0, 50, rows), random.integers(0, 30, rows)
    used, grade, worn = random.random(rows) < 0.5, random.choice(["poor", "fair", "good"], rows), random.integers(0, 90_000, rows)
    bought = pd.Timestamp("2019-12-30") + pd.to_timedelta(random.integers(0, 900, rows), unit="D")
    price = np.exp(2 + size / 30 + (grade == "good") - age / 50 + town / 30 + random.normal(0, 0.1, rows)).round(2)
    return pd.DataFrame(
        {
            "number": 10**15 + 1000 * seed + np.arange(rows),
            "size": [f"{number}".replace(".", ",") for number in size],
            "age": np.where(random.random(rows) < 0.2, "?", age.astype(str)),
            "used": np.where(random.random(rows) < 0.1, "", np.where(used, "ja", "nein")),
            "colour": random.choice(["red", "green"], rows),
            "town": [f"town {number}" for number in town],
            "brand": random.choice(["acme", "zeta", ""], rows),
            "shelf": [f"S{number:02d}" for number in random.integers(0, 5, rows)],
            "grade": grade,
            "bought": bought.strftime("%d.%m.%Y"),
            "worn": [f"{km:,} km".replace(",", ".") for km in worn],
            "price": [f"{number}".replace(".", ",") for number in price],
        }
    )


def remarks(rows: int, seed: int = 0) -> list[str]:
    """Return remarks on articles, each of several words. One in ten is empty."""
    random = np.random.default_rng(1000 + seed)
    words = [
        ("barely used", "well kept", "older", "second-hand", "collector's"),
        ("oak", "steel", "glass", "Köln", "wicker"),
        ("table", "lamp", "chair", "cupboard", "mirror"),
        ("with a deep scratch", "scratched on one side", "without any damage", "in its first box", "from a smoke-free home"),
    ]
    texts = [" ".join(row) for row in zip(*(random.choice(choices, rows) for choices in words), strict=True)]
    return ["" if is_empty else text for text, is_empty in zip(texts, random.random(rows) < 0.1, strict=True)]


def config(name: str, *overrides: str) -> DictConfig:
    """Return a config of the project, with the tests' tables in the search path. Composing one takes a tenth of a second."""
    return copy.deepcopy(_compose(name, *overrides))


@cache
def _compose(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(name, [f"hydra.searchpath=[file://{TABLES}]", *WITHOUT_REHEARSAL.get(name, ()), *overrides])


# For tables of a few hundred rows: fewer cells, neighbours and iterations.
SMALL_GEO = (
    "features.blocks.target_encoding.n_clusters=[40,10]",
    "features.blocks.neighbours.distances_to=[5]",
    "features.blocks.neighbours.feature_means=[8]",
    "features.blocks.neighbours.target_means=[1,3,10]",
    "features.blocks.neighbours.target_stds=[10]",
)


SMALL_FULL = (
    *SMALL_GEO,
    *(
        f"features.blocks.{process}.{setting}"
        for process in ("gaussian_process", "log_gaussian_process")
        for setting in ("neighbours=12", "target_means=[5,12]", "n_fit_rows=60", "max_iter=5")
    ),
)


SMALL = {"none": (), "static": (), "geo": SMALL_GEO, "full": SMALL_FULL}  # by feature preset


def train(home_: Path, *overrides: str) -> Outcome:
    """Run one training job in this process, by default on the rentals table."""
    folder = home_ / "outputs" / str(len(list(home_.glob("outputs/*"))))
    overrides_ = ["data=rentals", "features=none", *overrides]
    return run(config("train", *overrides_), Job(overrides_, folder))
