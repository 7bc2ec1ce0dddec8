"""What a sweep shows while it runs: read from the folders of its jobs, so that it is the same under every launcher."""

import threading
import time
from collections import Counter
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from housing.runs.outcome import OUTCOME, Outcome
from housing.runs.progress_bar import PERIOD

SHOWN_WORKERS = 16


class Watch:
    """Shows the jobs of a sweep until it is stopped: on a terminal live lines too, elsewhere a line for each job that ends."""

    def __init__(self, folder: Path, metric: str) -> None:
        self.folder, self.metric = folder, metric
        self.total, self.common = 0, set[str]()
        self.running: dict[str, Outcome] = {}
        self.ended: dict[str, Outcome] = {}
        self._begun = time.time()
        self._over = threading.Event()
        self._console = Console(highlight=False)
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4, transient=True)
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start()
        self._thread.start()

    def stop(self) -> None:
        """Show what is new, and end."""
        self._over.set()
        self._thread.join()
        self._live.stop()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self.look()
        self.look()

    def look(self) -> None:
        """Read what the jobs have written since the last look, and tell of those that have ended."""
        for path in sorted(self.folder.glob(f"*/{OUTCOME}"), key=lambda path: (len(path.parent.name), path.parent.name)):
            job = path.parent.name
            if job in self.ended:
                continue
            outcome = Outcome.read(path.parent)
            if outcome is None:
                continue
            if outcome.status == "RUNNING":
                self.running[job] = outcome
            else:
                self.running.pop(job, None)
                self.ended[job] = outcome
                self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        line, style = self._line(outcome), "red" if outcome.status not in ("FINISHED", "PRUNED") else None
        if self._console.is_terminal:
            self._console.print(line, markup=False, style=style, no_wrap=True, overflow="ellipsis")
        else:
            self._console.print(line, markup=False, soft_wrap=True)

    def _line(self, outcome: Outcome) -> str:
        """Give the one line that is said of a job that has ended."""
        number = f"{len(self.ended)}" + (f"/{self.total}" if self.total else "")
        return f"{number:>7}  {outcome.asked(self.common)}   {self._result(outcome)}"

    def _result(self, outcome: Outcome) -> str:
        if outcome.status != "FINISHED":
            return f"{outcome.status}: {' '.join(outcome.error.split())}"
        metrics = outcome.metrics
        scores = "   ".join(f"{name} {metrics[name]:.4f}" for name in ("rmse", "mae", "r2"))
        return f"{scores}   " + ("reused" if outcome.reused else f"fitted in {metrics['fit_seconds']:.2f} s")

    def render(self) -> Group:
        """Give the live lines: the bar with what came so far, and one line for each job that runs."""
        running = sorted(self.running.values(), key=lambda outcome: outcome.worker)
        return Group(Text(), self._bar(), *(self._worker(outcome) for outcome in running[:SHOWN_WORKERS]))

    def _bar(self) -> Grid:
        grid = Grid.grid(padding=(0, 2))
        progress = ProgressBar(total=self.total or None, completed=len(self.ended), width=30, pulse=not self.total)
        grid.add_row(progress, f"{len(self.ended)}/{self.total or '?'}", self._counts(), self._best(), self._left())
        return grid

    def _counts(self) -> str:
        counts = Counter("reused" if o.reused else o.status.lower() for o in self.ended.values())
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    def _best(self) -> str:
        scores = [outcome.metrics[self.metric] for outcome in self.ended.values() if outcome.status == "FINISHED"]
        return f"best {self.metric} {min(scores):.4f}" if scores else ""

    def _left(self) -> str:
        """Give the time that is left, if the rest goes as fast as what was not reused."""
        fitted = sum(not outcome.reused for outcome in self.ended.values())
        if not fitted or not self.total:
            return ""
        seconds = (time.time() - self._begun) / fitted * (self.total - len(self.ended))
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def _worker(self, outcome: Outcome) -> Text:
        line = f"  {outcome.worker}  {outcome.asked(self.common)}  {time.time() - outcome.started:.0f} s  {outcome.progress}"
        return Text(line, style="dim", overflow="ellipsis", no_wrap=True)
