"""A trial of a search, as the job sees it that runs it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from omegaconf import OmegaConf

from housing.core.config import instantiate

if TYPE_CHECKING:
    import optuna

SEARCH_FILE = "search.json"  # in the sweep's folder: where a job finds its trial


@dataclass(frozen=True)
class Trial:
    """A trial to report to."""

    trial: "optuna.Trial"

    @classmethod
    def open(cls, sweep: Path, number: int) -> Self:
        """Find a trial of the search whose sweep has this folder."""
        import optuna  # pylint: disable=import-outside-toplevel

        described = json.loads((sweep / SEARCH_FILE).read_text(encoding="utf-8"))
        pruner = instantiate(OmegaConf.create(described["pruner"]))
        study = optuna.load_study(study_name=described["study_name"], storage=described["storage"], pruner=pruner)
        return cls(resume_trial(study, number))

    def should_prune(self, step: int, value: float) -> bool:
        """Report a value, and say whether the study's pruner gives the trial up; with several objectives it never does."""
        if len(self.trial.study.directions) > 1:
            return False
        self.trial.report(value, step)
        return self.trial.should_prune()


def resume_trial(study: "optuna.Study", number: int) -> "optuna.Trial":
    """Give a trial that can be reported to, by its number."""
    import optuna  # pylint: disable=import-outside-toplevel

    # Optuna has no public way from a number to a trial that can still be reported to
    storage = study._storage  # pylint: disable=protected-access
    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))
