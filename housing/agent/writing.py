"""Tools that write: they start trainings and move aliases, if the config gives the right."""

from collections.abc import Callable

from housing.agent.overrides import plain, quoted, require_allowed
from housing.agent.reading import Document, ReadingTools
from housing.agent.settings import AgentSettings
from housing.agent.trainings import Trainings


class TrainingTools:
    """Tools of the right `train`."""

    def __init__(self, trainings: Trainings, reading: ReadingTools) -> None:
        self._trainings, self._reading = trainings, reading

    @property
    def functions(self) -> list[Callable[..., Document]]:
        """The tools, each named as its method."""
        return [self.declare_table, self.start_training, self.stop_training]

    def declare_table(self, file: str, target: str, name: str | None = None) -> Document:
        """Declare a file in the folder of the project as a table whose column `target` is predicted.

        This writes conf/data/NAME.yaml and a page. Afterwards, the override data=NAME chooses the table. Read the warnings.
        """
        chosen = [] if name is None else [f"name={plain('name', name)}"]
        return self._reading.describe_own_file(file, quoted("target", target), *chosen)

    def start_training(self, overrides: list[str]) -> Document:
        """Start a training in the background and return its id at once. follow_training returns its state.

        An override with several values makes a sweep over all combinations: ["model=linear,xgboost", "features=none,geo"].
        Overrides with one value each fit one model. ["experiment=auto"] searches for the best model within a time limit, and
        ["search=xgboost"] for the best arguments of a model.
        list_options describes the overrides. Only KEY=VALUE is allowed, without dictionaries, and not every key: the error lists
        the allowed ones. Equal runs that are finished are reused, not fitted again.
        """
        require_allowed(overrides)
        return self._trainings.start(overrides)

    def stop_training(self, training_id: str) -> Document:
        """Ask a running training to end. follow_training tells when it has ended."""
        return self._trainings.stop(training_id)


class PromotionTools:
    """Tools of the right `promote`."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings

    @property
    def functions(self) -> list[Callable[..., Document]]:
        """The tools, each named as its method."""
        return [self.promote, self.rollback]

    def promote(self, run_id: str | None = None, alias: str = "staging", table: str | None = None) -> Document:
        """Move an alias to a run, or to the best run, if it is significantly better than the present version on the test rows.

        The verdict is PROMOTE, PENDING (a person must approve it with housing.approve), HOLD (no significant difference) or
        REJECT (worse, or a check failed), with reasons. The test rows are for this decision only: select models by validation
        metrics. It can take a minute.
        """
        chosen = [] if run_id is None else [f"run_id={plain('run_id', run_id)}"]
        return self._settings.project(table).promote(f"alias={plain('alias', alias)}", *chosen).to_dict()

    def rollback(self, alias: str = "staging", reason: str | None = None, table: str | None = None) -> Document:
        """Move an alias back to the version that served before. The reason is kept in the decision log."""
        words = [f"alias={plain('alias', alias)}"]
        if reason is not None:
            words.append(quoted("reason", reason.replace("\\", " ").replace("'", "’")))
        return self._settings.project(table).rollback(*words).to_dict()
