"""Terminal output of a search: a line for each candidate, and on a terminal a live line with the best score and the time left."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import RenderableType
from rich.live import Live

from housing.automl.candidate_run import CandidateResult
from housing.command_line.console import clipped_line, create_console


class Progress:
    """Print what a search does, from the start of a block until its end."""

    def __init__(self, metric: str, seconds: float) -> None:
        self.metric = metric
        self._ends_at = time.monotonic() + seconds
        self._n_done, self._running, self._best = 0, "", ""
        self._console = create_console()
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def report_missing(self, libraries: Sequence[str]) -> None:
        """Print that candidates of libraries that are not installed are left out."""
        if libraries:
            names = ", ".join(libraries)
            self.report(f"Without candidates of {names}, which are not installed: pip install 'housing[boosters]'")

    def report(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True)

    def start(self, candidate: str) -> None:
        """Show that a candidate is being fitted."""
        self._running = candidate

    def show(self, text: str) -> None:
        """Show how far the candidate is."""
        self._running = f"{self._running.partition(':')[0]}: {text}"

    def end(self, result: CandidateResult | None, best: float | None, n_members: int) -> None:
        """Print the result of a candidate, if it has one, and the score of the best ensemble so far."""
        self._n_done += 1
        self._best = "" if best is None else f"best {self.metric} {best:.4f} (members: {n_members})"
        if result is not None:
            metrics = result.metrics
            seconds = "reused" if result.reused else f"fitted in {metrics['fit_seconds']:.1f} s"
            score = f"{self.metric} {metrics[self.metric]:.4f}"
            self.report(f"{self._n_done:>4}  {result.candidate.name:<20}  {score}   {seconds}   {self._best}")

    def _render(self) -> RenderableType:
        left = max(0, int(self._ends_at - time.monotonic()))
        parts = (f"{self._n_done} candidates done", self._running, self._best, f"{left // 60}:{left % 60:02d} left")
        return clipped_line("   ".join(part for part in parts if part), style="dim")
