"""What a sweep came to: its jobs ranked, what was varied between them, which none beats, and why others failed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from housing.runs.outcome import Outcome


@dataclass(frozen=True)
class Parameter:
    """What a sweep varies: the value that each job was asked to take, "" where it was not asked."""

    name: str
    values: list[str]

    @property
    def label(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    @cached_property
    def numbers(self) -> list[float] | None:
        """The values as numbers, or None where one is not."""
        try:
            numbers = [float(value) for value in self.values]
        except ValueError:
            return None
        return numbers if all(map(math.isfinite, numbers)) else None

    @cached_property
    def distinct_values(self) -> list[str]:
        """The different values, in order."""
        if self.numbers is None:
            return sorted(set(self.values))
        return [value for _, value in sorted({(float(value), value) for value in self.values})]

    @property
    def is_logarithmic(self) -> bool:
        """Whether the values are numbers over two powers of ten and more."""
        return self.numbers is not None and min(self.numbers) > 0 and max(self.numbers) >= 100 * min(self.numbers)


@dataclass(frozen=True)
class Ranking:
    """The jobs of a sweep in their order, and what they are ranked by: the first objective, less is better."""

    title: str
    outcomes: list[Outcome]
    objectives: list[str]

    @cached_property
    def parameters(self) -> list[Parameter]:
        """What differs between the jobs, in the order in which it was asked."""
        overrides = [_overrides(outcome) for outcome in self.outcomes]
        names = list(dict.fromkeys(name for job in overrides for name in job))
        parameters = [Parameter(name, [job.get(name, "") for job in overrides]) for name in names]
        return [parameter for parameter in parameters if len(set(parameter.values)) > 1]

    @cached_property
    def ranked(self) -> list[int]:
        """The finished jobs, best first, then the others in their order."""
        finished = [number for number, outcome in enumerate(self.outcomes) if outcome.status == "FINISHED"]
        others = [number for number, outcome in enumerate(self.outcomes) if outcome.status != "FINISHED"]
        return sorted(finished, key=lambda number: self.outcomes[number].metrics[self.objectives[0]]) + others

    @cached_property
    def finished(self) -> list[int]:
        """The finished jobs, best first."""
        return [number for number in self.ranked if self.outcomes[number].status == "FINISHED"]

    @cached_property
    def pareto_front(self) -> set[int]:
        """The Pareto set of several objectives; empty where there is only one."""
        best = pareto_optimal(self.outcomes, self.objectives) if len(self.objectives) > 1 else []
        return {number for number, outcome in enumerate(self.outcomes) if any(outcome is one for one in best)}

    def metric(self, number: int, name: str | None = None) -> float:
        """Give an objective of a finished job; the first unless told."""
        return self.outcomes[number].metrics[name or self.objectives[0]]

    @cached_property
    def failures(self) -> list[tuple[str, str, list[int]]]:
        """Why jobs did not finish, the most frequent first: status, reason, jobs."""
        failures: dict[tuple[str, str], list[int]] = {}
        for number, outcome in enumerate(self.outcomes):
            if outcome.status not in ("FINISHED", "PRUNED"):
                failures.setdefault((outcome.status, outcome.error), []).append(number)
        return sorted(((*why, jobs) for why, jobs in failures.items()), key=lambda failure: -len(failure[2]))


def pareto_optimal(outcomes: Sequence[Outcome], objectives: Sequence[str]) -> list[Outcome]:
    """Give the finished outcomes that no other beats: none is as good in every objective and better in one."""
    scores = {
        number: [outcome.metrics[name] for name in objectives]
        for number, outcome in enumerate(outcomes)
        if outcome.status == "FINISHED"
    }

    def dominated(candidate: list[float]) -> bool:
        return any(
            other != candidate and all(other_score <= own_score for other_score, own_score in zip(other, candidate, strict=True))
            for other in scores.values()
        )

    return [outcomes[number] for number, values in scores.items() if not dominated(values)]


def _overrides(outcome: Outcome) -> dict[str, str]:
    """Give what a job was asked, by name; a trial's number is no parameter."""
    pairs = (override.lstrip("+").partition("=") for override in outcome.overrides)
    return {name: value for name, _, value in pairs if name != "trial"}
