"""Pruning: intermediate scores of a trial, reported to its Optuna study by the job that runs it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from omegaconf import OmegaConf

from housing.core.config import instantiate

if TYPE_CHECKING:
    import optuna

SEARCH_FILE = "search.json"  # in the sweep's folder: storage, study name and pruner


@dataclass(frozen=True)
class Trial:
    """A trial that accepts intermediate scores."""

    trial: "optuna.Trial"

    @classmethod
    def open(cls, sweep: Path, number: int) -> Self:
        """Load the trial with this number from the search in a sweep's folder."""
        import optuna  # pylint: disable=import-outside-toplevel

        description = json.loads((sweep / SEARCH_FILE).read_text(encoding="utf-8"))
        pruner = instantiate(OmegaConf.create(description["pruner"]))
        study = optuna.load_study(study_name=description["study_name"], storage=description["storage"], pruner=pruner)
        return cls(resume_trial(study, number))

    def should_prune(self, step: int, value: float) -> bool:
        """Report an intermediate value and return whether to stop the trial. A study of several objectives never prunes."""
        if len(self.trial.study.directions) > 1:
            return False
        self.trial.report(value, step)
        return self.trial.should_prune()


def resume_trial(study: "optuna.Study", number: int) -> "optuna.Trial":
    """Return the running trial with this number."""
    import optuna  # pylint: disable=import-outside-toplevel

    # Optuna has no public way from a trial number to a trial that still accepts reports.
    storage = study._storage  # pylint: disable=protected-access
    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))
