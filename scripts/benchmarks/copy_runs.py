"""Program that copies a finished run in the store until there are enough: HOME N_RUNS."""

import sqlite3
import sys
import uuid

from housing.tracking.store import Store

TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")


def main() -> None:
    """Copy the rows of one run under new ids and run keys, by SQL: MLflow would take hours."""
    home, n_runs = sys.argv[1], int(sys.argv[2])
    store = Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    experiment = [store.client.experiment_id("california")]
    run = store.client.api.search_runs(experiment, "tags.`housing.run_type` = 'run'", max_results=1)[0]
    database = sqlite3.connect(f"{home}/mlflow.db")
    database.row_factory = sqlite3.Row
    rows = {
        table: [dict(row) for row in database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run.info.run_id,))]
        for table in TABLES
    }
    (present,) = database.execute("SELECT count(*) FROM runs").fetchone()
    for _ in range(n_runs - present):
        name = uuid.uuid4().hex
        for table, originals in rows.items():
            for row in (dict(original, run_uuid=name) for original in originals):
                if table == "tags" and row["key"].startswith("housing.run_key."):
                    row |= {"key": f"housing.run_key.{name[:16]}", "value": 2 * name}
                values = ",".join("?" * len(row))
                database.execute(f"INSERT INTO {table} ({','.join(row)}) VALUES ({values})", list(row.values()))
    database.commit()


if __name__ == "__main__":
    main()
