"""The progress of a running sweep: what has ended, what runs, the best so far and the reasons of failures."""

from pathlib import Path

from housing.runs.outcome import Outcome
from housing.sweeps.progress import SweepProgress


def test_each_job_that_ends_is_counted_once(tmp_path: Path) -> None:
    progress = SweepProgress(tmp_path / "sweep", "rmse", total_jobs=12)
    assert not progress.update() and progress.time_left == ""

    def write(number: int, status: str, rmse: float = 0.0, error: str = "", reused: bool = False) -> None:
        folder = tmp_path / "sweep" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        metrics = {"rmse": rmse} if status == "FINISHED" else {}
        Outcome([f"seed={number}"], status, metrics=metrics, error=error, reused=reused).write(folder)

    write(10, "FINISHED", 0.5)
    write(2, "FINISHED", 0.4)
    write(3, "RUNNING")
    write(4, "FINISHED", 0.6, reused=True)
    (tmp_path / "sweep" / "multirun.yaml").touch()
    assert [outcome.overrides for outcome in progress.update()] == [["seed=2"], ["seed=4"], ["seed=10"]]
    assert list(progress.running) == ["3"] and progress.best_score == "0.4000" and progress.time_left != ""
    write(3, "FAILED", error="out of\nmemory")
    write(5, "FAILED", error="out of memory")
    write(6, "PRUNED", error="worse")
    assert len(progress.update()) == 3 and not progress.update()
    assert not progress.running and progress.n_ended == 6
    assert progress.status_counts == "2 finished, 1 reused, 2 failed, 1 pruned"
    assert [(failure.reason, failure.n_jobs, failure.example.overrides) for failure in progress.failures.values()] == [
        ("out of memory", 2, ["seed=3"])
    ]
