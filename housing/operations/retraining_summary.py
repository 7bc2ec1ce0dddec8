"""What came of a retraining, and how it is told: a page in Markdown, and lines that a shell and GitHub Actions read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from housing.runs.outcome import Outcome

NOTHING_NEW, NO_NEW_TRUTH = "NOTHING NEW", "DRIFT, NO NEW TRUTH"  # beside the gate's verdicts


SCORES = ("rmse", "mae", "r2")


@dataclass
class Retraining:
    """A retraining: the table, and what the sweep and the gate made of it, where they were asked."""

    table: str
    fingerprint: str
    rows: int
    new_rows: int  # since the last retraining
    alias: str
    verdict: str = ""
    reasons: list[str] = field(default_factory=list)
    version: str = ""  # at the alias
    moved: bool = False  # whether that version is of this retraining
    sweep: str = ""
    jobs: list[Outcome] = field(default_factory=list)
    tested: Mapping[str, float] = field(default_factory=dict)  # what the gate measured

    def page(self) -> str:
        """Tell all of it in Markdown."""
        new = f"{self.rows:,} rows, {self.new_rows:,} of them new since the last retraining"
        facts = [f"- table `{self.fingerprint[:12]}`: {new}", *(f"- {reason}" for reason in self.reasons)]
        if self.version:
            facts.append(f"- `{self.alias}` is version {self.version}, {'of this retraining' if self.moved else 'as before'}")
        return "\n".join([f"## Retraining {self.table}: {self.verdict}", "", *facts, "", *self._swept(), *self._tested()])

    def _swept(self) -> list[str]:
        if not self.jobs:
            return []
        common = set.intersection(*(set(job.overrides) for job in self.jobs))
        best_first = sorted(self.jobs, key=lambda job: job.metrics.get(SCORES[0], float("inf")))
        rows = [(job.asked(common), job.metrics) for job in best_first]
        return _grid(f"sweep `{self.sweep[:8]}`, validation rows", rows)

    def _tested(self) -> list[str]:
        who = ("challenger", "champion")
        rows = [
            (name, {score: self.tested[f"{name}_{score}"] for score in SCORES if f"{name}_{score}" in self.tested})
            for name in who
        ]
        return _grid("gate, test rows", rows) if self.tested else []

    def lines(self) -> str:
        """Tell what the next step asks, as `name=value`."""
        told = {"verdict": self.verdict, "moved": str(self.moved).lower(), "version": self.version}
        return "".join(f"{name}={value}\n" for name, value in told.items())

    def publish(self, summary: Path, outputs: Path) -> None:
        """Add both to their files."""
        for path, text in ((summary, self.page()), (outputs, self.lines())):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)


def _grid(title: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> list[str]:
    lines = [f"| {title} | {' | '.join(SCORES)} |", f"|---|{'---:|' * len(SCORES)}"]
    for name, scores in rows:
        lines.append(f"| {name} | {' | '.join(f'{scores[score]:.4f}' if score in scores else '' for score in SCORES)} |")
    return [*lines, ""]
