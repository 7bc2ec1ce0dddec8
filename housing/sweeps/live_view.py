"""Live view of a running sweep, read from the jobs' folders so that it is the same under every launcher."""

import threading
import time

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from housing.command_line.console import clipped_line, create_console
from housing.runs.outcome import Outcome
from housing.runs.progress_bar import REFRESH_SECONDS
from housing.sweeps.progress import COMPLETED, SweepProgress

MAX_WORKERS = 16  # lines for running jobs


class LiveView:
    """Print a line for each job that ends, and on a terminal also live lines for progress and running jobs."""

    def __init__(self, progress: SweepProgress) -> None:
        self.progress = progress
        self.lock = threading.Lock()  # of the progress, which the page of a running sweep reads too
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
        with self.lock:
            n_before, ended = self.progress.n_ended, self.progress.update()
        for number, outcome in enumerate(ended, start=n_before + 1):
            self._print_outcome(number, outcome)

    def _print_outcome(self, number: int, outcome: Outcome) -> None:
        line, style = self._outcome_line(number, outcome), None if outcome.status in COMPLETED else "red"
        if self._console.is_terminal:
            self._console.print(line, style=style, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(line, soft_wrap=True)

    def _outcome_line(self, number: int, outcome: Outcome) -> str:
        """Return the line about a job that has ended."""
        count = f"{number}" + (f"/{self.progress.total_jobs}" if self.progress.total_jobs else "")
        return f"{count:>7}  {outcome.describe(self.progress.common_overrides)}   {self._result_text(outcome)}"

    def _result_text(self, outcome: Outcome) -> str:
        if outcome.status != "FINISHED":
            return f"{outcome.status}: {' '.join(outcome.error.split())}"
        metrics = outcome.metrics
        scores = "   ".join(f"{name} {metrics[name]:.4f}" for name in ("rmse", "mae", "r2"))
        return f"{scores}   " + ("reused" if outcome.reused else f"fitted in {metrics['fit_seconds']:.2f} s")

    def render(self) -> Group:
        """Return the live lines: overall progress, and a line for each running job."""
        with self.lock:
            running = sorted(self.progress.running.values(), key=lambda outcome: outcome.worker)
            return Group("", self._progress_line(), *(self._worker_line(outcome) for outcome in running[:MAX_WORKERS]))

    def _progress_line(self) -> Table:
        progress, grid = self.progress, Table.grid(padding=(0, 2))
        progress_bar = ProgressBar(
            total=progress.total_jobs or None, completed=progress.n_ended, width=30, pulse=not progress.total_jobs
        )
        best = f"best {progress.metric} {progress.best_score}" if progress.best else ""
        left = f"{progress.time_left} left" if progress.time_left else ""
        grid.add_row(progress_bar, f"{progress.n_ended}/{progress.total_jobs or '?'}", progress.status_counts, best, left)
        return grid

    def _worker_line(self, outcome: Outcome) -> RenderableType:
        seconds = time.time() - outcome.started_at
        line = f"  {outcome.worker}  {outcome.describe(self.progress.common_overrides)}  {seconds:.0f} s  {outcome.progress}"
        return clipped_line(line, style="dim")
