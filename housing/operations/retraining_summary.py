"""Summary of a retraining: a Markdown page, and `name=value` lines for shells and GitHub Actions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from housing.runs.outcome import Outcome

UP_TO_DATE, NO_NEW_LABELS = "UP TO DATE", "NO NEW LABELS"  # verdicts without a promotion
REPORTED_METRICS = ("rmse", "mae", "r2")


@dataclass
class RetrainingSummary:
    """A retraining: the table, and the results of the sweep and the gate if they ran.

    Attributes
    ----------
    new_rows
        Rows since the last retraining; negative if the table has lost rows.
    version
        The version at the alias.
    moved
        Whether this retraining moved the alias to that version.
    """

    table: str
    fingerprint: str
    rows: int
    new_rows: int
    alias: str
    verdict: str = ""
    reasons: list[str] = field(default_factory=list)
    version: str = ""
    moved: bool = False
    sweep: str = ""
    jobs: list[Outcome] = field(default_factory=list)
    gate_metrics: Mapping[str, float] = field(default_factory=dict)

    def to_markdown(self) -> str:
        """Return the summary as Markdown."""
        rows = f"{self.rows:,} rows, {self.new_rows:,} new since the last retraining"
        facts = [f"- table `{self.fingerprint[:12]}`: {rows}", *(f"- {reason}" for reason in self.reasons)]
        if self.version:
            facts.append(f"- `{self.alias}` is version {self.version} ({'moved' if self.moved else 'unchanged'})")
        title = f"## Retraining {self.table}: {self.verdict}"
        return "\n".join([title, "", *facts, "", *self._sweep_table(), *self._gate_table()])

    def _sweep_table(self) -> list[str]:
        if not self.jobs:
            return []
        common = set.intersection(*(set(job.overrides) for job in self.jobs))
        best_first = sorted(self.jobs, key=lambda job: job.metrics.get(REPORTED_METRICS[0], float("inf")))
        rows = [(job.describe(common), job.metrics) for job in best_first]
        return _markdown_table(f"sweep `{self.sweep[:8]}`, validation rows", rows)

    def _gate_table(self) -> list[str]:
        if not self.gate_metrics:
            return []
        rows = [(model, self._scores_of(model)) for model in ("challenger", "champion")]
        return _markdown_table("gate, test rows", rows)

    def _scores_of(self, model: str) -> dict[str, float]:
        names = ((metric, f"{model}_{metric}") for metric in REPORTED_METRICS)
        return {metric: self.gate_metrics[name] for metric, name in names if name in self.gate_metrics}

    def to_output_lines(self) -> str:
        """Return the values that the next step of a workflow needs, as `name=value` lines."""
        values = {"verdict": self.verdict, "moved": str(self.moved).lower(), "version": self.version}
        return "".join(f"{name}={value}\n" for name, value in values.items())

    def append_to_files(self, summary_file: Path, output_file: Path) -> None:
        """Append the Markdown and the output lines to their files."""
        for path, text in ((summary_file, self.to_markdown()), (output_file, self.to_output_lines())):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)


def _markdown_table(title: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> list[str]:
    lines = [f"| {title} | {' | '.join(REPORTED_METRICS)} |", f"|---|{'---:|' * len(REPORTED_METRICS)}"]
    for name, scores in rows:
        cells = (f"{scores[metric]:.4f}" if metric in scores else "" for metric in REPORTED_METRICS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
