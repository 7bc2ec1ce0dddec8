"""Metrics about training: what the file says of runs, table, retraining and aliases."""

import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from housing.core.errors import WriteError
from housing.data import table as tables
from housing.operations.retraining import RETRAIN_TAGS, RETRAINED_TAG
from housing.operations.training_metrics import METRICS, export_after_retraining, export_metrics
from housing.tracking import store as tracking
from housing.tracking import tags
from tests.support.tables import config, rentals_frame

RENTALS = "data=rentals"


def read(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of each metric by its labels besides `table`."""
    text = path.read_text(encoding="utf-8")
    return {
        family.name: {
            tuple(value for name, value in sorted(sample.labels.items()) if name != "table"): sample.value
            for sample in family.samples
            if sample.labels["table"] == "rentals"
        }
        for family in text_string_to_metric_families(text)
    }


def export(*overrides: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Export the metrics of the rentals and read them."""
    return read(export_metrics(config("export_metrics", RENTALS, *overrides)).path)


def test_runs_table_retraining_and_aliases(served_home: Path) -> None:
    cfg: Any = config("export_metrics", RENTALS)
    store = tracking.connect(cfg.mlflow)
    fingerprint = tables.load(cfg.data).fingerprint
    first = export()
    assert set(first) == set(METRICS)
    assert first["housing_training_runs"] == {("FINISHED",): 1, ("FAILED",): 0, ("KILLED",): 0, ("RUNNING",): 0}
    assert first["housing_training_pending"] == {(): 0} and first["housing_table_rows"] == {(): 600}
    assert first["housing_table_info"] == {(fingerprint,): 1}
    assert first["housing_alias_version"] == {("staging",): 1} and not first["housing_retraining_timestamp_seconds"]
    assert first["housing_training_run_seconds"][("1",)] > 0 and first["housing_training_peak_memory_bytes"][()] > 50e6
    [run] = store.runs.find_latest("rentals", {tags.RUN_TYPE: "run"}, 2)
    assert first["housing_training_best_score"][("rmse",)] == run.metrics["rmse"]
    assert first["housing_alias_trained_timestamp_seconds"] == {("staging",): run.started_at.timestamp()}
    end, moved = (first[f"housing_{name}_timestamp_seconds"] for name in ("training_last_run", "alias_moved"))
    exported = first["housing_metrics_exported_timestamp_seconds"][()]
    assert run.started_at.timestamp() < end[("FINISHED",)] < moved[("staging",)] < exported

    store.runs.open("rentals", "failed", {tags.RUN_TYPE: "run"}).close("FAILED")
    sweep_tags = {**RETRAIN_TAGS, RETRAINED_TAG: "HOLD"}
    store.runs.open("rentals", "sweep", sweep_tags).close("FINISHED")
    table = served_home / "data" / "rentals.csv"
    os.utime(table, (1e9, 1e9))  # the same table, downloaded again
    second = export()
    assert second["housing_training_runs"][("FAILED",)] == 1
    assert second["housing_retraining_timestamp_seconds"][("HOLD",)] > moved[("staging",)]
    changed = "housing_table_changed_timestamp_seconds"
    assert second[changed] == first[changed] != {(): 1e9}

    rentals_frame(601).to_csv(table, index=False)
    os.utime(table, (2e9, 2e9))
    third = export()
    assert third["housing_training_pending"] == {(): 1} and third[changed] == {(): 2e9}


def test_a_file_that_cannot_be_written_does_not_end_a_retraining(served_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = served_home / "a file"
    blocked.write_text("", encoding="utf-8")
    cfg = config("retrain", RENTALS, f"metrics_file='{blocked}/housing.prom'")
    with pytest.raises(WriteError):
        export_metrics(cfg)
    export_after_retraining(cfg)
    assert "The metrics about training were not written: Could not write" in caplog.text
    export_after_retraining(config("retrain", RENTALS, f"metrics_file='{served_home}/housing.prom'"))
    assert read(served_home / "housing.prom")["housing_alias_version"] == {("staging",): 1}
