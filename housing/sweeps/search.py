"""An Optuna search: which trials there are, which come next, and what is told of each.

The study lies on disk. A trial that was begun and has no result is run again when the search goes on; the run key
sees to it that nothing is fitted twice.
"""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from housing.core.command import USER_ERRORS
from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.core.files import atomic_write
from housing.core.locks import machine_lock
from housing.data import table as data
from housing.data.split import split
from housing.runs.outcome import Outcome
from housing.runs.pruning import SEARCH_FILE, resume_trial
from housing.runs.run import STOP_FILE
from housing.runs.run_key import run_key
from housing.sweeps.sweep import COMPLETED, Sweep
from housing.training.metrics import COST_METRICS, RANKING_METRICS

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FINGERPRINT_ATTR = "housing.search_fingerprint"  # attribute of a study: all that decides what a trial gives


OUTCOME_ATTR = "housing.outcome"  # attribute of a trial: what came of its job


Launch = Callable[[int, Sequence[str]], None]


def run(cfg: DictConfig, overrides: Sequence[Override], launch: Launch, stop: Callable[[], None] | None) -> None:
    """Search until the study has its number of trials; an error that the user can mend ends the process with its words."""
    try:
        search = Search(cfg, overrides, launch)
        with machine_lock(search.name, kind="searches"):
            search.run(stop)
    except USER_ERRORS as error:
        raise SystemExit(f"error: {error}") from error


@dataclass
class Search:
    """A search on its way."""

    cfg: DictConfig
    overrides: Sequence[Override]
    launch: Launch

    def __post_init__(self) -> None:
        options = self.options
        for name in ("n_trials", "n_jobs"):
            if not isinstance(options[name], int) or options[name] < 1:
                raise ConfigError(f"hydra.sweeper.{name} is {options[name]!r}; allowed: 1 and more")
        wrong = [name for name in options.objectives if name not in (*RANKING_METRICS, *COST_METRICS)]
        if wrong or not options.objectives:
            allowed = ", ".join((*RANKING_METRICS, *COST_METRICS))
            raise ConfigError(f"hydra.sweeper.objectives is {list(options.objectives)}; allowed: one or more of {allowed}")
        if options.n_jobs > 1 and "basic_launcher" in self.cfg.hydra.launcher.get("_target_", ""):
            raise ConfigError(f"hydra.sweeper.n_jobs is {options.n_jobs} with one process; add hydra/launcher=processes")
        self.space = {o.get_key_element(): _distribution(o) for o in self.overrides if o.is_sweep_override()}
        if not self.space:
            raise ConfigError(
                "the search has nothing to vary; allowed: a space such as search=xgboost, or values such as"
                " 'model.estimator.max_depth=range(2,12)'"
            )
        self.fixed = [str(o.input_line) for o in self.overrides if not o.is_sweep_override() and not o.is_hydra_override()]
        self._lock = threading.Lock()
        self._stopped = False
        self._resumed: list[optuna.Trial] = []
        self._budget = 0

    @property
    def options(self) -> DictConfig:
        """The sweeper's own config."""
        options: DictConfig = self.cfg.hydra.sweeper
        return options

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return Path(self.cfg.hydra.sweep.dir)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """All that decides what a trial gives: the run that is varied, the space, the objectives, how they are searched."""
        names = [str(name) for name in self.cfg if name != "hydra"]
        resolved: Any = OmegaConf.to_container(OmegaConf.masked_copy(self.cfg, names), resolve=True)
        table = data.load(self.cfg.data, self.cfg.max_rows)
        return {
            "base run": run_key(resolved, table, split(table, self.cfg.split)),
            "space": {name: repr(distribution) for name, distribution in self.space.items()},
            "objectives": list(self.options.objectives),
            "sampler": OmegaConf.to_container(self.options.sampler, resolve=True),
            "pruner": OmegaConf.to_container(self.options.pruner, resolve=True),
        }

    @cached_property
    def name(self) -> str:
        """The study's name, which another search does not have unless the user says so."""
        digest = hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()
        return self.options.study_name or f"{self.cfg.experiment_name} {self.cfg.model.name} {digest[:12]}"

    @cached_property
    def study(self) -> "optuna.Study":
        """The study on disk. Raises ConfigError where there can be none, or the one of this name is about something else."""
        # pylint: disable=import-outside-toplevel  # a second that only a search needs
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if self.options.storage.startswith("sqlite:///"):
            Path(self.options.storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            study = optuna.create_study(
                storage=self.options.storage,
                study_name=self.name,
                directions=["minimize"] * len(self.options.objectives),
                load_if_exists=True,
            )
        except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            allowed = "allowed: sqlite:///FILE, or the address of another database"
            raise ConfigError(
                f"hydra.sweeper.storage is {self.options.storage}, which cannot be used: {reason}; {allowed}"
            ) from error
        known = study.user_attrs.get(FINGERPRINT_ATTR)
        if known is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(FINGERPRINT_ATTR, self.fingerprint)
        elif known != self.fingerprint:
            differs = [what for what, value in self.fingerprint.items() if (known or {}).get(what) != value]
            raise ConfigError(
                f"study {self.name!r} in {self.options.storage} is of another search: its {', '.join(differs)} differ;"
                " allowed: another hydra.sweeper.study_name or hydra.sweeper.storage"
            )
        return study

    def run(self, stop: Callable[[], None] | None) -> None:
        """Run what an earlier sweep left without a result, then what the study asks for, several at a time."""
        self._write_search_file()
        self._resumed = self._unfinished_trials()
        trials = len(self.study.get_trials(deepcopy=False))
        self._budget = max(0, self.options.n_trials - trials)
        if Sweep.current is not None:
            Sweep.current.set_job_count(self._restore_outcomes() + len(self._resumed) + self._budget, self.fixed)
        print(f"search {self.name}: {trials} of {self.options.n_trials} trials known, {len(self._resumed)} of them to be ended")
        if self.options.n_jobs == 1:
            self._worker()
        else:
            self._run_workers(stop)

    def _run_workers(self, stop: Callable[[], None] | None) -> None:
        threads = [threading.Thread(target=self._worker, daemon=True) for _ in range(self.options.n_jobs)]
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
        described = {"storage": self.options.storage, "study_name": self.name, "pruner": self.fingerprint["pruner"]}
        with atomic_write(self.folder / SEARCH_FILE) as partial:
            partial.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    def _unfinished_trials(self) -> "list[optuna.Trial]":
        """Give the trials that have no result, and give up those that do not even know what to try."""
        import optuna  # pylint: disable=import-outside-toplevel

        trials = self.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
        for trial in trials:
            if trial.params.keys() != self.space.keys():
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        return [resume_trial(self.study, t.number) for t in trials if t.params.keys() == self.space.keys()]

    def _restore_outcomes(self) -> int:
        """Put what came of the trials that have a result among the jobs of this sweep, and give their number."""
        trials = [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished() and OUTCOME_ATTR in trial.user_attrs
        ]
        for trial in trials:
            outcome = Outcome(**trial.user_attrs[OUTCOME_ATTR])
            replace(outcome, reused=outcome.status in COMPLETED).write(self.folder / str(trial.number))
        return len(trials)

    def _worker(self) -> None:
        while (trial := self._next_trial()) is not None:
            self.launch(trial.number, [*self.fixed, *self._trial_overrides(trial.params), f"trial={trial.number}"])
            if not self._stopped:
                self._report_outcome(trial, Outcome.read(self.folder / str(trial.number)))

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
        """Ask for the next trial, with a seed of its own, so that a search that was cut off goes on as if it had not been."""
        number = len(self.study.get_trials(deepcopy=False))
        sampler = OmegaConf.merge(self.options.sampler, {"seed": self.options.sampler.seed + number})
        self.study.sampler = instantiate(cast(DictConfig, sampler))
        return self.study.ask(self.space)

    def _trial_overrides(self, params: dict[str, Any]) -> list[str]:
        return [
            f"{name}={params[name]!r}" if isinstance(params[name], float) else f"{name}={params[name]}" for name in self.space
        ]

    def _report_outcome(self, trial: "optuna.Trial", outcome: Outcome | None) -> None:
        """Tell the study what came of a trial. One that was not begun, or whose sweep was stopped by it, is tried again."""
        from optuna.trial import TrialState  # pylint: disable=import-outside-toplevel

        values = [outcome.metrics.get(name, math.nan) for name in self.options.objectives] if outcome else [math.nan]
        with self._lock:
            if outcome is not None:
                trial.set_user_attr(OUTCOME_ATTR, asdict(outcome))
            if outcome is not None and outcome.status == "FINISHED" and all(map(math.isfinite, values)):
                self.study.tell(trial, values)
            elif outcome is not None and outcome.status == "PRUNED":
                self.study.tell(trial, state=TrialState.PRUNED)
            elif (self.folder / STOP_FILE).exists():
                self._stopped = True
            else:
                self.study.tell(trial, state=TrialState.FAIL)


def _distribution(override: Override) -> "BaseDistribution":
    """Give Optuna's word for values in Hydra's grammar. Raises ConfigError for those it has none for."""
    from optuna.distributions import (  # pylint: disable=import-outside-toplevel
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    value = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    if isinstance(value, RangeSweep):
        values = list(value.range())
        if not values:
            raise ConfigError(f"{override.input_line}: the range is empty")
        if all(isinstance(number, int) for number in values):
            return IntDistribution(min(values), max(values), step=abs(int(value.step)))
        return CategoricalDistribution([repr(number) for number in values])
    if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None and value.start < value.end:
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    raise ConfigError(f"{override.input_line} cannot be searched; allowed: choice(), range(), interval(), tag(log, interval())")
