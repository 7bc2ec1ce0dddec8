"""Test scores on ten generated tables against scores on what comes next: of a random split, and of the split that fits.

Five tables change in time, five repeat customers. In each, the target has a part that no measured column explains: a level that
lasts for some shifts, or the habits of a customer. A model can learn it from rows of the same shift or customer, and a random
split tests exactly there. What comes next are later shifts, and new customers.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.core.config import CONF, to_yaml
from housing.data.settings import TableSettings
from housing.data.split import split
from housing.data.table import Table, load, read_table
from housing.scoring.metrics import score
from housing.training.build import BuildSettings, build

Numbers = NDArray[np.float64]
Random = np.random.Generator

SHIFTS, ROWS_OF_SHIFT = 25_000, 5  # as many come next; with 5,000 test shifts, the RMSE has a standard error below 1 %
CUSTOMERS, ROWS_OF_CUSTOMER = 10_000, 10
GAP = 30  # shifts
MODELS = (("model=linear",), *(("model=decision_tree", f"model.estimator.min_samples_leaf={rows}") for rows in (15, 60, 250)))


@dataclass(frozen=True)
class Generated:
    """A generated table and the rows that come next.

    Attributes
    ----------
    split
        The overrides of the split that fits the table.
    """

    table: pd.DataFrame
    following: pd.DataFrame
    split: tuple[str, ...]


def print_splits() -> None:
    """Print, for each table, test score and next score of the run that a sweep chooses on either split."""
    print(
        "| table | split | chosen | test RMSE | RMSE of what comes next | test is off by |\n|---|---|---|---:|---:|---:|",
        flush=True,
    )
    for name, generate in GENERATORS.items():
        generated = generate(np.random.default_rng(list(GENERATORS).index(name)))
        with tempfile.TemporaryDirectory() as directory:
            common = _declare(Path(directory), generated)
            for split_overrides in (("split=random",), generated.split):
                chosen, tested, following = _sweep(Path(directory), common, split_overrides)
                line = f"| {name} | {' '.join(split_overrides)} | {chosen} | {tested:.3f} | {following:.3f} |"
                print(f"{line} {tested / following - 1:+.1%} |", flush=True)


def _declare(directory: Path, generated: Generated) -> tuple[str, ...]:
    """Write the table, the rows that come next, and the config of both. Return the overrides that select it."""
    generated.table.to_csv(directory / "table.csv", index=False)
    generated.following.to_csv(directory / "following.csv", index=False)
    columns = {column: {"type": "float"} for column in generated.table}
    columns["y"] = {"type": "float", "role": "target"}
    for name in {"shift", "customer"} & set(columns):
        columns[name] = {"type": "category", "categories": "auto"}
    (directory / "data").mkdir()
    declared = {"name": "generated", "path": str(directory / "table.csv"), "columns": columns}
    (directory / "data" / "generated.yaml").write_text(to_yaml(declared), encoding="utf-8")
    return (f"hydra.searchpath=[file://{directory}]", "data=generated", "features=none", "interval=none")


def _sweep(directory: Path, common: tuple[str, ...], split_overrides: tuple[str, ...]) -> tuple[str, float, float]:
    """Return the model with the lowest validation RMSE, its test RMSE, and its RMSE on the rows that come next."""
    configs = [_config(*common, *split_overrides, *model) for model in MODELS]
    table = load(configs[0].data)
    following = read_table(TableSettings.from_config(_config(*common, f"data.path={directory}/following.csv").data))
    parts = split(table, configs[0].split)
    built = [build(BuildSettings.from_config(cfg), table, parts, run_id="none") for cfg in configs]
    best = min(range(len(built)), key=lambda index: built[index][1]["rmse"])
    bundle = built[best][0]

    def rmse(of_table: Table, rows: NDArray[np.intp]) -> float:
        matrix = of_table.encoded_as(bundle.schema).matrix[rows]
        return score(bundle.predict(matrix), of_table.target[rows], None)["rmse"]

    label = MODELS[best][-1].removeprefix("model=").replace("model.estimator.min_samples_leaf=", "tree, leaves of ")
    return label, rmse(table, parts.test), rmse(following, np.arange(len(following)))


def _config(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", list(overrides))


def _in_time(level: Callable[[Random, int], Numbers]) -> Callable[[Random], Generated]:
    """Return a generator of the rows of shifts, three a day: two measured columns, and a level that no column explains."""

    def generate(random: Random) -> Generated:
        number = np.repeat(np.arange(2 * SHIFTS), ROWS_OF_SHIFT)
        size, dose = (random.uniform(0, 10, len(number)).round(2) for _ in range(2))
        course = 0.5 * np.array([-1.0, 0.0, 1.0])[number % 3]
        levels = level(random, 2 * SHIFTS)[number]
        y = course + 0.3 * size + 0.03 * dose**2 + 1.8 * levels + random.normal(0, 1.5, len(number))
        columns = {
            "time": number,
            "shift": [f"shift {name}" for name in number],
            "of_day": number % 3,
            "size": size,
            "dose": dose,
        }
        frame, end = pd.DataFrame({**columns, "y": y.round(3)}), SHIFTS * ROWS_OF_SHIFT
        return Generated(frame[:end], frame[end:], ("split=time", "split.by=time", f"split.gap={GAP}"))

    return generate


def _phases(random: Random, count: int, mean: float) -> NDArray[np.intp]:
    """Return the number of the phase of each shift. Phases last a geometric number of shifts."""
    return np.asarray(np.cumsum(random.random(count) < 1 / mean))


def drifting_sensor(random: Random, count: int) -> Numbers:
    """Return the offset of a sensor that drifts until it is calibrated, every 6 to 12 shifts."""
    resets, shift = np.cumsum(random.integers(6, 13, count // 6)), np.arange(count)
    since = shift - np.concatenate([[0], resets])[np.searchsorted(resets, shift, side="right")]
    return np.asarray(since / 2.5 - 1.6)


def market_phases(random: Random, count: int) -> Numbers:
    """Return the level of a market that is up or down, for 5 shifts on average."""
    return np.where(_phases(random, count, 5) % 2 == 0, 1.0, -1.0)


def weather(random: Random, count: int) -> Numbers:
    """Return a first-order autoregression with a correlation time of 2 shifts, such as of passing fronts."""
    level, memory = random.normal(size=count), np.exp(-1 / 2)
    for shift in range(1, count):
        level[shift] = memory * level[shift - 1] + np.sqrt(1 - memory**2) * level[shift]
    return level


def campaigns(random: Random, count: int) -> Numbers:
    """Return the effect of campaigns of different strength, a new one every 4 shifts on average."""
    phase = _phases(random, count, 4)
    return np.asarray(random.uniform(-1.7, 1.7, phase[-1] + 1)[phase])


def irregular_cycle(random: Random, count: int) -> Numbers:
    """Return a cycle of about 12 shifts whose pace changes, such as of stock and orders."""
    return np.asarray(1.4 * np.sin(2 * np.pi * np.cumsum(random.uniform(0.5, 1.5, count)) / 12))


def _of_customers(habit: Callable[[Random, int], Numbers], slope: bool = False) -> Callable[[Random], Generated]:
    """Return a generator of rows of customers: two attributes of the customer, one column of the row, and a habit.

    With a slope, the habit changes how the customer reacts to the column of the row.
    """

    def draw(random: Random, first: int) -> pd.DataFrame:
        customer = np.repeat(np.arange(CUSTOMERS), 1 + random.poisson(ROWS_OF_CUSTOMER - 1, CUSTOMERS))
        n_rows = len(customer)
        age, income = (random.uniform(low, high, CUSTOMERS).round(3) for low, high in ((18, 90), (10, 100)))
        amount = random.uniform(0, 10, n_rows).round(2)
        habits = habit(random, CUSTOMERS)[customer] * (amount / 5 if slope else 1)
        y = 0.02 * age[customer] + 0.01 * income[customer] + 0.3 * amount + 1.8 * habits + random.normal(0, 1.5, n_rows)
        columns = {"age": age[customer], "income": income[customer], "amount": amount, "y": y.round(3)}
        return pd.DataFrame({"customer": [f"customer {first + number}" for number in customer], **columns})

    def generate(random: Random) -> Generated:
        return Generated(draw(random, 0), draw(random, CUSTOMERS), ("split=grouped", "split.by=customer"))

    return generate


def _normal(random: Random, count: int) -> Numbers:
    return random.normal(size=count)


def _uniform(random: Random, count: int) -> Numbers:
    return random.uniform(-1.7, 1.7, count)


def _two_kinds(random: Random, count: int) -> Numbers:
    return np.where(random.random(count) < 0.5, 1.0, -1.0)


def _three_kinds(random: Random, count: int) -> Numbers:
    return random.choice([-1.2, 0.0, 1.2], count)


GENERATORS: Mapping[str, Callable[[Random], Generated]] = {
    "drifting sensor": _in_time(drifting_sensor),
    "market phases": _in_time(market_phases),
    "weather": _in_time(weather),
    "campaigns": _in_time(campaigns),
    "irregular cycle": _in_time(irregular_cycle),
    "shoppers": _of_customers(_normal),
    "patients": _of_customers(_uniform),
    "households": _of_customers(_two_kinds),
    "shops": _of_customers(_three_kinds),
    "machines": _of_customers(_uniform, slope=True),
}
