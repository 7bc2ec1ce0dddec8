"""Detection rate and false alarms of the drift alert: scripts/bench drift prints the tables."""

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
from tests.support.monitored_server import MonitoredServer, count_bins, monitored, stability_index, training_shares
from tests.support.tables import config

SIZES = (50, 100, 200, 500, 1000)  # rows per window


ALERT, LIVE = (alerts.read_alerts()[name] for name in ("HousingColumnDrift", "HousingLiveError"))


MIN_ROWS = int(ALERT.conditions[1][2])  # rows


N_ROWS = 5000


def main(draws: int) -> None:
    """Print false alarms, the rows needed to detect a shift, and the accuracy of the PSI recording rule."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        bundle, table, unseen = _promoted(home)
        _print_false_alarms(bundle, table.matrix[unseen], draws, random)
        _print_rows_needed(bundle, table.matrix[unseen], draws // 5, random)
        _print_live_error(bundle, bundle.predict(table.matrix[unseen]) - table.target[unseen], draws, random)
        with monitored(home, home / "watch", table.schema.name) as monitored_server:
            _print_error(monitored_server, _frame(table).iloc[unseen])


def _promoted(home: Path) -> tuple[Bundle, Table, Rows]:
    """Train and promote the default model. Return its bundle, the table and the test rows."""
    (home / "data").mkdir()
    (home / "data" / "california.csv").symlink_to(PROJECT / "data" / "california.csv")
    for arguments in (("housing.train", "figures=false"), ("housing.promote",)):
        result = fresh_command(home, *arguments)
        assert result.code == 0, result.out + result.err
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
        samples = [random.choice(len(rows), size, replace=False) for _ in range(draws)]
        indices = [_stability_indices(bundle, rows[sample], predictions[sample]) for sample in samples]
        columns = [max(value for name, value in window.items() if name) for window in indices]
        alarms = np.mean([max(window.values()) > ALERT.threshold for window in indices])
        rate = f"{alarms:.1%}" + (f", no alert below {MIN_ROWS} rows" if size < MIN_ROWS else "")
        print(f"| {size} rows | {max(columns):.3f} | {max(window[''] for window in indices):.3f} | {rate} |", flush=True)


def _stability_indices(bundle: Bundle, rows: Matrix, predictions: Vector) -> dict[str, float]:
    training = training_shares(bundle)
    return {
        name: stability_index(np.array(list(bins.values())), training[name])
        for name, bins in count_bins(bundle, rows, predictions).items()
    }


def _print_rows_needed(bundle: Bundle, rows: Matrix, draws: int, random: np.random.Generator) -> None:
    sizes = " / ".join(map(str, SIZES))
    print(f"\n| half a standard deviation more in | least PSI of {MIN_ROWS} rows | seen of {draws} windows of {sizes} rows |")
    print("|---|---:|---:|")
    for position, column in enumerate(bundle.schema.features):
        shifted = rows.copy()
        shifted[:, position] += 0.5 * np.nanstd(rows[:, position])
        indices = {
            size: [_stability_index_of(bundle, column.name, shifted, size, random) for _ in range(draws)] for size in SIZES
        }
        detected = " / ".join(f"{np.mean(np.array(sample) > ALERT.threshold):.1%}" for sample in indices.values())
        print(f"| {column.name} | {min(indices[MIN_ROWS]):.2f} | {detected} |", flush=True)


def _stability_index_of(bundle: Bundle, column: str, rows: Matrix, size: int, random: np.random.Generator) -> float:
    window = rows[random.choice(len(rows), size, replace=False)]
    return stability_index(
        np.array(list(count_bins(bundle, window, np.zeros(0))[column].values())), training_shares(bundle)[column]
    )


def _print_live_error(bundle: Bundle, errors: Vector, draws: int, random: np.random.Generator) -> None:
    print(
        f"\n| {draws} draws of true values | RMSE times that of the validation rows, middle | largest | above {LIVE.threshold} |"
    )
    print("|---:|---:|---:|---:|")
    for size in SIZES[1:]:
        samples = [np.sqrt(np.mean(random.choice(errors, size, replace=False) ** 2)) for _ in range(draws)]
        ratio = np.array(samples) / bundle.card["metrics"]["rmse"]
        print(f"| {size} | {np.median(ratio):.2f} | {ratio.max():.2f} | {np.mean(ratio > LIVE.threshold):.1%} |", flush=True)


def _print_error(monitored_server: MonitoredServer, frame: pd.DataFrame) -> None:
    for begin in range(0, N_ROWS, 100):
        monitored_server.caller.predict(frame.iloc[np.arange(begin, begin + 100) % len(frame)])
    monitored_server.settle()
    errors = monitored_server.indices()
    print(
        f"\n| PSI of {N_ROWS:,} rows, {len(errors)} of them | by the rule, against numpy | largest difference |\n|---|---|---:|"
    )
    print(f"| from the same increase() values | | {max(abs(rule - same) for rule, same, _ in errors.values()):.1e} |")
    print(f"| from the rows that were sent | | {max(abs(rule - by_rows) for rule, _, by_rows in errors.values()):.1e} |")


if __name__ == "__main__":
    main(int(sys.argv[1]))
