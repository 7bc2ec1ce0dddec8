"""What the drift alert sees, and what chance does to it: scripts/bench drift prints the tables."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from grafana import alerts
from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.data import table as data
from housing.data.split import Rows, split
from housing.data.table import Table
from housing.schema.column import Matrix, Vector
from housing.tracking import store
from tests.support.commands import fresh_command
from tests.support.monitored_server import Watched, counted, index, training_shares, watched
from tests.support.tables import config

SIZES = (50, 100, 200, 500, 1000)  # rows in a window


ALERT, LIVE = (alerts.read_alerts()[name] for name in ("HousingColumnDrift", "HousingLiveError"))


LEAST = int(ALERT.conditions[1][2])  # rows


SENT = 5000


def main(draws: int) -> None:
    """Print false alarms, the rows that a shift needs, and how exact the recording rule of PSI is."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        bundle, table, unseen = _promoted(home)
        _print_false_alarms(bundle, table.matrix[unseen], draws, random)
        _print_rows_needed(bundle, table.matrix[unseen], draws // 5, random)
        _print_live_error(bundle, bundle.predict(table.matrix[unseen]) - table.target[unseen], draws, random)
        with watched(home, home / "watch", table.schema.name) as seen:
            _print_error(seen, _frame(table).iloc[unseen])


def _promoted(home: Path) -> tuple[Bundle, Table, Rows]:
    """Train and promote the default model; give its bundle, the table, and the rows that it has not seen."""
    (home / "data").mkdir()
    (home / "data" / "california.csv").symlink_to(PROJECT / "data" / "california.csv")
    for arguments in (("housing.train", "figures=false"), ("housing.promote",)):
        ended = fresh_command(home, *arguments)
        assert ended.code == 0, ended.out + ended.err
    with store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="").artifacts.bundle(
        "models:/housing-california@staging"
    ) as folder:
        bundle = Bundle.read(folder)
    cfg = config("train", f"data.path={home}/data/california.csv")
    table = data.load(cfg.data)
    return bundle, table, split(table, cfg.split).test


def _frame(table: Table) -> pd.DataFrame:
    columns = [column.name for column in table.schema.features]
    return pd.DataFrame(table.matrix, columns=columns).assign(**{table.schema.target.name: table.target})


def _print_false_alarms(bundle: Bundle, rows: Matrix, draws: int, random: np.random.Generator) -> None:
    predictions = bundle.predict(rows)
    print(f"| {draws} windows of test rows | largest PSI of a column | of predictions | windows with a false alarm |")
    print("|---:|---:|---:|---:|")
    for size in SIZES:
        drawn = [random.choice(len(rows), size, replace=False) for _ in range(draws)]
        found = [_indices(bundle, rows[each], predictions[each]) for each in drawn]
        columns = [max(value for name, value in one.items() if name) for one in found]
        alarms = np.mean([max(one.values()) > ALERT.threshold for one in found])
        told = f"{alarms:.1%}" + (f", no alert below {LEAST} rows" if size < LEAST else "")
        print(f"| {size} rows | {max(columns):.3f} | {max(one[''] for one in found):.3f} | {told} |", flush=True)


def _indices(bundle: Bundle, rows: Matrix, predictions: Vector) -> dict[str, float]:
    training = training_shares(bundle)
    return {
        name: index(np.array(list(bins.values())), training[name]) for name, bins in counted(bundle, rows, predictions).items()
    }


def _print_rows_needed(bundle: Bundle, rows: Matrix, draws: int, random: np.random.Generator) -> None:
    sizes = " / ".join(map(str, SIZES))
    print(f"\n| half a standard deviation more in | least PSI of {LEAST} rows | seen of {draws} windows of {sizes} rows |")
    print("|---|---:|---:|")
    for place, column in enumerate(bundle.schema.features):
        shifted = rows.copy()
        shifted[:, place] += 0.5 * np.nanstd(rows[:, place])
        found = {size: [_index_of(bundle, column.name, shifted, size, random) for _ in range(draws)] for size in SIZES}
        seen = " / ".join(f"{np.mean(np.array(each) > ALERT.threshold):.1%}" for each in found.values())
        print(f"| {column.name} | {min(found[LEAST]):.2f} | {seen} |", flush=True)


def _index_of(bundle: Bundle, column: str, rows: Matrix, size: int, random: np.random.Generator) -> float:
    window = rows[random.choice(len(rows), size, replace=False)]
    return index(np.array(list(counted(bundle, window, np.zeros(0))[column].values())), training_shares(bundle)[column])


def _print_live_error(bundle: Bundle, errors: Vector, draws: int, random: np.random.Generator) -> None:
    print(
        f"\n| {draws} draws of true values | RMSE times that of the validation rows, middle | largest | above {LIVE.threshold} |"
    )
    print("|---:|---:|---:|---:|")
    for size in SIZES[1:]:
        drawn = [np.sqrt(np.mean(random.choice(errors, size, replace=False) ** 2)) for _ in range(draws)]
        ratio = np.array(drawn) / bundle.card["metrics"]["rmse"]
        print(f"| {size} | {np.median(ratio):.2f} | {ratio.max():.2f} | {np.mean(ratio > LIVE.threshold):.1%} |", flush=True)


def _print_error(seen: Watched, frame: pd.DataFrame) -> None:
    for begin in range(0, SENT, 100):
        seen.caller.predict(frame.iloc[np.arange(begin, begin + 100) % len(frame)])
    seen.settle()
    errors = seen.indices()
    print(f"\n| PSI of {SENT:,} rows, {len(errors)} of them | by the rule, against numpy | largest difference |\n|---|---|---:|")
    print(f"| from the same increase() values | | {max(abs(rule - same) for rule, same, _ in errors.values()):.1e} |")
    print(f"| from the rows that were sent | | {max(abs(rule - sent) for rule, _, sent in errors.values()):.1e} |")


if __name__ == "__main__":
    main(int(sys.argv[1]))
