"""How often the canary's sequential test is right and wrong, and how many true values it needs: scripts/bench canary.

Each trial is a stream of true values. The test is looked at after every one, until it makes a claim.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import yaml
from numpy.typing import NDArray

from housing.core.environment import PROJECT
from housing.evaluation.bootstrap import compute_loss
from housing.evaluation.paired_test import student_bounds
from housing.evaluation.sequential_test import SequentialRules, not_worse_claims, worse_claims
from tests.support.gate_simulation import LIMITS, SIMULATED, Errors, Scenario, rescaled, swapped
from tests.support.promotions import development_errors

TRIALS = 1000
GOAL = 500  # true values before which a model with a 10 % higher error has to be taken back
HORIZON = 5000  # true values after which a trial ends
BATCH_SIZE = 1_000_000  # errors in memory at once
NEVER = HORIZON + 1
METRICS = ("rmse", "mae")


def rules(metric: str) -> SequentialRules:
    """Return the rules of conf/canary.yaml."""
    conf = yaml.safe_load((PROJECT / "conf" / "canary.yaml").read_text(encoding="utf-8"))["rules"]
    return SequentialRules(metric, conf["margin"], conf["take_back_alpha"], conf["take_over_alpha"], conf["min_groups"])


RULES = rules("rmse")


@dataclass(frozen=True)
class Ends:
    """After how many true values each trial ended, or NEVER: shape (trials,) each."""

    taken_back: NDArray[np.int64]
    took_over: NDArray[np.int64]

    @property
    def is_taken_back(self) -> NDArray[np.bool_]:
        """The trials in which the challenger was taken back. Both claims at once count as worse."""
        return np.asarray((self.taken_back < NEVER) & (self.taken_back <= self.took_over))

    @property
    def has_taken_over(self) -> NDArray[np.bool_]:
        """The trials in which the challenger took over."""
        return np.asarray((self.took_over < NEVER) & (self.took_over < self.taken_back))


def run_trials(scenario: Scenario, rules: SequentialRules, trials: int = TRIALS, horizon: int = HORIZON) -> Ends:
    """Return the ends of a number of trials."""
    random, batch = np.random.default_rng(trials), max(1, BATCH_SIZE // horizon)
    parts = [_run_batch(scenario, rules, random, (min(batch, trials - start), horizon)) for start in range(0, trials, batch)]
    return Ends(*map(np.concatenate, zip(*parts, strict=True)))


def _run_batch(
    scenario: Scenario, rules: SequentialRules, random: np.random.Generator, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    challenger, champion = scenario(random, shape)
    return _first(worse_claims(rules, challenger, champion)), _first(not_worse_claims(rules, challenger, champion))


def _first(claims: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(claims.any(axis=1), claims.argmax(axis=1) + 1, NEVER)


def enlarged(scenario: Scenario, factor: float) -> Scenario:
    """Return a scenario in which the challenger's errors are larger by a factor."""

    def draw(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Errors, Errors]:
        challenger, champion = scenario(random, shape)
        return factor * challenger, champion

    return draw


def _single_look(scenario: Scenario, metric: str) -> float:
    """Return how often Student's test takes the challenger back that looks once, at GOAL true values."""
    challenger, champion = scenario(np.random.default_rng(0), (TRIALS, GOAL))
    losses = compute_loss(challenger, metric) - compute_loss(champion, metric)
    return float((student_bounds(-losses, 1 - RULES.take_back_alpha) < 0).mean())


def _print_line(name: str, scenario: Scenario, metric: str) -> None:
    ends = run_trials(scenario, rules(metric))
    soon = ends.is_taken_back & (ends.taken_back < GOAL)
    needed = np.minimum(ends.taken_back, ends.took_over)
    shares = [soon.mean(), _single_look(scenario, metric), ends.is_taken_back.mean(), ends.has_taken_over.mean()]
    counts = [f"{count:,.0f}" if count < NEVER else f"> {HORIZON:,}" for count in np.quantile(needed, (0.5, 0.95))]
    print(f"| {name}, {metric} | {' | '.join(f'{100 * share:.1f}' for share in shares)} | {' | '.join(counts)} |", flush=True)


def _print_table(title: str, scenarios: Mapping[str, Scenario], metric: str) -> None:
    columns = (
        f"back before {GOAL}, %",
        f"one look at {GOAL}, %",
        "back ever, %",
        "took over, %",
        "true values, median",
        "true values, 95 % of trials",
    )
    print(f"\n| {title} | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}", flush=True)
    for name, scenario in scenarios.items():
        _print_line(name, scenario, metric)


def print_simulation(errors: Mapping[str, Errors]) -> None:
    """Print the tables. `errors` are those of real models on the same rows, by model."""
    champion = errors["xgboost"]
    kinds = {"another seed": "another seed", "another kind": "extra_trees"}
    for metric in METRICS:
        effects = {
            f"{kind}, {_describe(effect)}": swapped(errors[model], champion, -effect)
            for kind, model in kinds.items()
            for effect in (0.1, 0.05, 0.0, -0.02, -0.05)
        }
        _print_table("California, errors swapped at random", effects, metric)
        equal = {
            f"{name}, equal {metric.upper()}": rescaled(errors[name], champion, metric) for name in errors if name != "xgboost"
        }
        _print_table("California, errors of their own", equal, metric)
    _print_table("simulated, equal RMSE", {**SIMULATED, **LIMITS}, "rmse")
    by_margin = {name: enlarged(scenario, 1 + RULES.margin) for name, scenario in {**SIMULATED, **LIMITS}.items()}
    _print_table(f"simulated, {_describe(RULES.margin)}", by_margin, "rmse")


def _describe(effect: float) -> str:
    return "equal" if not effect else f"{abs(effect):.0%} {'higher' if effect > 0 else 'lower'} error"


if __name__ == "__main__":
    print_simulation(development_errors()[0])
