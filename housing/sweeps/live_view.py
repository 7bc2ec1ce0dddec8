"""Live view of a running sweep, read from the jobs' folders so that it is the same under every launcher."""

import threading
import time
from collections import Counter
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from housing.command_line.console import clipped_line, create_console
from housing.runs.outcome import OUTCOME_FILE, Outcome
from housing.runs.progress_bar import REFRESH_SECONDS
from housing.training.metrics import as_loss

MAX_WORKERS = 16  # lines for running jobs


class LiveView:
    """Print a line for each job that ends, and on a terminal also live lines for progress and running jobs."""

    def __init__(self, folder: Path, metric: str) -> None:
        self.folder, self.metric = folder, metric
        self.total_jobs, self.common_overrides = 0, set[str]()
        self.running_jobs: dict[str, Outcome] = {}
        self.finished_jobs: dict[str, Outcome] = {}
        self._started_at = time.time()
        self._stopped = threading.Event()
        self._console = create_console()
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True)
        self._thread = threading.Thread(target=self._poll, name="live-view", daemon=True)

    def start(self) -> None:
        """Start to watch the jobs."""
        if self._console.is_terminal:
            self._live.start()
        self._thread.start()

    def stop(self) -> None:
        """Print the jobs that have ended since the last refresh, and stop."""
        self._stopped.set()
        self._thread.join()
        self._live.stop()

    def _poll(self) -> None:
        while not self._stopped.wait(REFRESH_SECONDS):
            self.refresh()
        self.refresh()

    def refresh(self) -> None:
        """Read the outcomes of all jobs, and print those that have ended since the last call."""
        for path in sorted(self.folder.glob(f"*/{OUTCOME_FILE}"), key=lambda path: (len(path.parent.name), path.parent.name)):
            job = path.parent.name
            if job in self.finished_jobs:
                continue
            outcome = Outcome.read(path.parent)
            if outcome is None:
                continue
            if outcome.status == "RUNNING":
                self.running_jobs[job] = outcome
            else:
                self.running_jobs.pop(job, None)
                self.finished_jobs[job] = outcome
                self._print_outcome(outcome)

    def _print_outcome(self, outcome: Outcome) -> None:
        line, style = self._outcome_line(outcome), "red" if outcome.status not in ("FINISHED", "PRUNED") else None
        if self._console.is_terminal:
            self._console.print(line, style=style, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(line, soft_wrap=True)

    def _outcome_line(self, outcome: Outcome) -> str:
        """Return the line about a job that has ended."""
        count = f"{len(self.finished_jobs)}" + (f"/{self.total_jobs}" if self.total_jobs else "")
        return f"{count:>7}  {outcome.describe(self.common_overrides)}   {self._result_text(outcome)}"

    def _result_text(self, outcome: Outcome) -> str:
        if outcome.status != "FINISHED":
            return f"{outcome.status}: {' '.join(outcome.error.split())}"
        metrics = outcome.metrics
        scores = "   ".join(f"{name} {metrics[name]:.4f}" for name in ("rmse", "mae", "r2"))
        return f"{scores}   " + ("reused" if outcome.reused else f"fitted in {metrics['fit_seconds']:.2f} s")

    def render(self) -> Group:
        """Return the live lines: overall progress, and a line for each running job."""
        running = sorted(self.running_jobs.values(), key=lambda outcome: outcome.worker)
        return Group("", self._progress_line(), *(self._worker_line(outcome) for outcome in running[:MAX_WORKERS]))

    def _progress_line(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        progress = ProgressBar(
            total=self.total_jobs or None, completed=len(self.finished_jobs), width=30, pulse=not self.total_jobs
        )
        count = f"{len(self.finished_jobs)}/{self.total_jobs or '?'}"
        grid.add_row(progress, count, self._status_counts(), self._best_score(), self._time_left())
        return grid

    def _status_counts(self) -> str:
        outcomes = self.finished_jobs.values()
        counts = Counter("reused" if outcome.reused else outcome.status.lower() for outcome in outcomes)
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    def _best_score(self) -> str:
        scores = [outcome.metrics[self.metric] for outcome in self.finished_jobs.values() if outcome.status == "FINISHED"]
        best = min(scores, key=lambda score: as_loss(self.metric, score), default=None)
        return "" if best is None else f"best {self.metric} {best:.4f}"

    def _time_left(self) -> str:
        """Estimate the time left from the average duration of the jobs that were not reused."""
        fitted = sum(not outcome.reused for outcome in self.finished_jobs.values())
        if not fitted or not self.total_jobs:
            return ""
        seconds = (time.time() - self._started_at) / fitted * (self.total_jobs - len(self.finished_jobs))
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def _worker_line(self, outcome: Outcome) -> RenderableType:
        seconds = time.time() - outcome.started_at
        line = f"  {outcome.worker}  {outcome.describe(self.common_overrides)}  {seconds:.0f} s  {outcome.progress}"
        return clipped_line(line, style="dim")
