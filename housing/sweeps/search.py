"""Optuna search: asks a study for trials, runs them as jobs, and reports their outcomes to the study.

The study is stored on disk. A trial that started and has no result runs again when the search continues; the run key
prevents fitting the same model twice.
"""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from housing.command_line.config_errors import config_errors
from housing.core.config import instantiate
from housing.core.errors import ConfigError, HousingError
from housing.core.files import atomic_write
from housing.core.locks import machine_lock, store_file
from housing.core.printable import show
from housing.data.split import split
from housing.runs.outcome import Outcome
from housing.runs.pruning import SEARCH_FILE, resume_trial
from housing.runs.run import STOP_FILE
from housing.runs.run_key import run_key
from housing.scoring.metrics import COST_METRICS, SCORES, as_loss
from housing.streaming.loading import load
from housing.sweeps.progress import COMPLETED
from housing.sweeps.sweep import Sweep

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FINGERPRINT_ATTR = "housing.search_fingerprint"  # attribute of a study: everything that decides a trial's result
OUTCOME_ATTR = "housing.outcome"  # attribute of a trial: the outcome of its job

DECIDES_SCORED_ROWS = ("data", "split", "evaluation", "max_rows")  # parts of the config

Launch = Callable[[int, Sequence[str]], None]  # runs the job of this number with these overrides


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search."""

    folder: Path
    label: str  # start of the study's name
    n_trials: int
    n_jobs: int
    objectives: list[str]
    sampler: DictConfig
    pruner: DictConfig
    storage: str
    study_name: str | None

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Return the settings in a config of housing.train with the sweeper `search`.

        Raises
        ------
        ConfigError
            If a setting is not allowed.
        """
        options = cfg.hydra.sweeper
        for name in ("n_trials", "n_jobs"):
            if not isinstance(options[name], int) or options[name] < 1:
                raise ConfigError(f"hydra.sweeper.{name} must be a whole number, at least 1 (got {options[name]!r}).")
        objectives, known = list(options.objectives), dict.fromkeys((cfg.metric, *SCORES, *COST_METRICS))
        if not objectives or not set(objectives) <= set(known):
            raise ConfigError(f"hydra.sweeper.objectives must be at least one of {', '.join(known)} (got {objectives}).")
        if options.n_jobs > 1 and "basic_launcher" in cfg.hydra.launcher.get("_target_", ""):
            raise ConfigError(
                f"hydra.sweeper.n_jobs={options.n_jobs} needs a launcher for parallel jobs. Add: hydra/launcher=processes"
            )
        return cls(
            folder=Path(cfg.hydra.sweep.dir),
            label=f"{cfg.experiment_name} {cfg.model.name}",
            n_trials=options.n_trials,
            n_jobs=options.n_jobs,
            objectives=objectives,
            sampler=options.sampler,
            pruner=options.pruner,
            storage=options.storage,
            study_name=options.study_name,
        )


def run(cfg: DictConfig, overrides: Sequence[Override], launch: Launch, stop: Callable[[], None] | None) -> None:
    """Search until the study has its number of trials. An error that the user can fix ends the process with its message."""
    try:
        with config_errors(cfg):
            settings = SearchSettings.from_config(cfg)
        search = Search(settings, overrides, launch, lambda: _base_run_key(cfg))
        with machine_lock(search.name, kind="searches"):
            search.run(stop)
    except HousingError as error:
        raise SystemExit(f"error: {error}") from error


def _base_run_key(cfg: DictConfig) -> str:
    """Return the run key of the config that the search varies."""
    names = [str(name) for name in cfg if name != "hydra"]
    resolved: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, names), resolve=True)
    table = load(cfg)
    return run_key(resolved, table, split(table, cfg.split))


class Search:
    """A running search."""

    def __init__(
        self, settings: SearchSettings, overrides: Sequence[Override], launch: Launch, base_run_key: Callable[[], str]
    ) -> None:
        self.settings, self.launch, self._base_run_key = settings, launch, base_run_key
        self.space = {o.get_key_element(): parse_distribution(o) for o in overrides if o.is_sweep_override()}
        if not self.space:
            raise ConfigError(
                "The search has no parameters to vary. Add a search space, such as search=xgboost, or values, such as"
                " 'model.estimator.max_depth=range(2,12)'."
            )
        mixed = [name for name in self.space if name.partition(".")[0] in DECIDES_SCORED_ROWS]
        if mixed:
            raise ConfigError(
                f"A search cannot vary {', '.join(mixed)}: scores of different rows cannot be compared."
                " Run one search for each value."
            )
        self.fixed = [str(o.input_line) for o in overrides if not o.is_sweep_override() and not o.is_hydra_override()]
        self._lock = threading.Lock()
        self._stopped = False
        self._resumed: list[optuna.Trial] = []
        self._budget = 0

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides a trial's result: the varied run, the space, the objectives, sampler and pruner."""
        return {
            "base run": self._base_run_key(),
            "space": {name: repr(distribution) for name, distribution in self.space.items()},
            "objectives": self.settings.objectives,
            "sampler": OmegaConf.to_container(self.settings.sampler, resolve=True),
            "pruner": OmegaConf.to_container(self.settings.pruner, resolve=True),
        }

    @cached_property
    def name(self) -> str:
        """The study's name. Unless the user sets it, another search has another name."""
        digest = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()
        return self.settings.study_name or f"{self.settings.label} {digest[:12]}"

    @cached_property
    def study(self) -> "optuna.Study":
        """The stored study.

        Raises
        ------
        ConfigError
            If the storage is unusable, or its study of this name belongs to another search.
        """
        study, storage = self._load_or_create_study(), self.settings.storage
        known = study.user_attrs.get(FINGERPRINT_ATTR)
        if known is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(FINGERPRINT_ATTR, self.fingerprint)
        elif known != self.fingerprint:
            differing = [name for name, value in self.fingerprint.items() if (known or {}).get(name) != value]
            raise ConfigError(
                f"Study {self.name!r} in {storage} belongs to another search: {', '.join(differing)} differ."
                " Choose another hydra.sweeper.study_name or hydra.sweeper.storage."
            )
        return study

    def _load_or_create_study(self) -> "optuna.Study":
        # pylint: disable=import-outside-toplevel  # 1 s that only a search needs
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = self.settings.storage
        if (file := store_file(storage)) is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        try:
            return optuna.create_study(
                storage=storage,
                study_name=self.name,
                directions=["minimize"] * len(self.settings.objectives),
                load_if_exists=True,
            )
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"Could not open hydra.sweeper.storage={storage}: {reason}. Expected sqlite:///FILE, or the URL of a database."
            ) from error

    def run(self, stop: Callable[[], None] | None) -> None:
        """Run the trials that an earlier sweep did not finish, then new ones, `n_jobs` at a time."""
        self._write_search_file()
        self._resumed = self._unfinished_trials()
        n_known = sum(trial.params.keys() == self.space.keys() for trial in self.study.get_trials(deepcopy=False))
        self._budget = max(0, self.settings.n_trials - n_known)
        if Sweep.current is not None:
            Sweep.current.set_job_count(self._restore_outcomes() + len(self._resumed) + self._budget, self.fixed)
        n_trials, n_resumed = self.settings.n_trials, len(self._resumed)
        show(f"Search {self.name}: {n_known} of {n_trials} trials known, {n_resumed} of them unfinished.")
        if self.settings.n_jobs == 1:
            self._worker()
        else:
            self._run_workers(stop)

    def _run_workers(self, stop: Callable[[], None] | None) -> None:
        threads = [threading.Thread(target=self._worker, daemon=True) for _ in range(self.settings.n_jobs)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self._stopped = True
            if stop is not None:
                stop()
            raise

    def _write_search_file(self) -> None:
        description = {"storage": self.settings.storage, "study_name": self.name, "pruner": self.fingerprint["pruner"]}
        with atomic_write(self.settings.folder / SEARCH_FILE) as partial:
            partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    def _unfinished_trials(self) -> "list[optuna.Trial]":
        """Return the trials without a result. A trial without all parameters is marked as failed: a new one takes its place."""
        import optuna  # pylint: disable=import-outside-toplevel

        resumed = []
        for trial in self.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
            if trial.params.keys() == self.space.keys():
                resumed.append(resume_trial(self.study, trial.number))
            else:
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return resumed

    def _restore_outcomes(self) -> int:
        """Write the outcomes of finished trials into this sweep's folder, and return their number."""
        trials = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished() and OUTCOME_ATTR in trial.user_attrs
        ]
        for trial in trials:
            outcome = Outcome(**trial.user_attrs[OUTCOME_ATTR])
            replace(outcome, reused=outcome.status in COMPLETED).write(self._job_folder(trial.number))
        return len(trials)

    def _worker(self) -> None:
        while (trial := self._next_trial()) is not None:
            self.launch(job_number(trial.number), [*self.fixed, *self._trial_overrides(trial.params), f"trial={trial.number}"])
            if not self._stopped:
                self._report_outcome(trial, Outcome.read(self._job_folder(trial.number)))

    def _next_trial(self) -> "optuna.Trial | None":
        with self._lock:
            if self._stopped:
                return None
            if self._resumed:
                return self._resumed.pop(0)
            if not self._budget:
                return None
            self._budget -= 1
            return self._suggest()

    def _suggest(self) -> "optuna.Trial":
        """Return the next trial, sampled with a seed of its own, so that a continued search equals an uninterrupted one."""
        number = len(self.study.get_trials(deepcopy=False))
        sampler = OmegaConf.merge(self.settings.sampler, {"seed": self.settings.sampler.seed + number})
        self.study.sampler = instantiate(cast(DictConfig, sampler))
        return self.study.ask(self.space)

    def _job_folder(self, trial_number: int) -> Path:
        return self.settings.folder / str(job_number(trial_number))

    def _trial_overrides(self, params: dict[str, Any]) -> list[str]:
        return [
            f"{name}={params[name]!r}" if isinstance(params[name], float) else f"{name}={params[name]}" for name in self.space
        ]

    def _report_outcome(self, trial: "optuna.Trial", outcome: Outcome | None) -> None:
        """Report an outcome to the study. A trial that did not start, or that stopped the sweep, stays open and runs again."""
        from optuna.trial import TrialState  # pylint: disable=import-outside-toplevel

        values = (
            [as_loss(name, outcome.metrics.get(name, math.nan)) for name in self.settings.objectives] if outcome else [math.nan]
        )
        with self._lock:
            if outcome is not None:
                trial.set_user_attr(OUTCOME_ATTR, asdict(outcome))
            if outcome is not None and outcome.status == "FINISHED" and all(map(math.isfinite, values)):
                self.study.tell(trial, values)
            elif outcome is not None and outcome.status == "PRUNED":
                self.study.tell(trial, state=TrialState.PRUNED)
            elif (self.settings.folder / STOP_FILE).exists():
                self._stopped = True
            else:
                self.study.tell(trial, state=TrialState.FAIL)


def job_number(trial_number: int) -> int:
    """Return the number of a trial's job: jobs count from 1, Optuna's trials from 0."""
    return trial_number + 1


def parse_distribution(override: Override) -> "BaseDistribution":
    """Return Optuna's distribution for a sweep in Hydra's grammar.

    Raises
    ------
    ConfigError
        If Optuna has no such distribution.
    """
    from optuna.distributions import (  # pylint: disable=import-outside-toplevel
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    value, log = override.value(), _is_logarithmic(override)
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(value, RangeSweep):
        values = list(value.range())
        if not values:
            raise ConfigError(f"{override.input_line}: the range is empty.")
        if all(isinstance(number, int) for number in values):
            return IntDistribution(min(values), max(values), step=abs(int(value.step)), log=log)
        return CategoricalDistribution([repr(number) for number in values])
    if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None and value.start < value.end:
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    raise ConfigError(
        f"Could not search over {override.input_line}. Expected choice(), range(), interval() or tag(log, interval())."
    )


def _is_logarithmic(override: Override) -> bool:
    """Return whether a parameter is sampled on a logarithmic scale. Raises ConfigError if its values cannot be."""
    value = override.value()
    if "log" not in getattr(value, "tags", ()):
        return False
    if isinstance(value, RangeSweep):
        values = list(value.range())
        is_valid = all(isinstance(number, int) for number in values) and abs(value.step) == 1
        lowest = min(values, default=1)
    else:
        is_valid = isinstance(value, IntervalSweep)
        lowest = getattr(value, "start", None) or 0
    if not is_valid:
        raise ConfigError(f"{override.input_line}: tag(log) needs an interval(), or a range() of integers with step 1.")
    if lowest <= 0:
        raise ConfigError(
            f"{override.get_key_element()}: tag(log) needs a lower bound above 0 (got {override.input_line})."
            " Use a positive bound, or an interval without the tag."
        )
    return True
