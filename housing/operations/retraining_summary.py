"""What came of a retraining, and how it is told: a page in Markdown, and lines that a shell and GitHub Actions read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from housing.runs.outcome import Outcome

UP_TO_DATE, NO_NEW_LABELS = "UP TO DATE", "NO NEW LABELS"  # beside the gate's verdicts


REPORTED_METRICS = ("rmse", "mae", "r2")


@dataclass
class RetrainingSummary:
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
    gate_metrics: Mapping[str, float] = field(default_factory=dict)  # what the gate measured

    def to_markdown(self) -> str:
        """Tell all of it in Markdown."""
        new = f"{self.rows:,} rows, {self.new_rows:,} of them new since the last retraining"
        facts = [f"- table `{self.fingerprint[:12]}`: {new}", *(f"- {reason}" for reason in self.reasons)]
        if self.version:
            facts.append(f"- `{self.alias}` is version {self.version}, {'of this retraining' if self.moved else 'as before'}")
        return "\n".join(
            [f"## Retraining {self.table}: {self.verdict}", "", *facts, "", *self._sweep_table(), *self._gate_table()]
        )

    def _sweep_table(self) -> list[str]:
        if not self.jobs:
            return []
        common = set.intersection(*(set(job.overrides) for job in self.jobs))
        best_first = sorted(self.jobs, key=lambda job: job.metrics.get(REPORTED_METRICS[0], float("inf")))
        rows = [(job.describe(common), job.metrics) for job in best_first]
        return _markdown_table(f"sweep `{self.sweep[:8]}`, validation rows", rows)

    def _gate_table(self) -> list[str]:
        who = ("challenger", "champion")
        rows = [
            (
                name,
                {
                    score: self.gate_metrics[f"{name}_{score}"]
                    for score in REPORTED_METRICS
                    if f"{name}_{score}" in self.gate_metrics
                },
            )
            for name in who
        ]
        return _markdown_table("gate, test rows", rows) if self.gate_metrics else []

    def to_output_lines(self) -> str:
        """Tell what the next step asks, as `name=value`."""
        told = {"verdict": self.verdict, "moved": str(self.moved).lower(), "version": self.version}
        return "".join(f"{name}={value}\n" for name, value in told.items())

    def append_to_files(self, summary_file: Path, output_file: Path) -> None:
        """Add both to their files."""
        for path, text in ((summary_file, self.to_markdown()), (output_file, self.to_output_lines())):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)


def _markdown_table(title: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> list[str]:
    lines = [f"| {title} | {' | '.join(REPORTED_METRICS)} |", f"|---|{'---:|' * len(REPORTED_METRICS)}"]
    for name, scores in rows:
        lines.append(
            f"| {name} | {' | '.join(f'{scores[score]:.4f}' if score in scores else '' for score in REPORTED_METRICS)} |"
        )
    return [*lines, ""]
