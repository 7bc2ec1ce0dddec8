"""What MLflow's pages show of a run and of a version: the dataset, example rows, a description, and changes without a commit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import mlflow
import pytest

from housing.core.environment import MARKER, MAX_DIFF, uncommitted_changes
from housing.core.files import sha256
from housing.data.table import Table
from housing.promotion.rolling_back import rollback
from housing.tracking import store
from housing.tracking.lineage import DatasetVersion
from housing.tracking.runs import Run
from tests.support.commands import git
from tests.support.tables import config, rentals_frame

MODEL = "housing-rentals"


def test_a_run_names_its_dataset_and_its_model_has_rows_that_it_predicts(served_home: Path) -> None:
    client = store.connect(config("promote", "data=rentals").mlflow).client
    version = client.api.get_model_version_by_alias(MODEL, "staging")
    inputs = client.api.get_run(str(version.run_id)).inputs
    assert inputs is not None
    [used] = inputs.dataset_inputs
    tags = {tag.key: tag.value for tag in used.tags}
    fingerprint = sha256(served_home / "data" / "rentals.csv")
    assert (used.dataset.name, used.dataset.digest, tags["fingerprint"]) == ("rentals", fingerprint[:36], fingerprint)
    assert tags["mlflow.data.context"].startswith("split_by_hash: ") and tags["mlflow.data.context"].endswith(" test")
    assert "dvc_version" not in tags  # this table is not under DVC
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@staging")
    example = model.input_example
    assert list(example) == ["area", "rooms", "furnished", "quarter", "built"]
    assert len(model.predict(example.astype({"rooms": float, "built": float}))) == len(example) > 1


@pytest.mark.usefixtures("home")
def test_runs_that_add_the_same_dataset_at_once_all_have_it(rentals: Table) -> None:
    tracking = store.connect(config("train", "data=rentals").mlflow)
    runs = [tracking.runs.open("rentals", f"run {number}", {}) for number in range(8)]
    together = Barrier(len(runs))

    def log_together(run: Run, name: str) -> None:
        dataset = DatasetVersion(name, rentals.fingerprint, "rentals.csv", None, "split", "0", {"train": 1}, rentals.schema)
        together.wait(timeout=60)
        run.log_dataset(dataset)

    for name in ("first", "second", "third"):
        with ThreadPoolExecutor(len(runs)) as threads:
            assert list(threads.map(log_together, runs, [name] * len(runs))) == [None] * len(runs)
    inputs = [tracking.client.api.get_run(run.id).inputs for run in runs]
    assert [len(used.dataset_inputs) for used in inputs if used is not None] == [3] * len(runs)


def test_a_version_says_what_it_is_how_good_and_since_when(served_home: Path) -> None:
    registry = store.connect(config("promote", "data=rentals").mlflow).client.api
    assert "Predicts `rent`" in str(registry.get_registered_model(MODEL).description)
    text = str(registry.get_model_version_by_alias(MODEL, "staging").description)
    fingerprint = sha256(served_home / "data" / "rentals.csv")
    for fact in ("**linear** on features `none`", f"table `rentals` (fingerprint `{fingerprint[:12]}`)", "Validation RMSE "):
        assert fact in text
    moves = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(moves) == 1 and "UTC: at `staging`, the first version there, moved by " in moves[0] and "Test RMSE" in moves[0]


@pytest.mark.usefixtures("served_home")
def test_a_rollback_adds_a_line_to_the_description() -> None:
    assert rollback(config("rollback", "data=rentals", "version=1", "reason=test")).version == "1"
    registry = store.connect(config("promote", "data=rentals").mlflow).client.api
    text = str(registry.get_model_version_by_alias(MODEL, "staging").description)
    assert text.splitlines()[-1].startswith("- ") and "back at `staging`, replaced version 1, moved by " in text


def test_changes_without_a_commit_are_kept_and_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path))
    git(tmp_path, "init", "--quiet")
    (tmp_path / MARKER).write_text("a: 1\n", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=all")
    (tmp_path / MARKER).write_text("a: 2\n" + "b: 3\n" * MAX_DIFF, encoding="utf-8")
    rentals_frame(2).to_csv(tmp_path / "new.csv", index=False)
    changes = uncommitted_changes()
    assert changes.startswith("# untracked: new.csv\n") and "-a: 1\n+a: 2\n" in changes
    assert f"# shortened to {MAX_DIFF:,} of " in changes and len(changes) < MAX_DIFF + 100
