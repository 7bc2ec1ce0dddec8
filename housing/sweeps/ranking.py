"""Ranking of a sweep's jobs: best first, with the varied parameters, the Pareto set and the reasons of failures."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from housing.runs.outcome import Outcome
from housing.scoring.metrics import HIGHER_IS_BETTER, as_loss

COST_UNITS = {"fit_seconds": "s", "latency_us": "µs", "model_bytes": "bytes"}
SCORES_IN_UNIT = ("rmse", "mae", "medae")  # scores in the target's unit


@dataclass(frozen=True)
class Parameter:
    """A parameter that a sweep varies, with its value in each job; "" in a job that does not set it."""

    name: str
    values: list[str]

    @property
    def label(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    @cached_property
    def numbers(self) -> list[float] | None:
        """The values as numbers, or None unless all are finite numbers."""
        try:
            numbers = [float(value) for value in self.values]
        except ValueError:
            return None
        return numbers if all(map(math.isfinite, numbers)) else None

    @cached_property
    def distinct_values(self) -> list[str]:
        """The distinct values, sorted."""
        if self.numbers is None:
            return sorted(set(self.values))
        return [value for _, value in sorted({(float(value), value) for value in self.values})]

    @property
    def is_logarithmic(self) -> bool:
        """Whether the values are positive numbers that span at least two powers of ten."""
        return self.numbers is not None and min(self.numbers) > 0 and max(self.numbers) >= 100 * min(self.numbers)


@dataclass(frozen=True)
class Ranking:
    """The jobs of a sweep, ranked by the first objective. Each objective is minimized, except R2.

    Methods take and return indices of `outcomes`; people see `job_numbers`.
    """

    title: str
    outcomes: list[Outcome]
    objectives: list[str]
    unit: str = ""  # of the target
    promote_command: str = ""

    @cached_property
    def job_numbers(self) -> list[int]:
        """The number of each job in its sweep, from 1."""
        return [index + 1 if outcome.job is None else outcome.job for index, outcome in enumerate(self.outcomes)]

    @cached_property
    def parameters(self) -> list[Parameter]:
        """The overrides that differ between jobs, in the order of the command line."""
        overrides = [_overrides(outcome) for outcome in self.outcomes]
        names = list(dict.fromkeys(name for job in overrides for name in job))
        parameters = [Parameter(name, [job.get(name, "") for job in overrides]) for name in names]
        return [parameter for parameter in parameters if len(set(parameter.values)) > 1]

    @cached_property
    def ranked(self) -> list[int]:
        """The finished jobs, best first, then the others in their order."""
        others = [index for index, outcome in enumerate(self.outcomes) if outcome.status != "FINISHED"]
        return self.finished + others

    @cached_property
    def finished(self) -> list[int]:
        """The finished jobs, best first. Jobs that were scored on the same rows stay together."""
        return [index for group in self.groups for index in group]

    @cached_property
    def groups(self) -> list[list[int]]:
        """The finished jobs by the rows that they were scored on, each group best first."""
        groups: dict[str, list[int]] = {}
        for index, outcome in enumerate(self.outcomes):
            if outcome.status == "FINISHED":
                groups.setdefault(outcome.scored_rows, []).append(index)
        return [sorted(group, key=lambda index: as_loss(self.objectives[0], self.metric(index))) for group in groups.values()]

    @cached_property
    def ranks(self) -> dict[int, str]:
        """The rank of each finished job: 1, 2, or with its group before it if there are several: 1.1, 1.2, 2.1."""
        prefixes = [f"{number}." if len(self.groups) > 1 else "" for number in range(1, len(self.groups) + 1)]
        return {
            index: f"{prefix}{rank}"
            for prefix, group in zip(prefixes, self.groups, strict=True)
            for rank, index in enumerate(group, start=1)
        }

    @property
    def group_note(self) -> str:
        """A sentence for people if the jobs were scored on different rows, else ""."""
        if len(self.groups) < 2:
            return ""
        return (
            f"The jobs were scored on {len(self.groups)} different sets of rows, and such scores cannot be compared."
            " Each set is ranked by itself (1.1, 1.2, 2.1), and the sweep has no best run."
        )

    @cached_property
    def pareto_front(self) -> set[int]:
        """The Pareto set of several objectives; empty if there is only one."""
        if len(self.objectives) == 1:
            return set()
        groups = ([self.outcomes[index] for index in group] for group in self.groups)
        optimal = {id(member) for group in groups for member in pareto_optimal(group, self.objectives)}
        return {index for index, outcome in enumerate(self.outcomes) if id(outcome) in optimal}

    @cached_property
    def failures(self) -> list[tuple[str, str, list[int]]]:
        """The reasons why jobs did not finish, most frequent first: status, reason, jobs."""
        failures: dict[tuple[str, str], list[int]] = {}
        for index, outcome in enumerate(self.outcomes):
            if outcome.status not in ("FINISHED", "PRUNED"):
                failures.setdefault((outcome.status, outcome.error), []).append(index)
        return sorted(((*cause, jobs) for cause, jobs in failures.items()), key=lambda failure: -len(failure[2]))

    def metric(self, index: int, name: str | None = None) -> float:
        """Return a metric of a finished job, the first objective by default."""
        return self.outcomes[index].metrics[name or self.objectives[0]]

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values of the first objective are better."""
        return self.objectives[0] in HIGHER_IS_BETTER

    @property
    def direction(self) -> str:
        """Whether lower or higher values of the first objective are better, for people."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    def label(self, metric: str | None = None) -> str:
        """Return a metric's name with its unit, the first objective's by default."""
        name = metric or self.objectives[0]
        unit = self.unit if name in SCORES_IN_UNIT else COST_UNITS.get(name, "")
        return f"{name} ({unit})" if unit else name


def pareto_optimal(outcomes: Sequence[Outcome], objectives: Sequence[str]) -> list[Outcome]:
    """Return the finished outcomes that no other outcome dominates.

    An outcome dominates another if it is at least as good in every objective and better in one.
    """
    scores = {
        index: tuple(as_loss(name, outcome.metrics[name]) for name in objectives)
        for index, outcome in enumerate(outcomes)
        if outcome.status == "FINISHED"
    }
    front: list[tuple[float, ...]] = []
    for values in sorted(set(scores.values())):  # what dominates another comes before it, so the front alone has to be compared
        if not any(all(map(operator.le, member, values)) for member in front):
            front.append(values)
    optimal = set(front)
    return [outcomes[index] for index, values in scores.items() if values in optimal]


def best_outcomes(outcomes: list[Outcome], metric: str) -> list[Outcome]:
    """Return the finished outcome with the best metric for each set of rows that outcomes were scored on."""
    best: dict[str, Outcome] = {}
    for outcome in outcomes:
        rows = outcome.scored_rows
        if outcome.status == "FINISHED" and (rows not in best or _loss(outcome, metric) < _loss(best[rows], metric)):
            best[rows] = outcome
    return list(best.values())


def best_run_id(outcomes: list[Outcome], metric: str) -> str | None:
    """Return the run with the best metric, or None if none finished, or if they were scored on different rows."""
    best = best_outcomes(outcomes, metric)
    return best[0].run_id if len(best) == 1 else None


def _loss(outcome: Outcome, metric: str) -> float:
    return as_loss(metric, outcome.metrics[metric])


def _overrides(outcome: Outcome) -> dict[str, str]:
    """Return a job's overrides by name, without the number of its trial."""
    pairs = (override.lstrip("+").partition("=") for override in outcome.overrides)
    return {name: value for name, _, value in pairs if name != "trial"}
