"""Tools that read: they change no run, alias or file of the project."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from housing.agent.overrides import plain, quoted, table_override
from housing.agent.settings import AgentSettings
from housing.agent.trainings import Trainings
from housing.command_line import help as help_text
from housing.command_line.next_command import next_command
from housing.command_line.output import to_json_value
from housing.core.errors import ConfigError
from housing.core.validators import integer
from housing.description.description import DescriptionSettings, describe
from housing.operations.served_drift import read_served_drift

Document = dict[str, Any]


@dataclass(frozen=True)
class ListedRun:
    """A run: its parameters as texts, without those that all listed runs share, and its metrics on validation rows."""

    run_id: str
    status: str
    started_at: str
    seconds: float | None
    params: dict[str, str]
    metrics: dict[str, float]
    error: str | None


@dataclass(frozen=True)
class ListedRuns:
    """Runs, newest first."""

    runs: list[ListedRun]


@dataclass(frozen=True)
class ComparedRuns:
    """The values of each parameter and metric that differs, by name and run id. A missing value is null."""

    differences: dict[str, dict[str, str | float | None]]


MAX_RUNS, MAX_ROWS, MAX_LINES = 200, 1000, 200  # of one answer, which an agent has to read


class ReadingTools:
    """Tools that read. Each docstring is the description that an agent reads."""

    def __init__(self, settings: AgentSettings, trainings: Trainings) -> None:
        self._settings, self._trainings = settings, trainings

    @property
    def functions(self) -> list[Callable[..., object]]:
        """The tools, each named as its method."""
        return [
            *(self.describe_table, self.describe_file, self.list_options, self.list_runs, self.compare_runs),
            *(self.list_decisions, self.explain_decision, self.predict, self.explain, self.read_drift),
            *(self.list_trainings, self.follow_training),
        ]

    def describe_table(self, table: str | None = None) -> Document:
        """Describe a declared table: its columns with type, role, unit and range, its target, and the default split and metric.

        `table` is the name of a file in conf/data. Without it, the table of the project is described.
        """
        with self._settings.context.composed("train", *table_override(table)) as cfg:
            declared = OmegaConf.to_container(cfg.data, resolve=True)
            split = OmegaConf.to_container(cfg.split, resolve=True)
            return {
                "table": declared,
                "file_exists": Path(cfg.data.path).is_file(),
                "split": split,
                "metric": cfg.metric,
                "experiment": cfg.experiment_name,
            }

    def describe_file(self, file: str) -> Document:
        """Describe a CSV, Parquet or Excel file in the folder of the project: rows, and the content of each column."""
        return self.describe_own_file(file)

    def list_options(self, command: str = "train") -> Document:
        """List what a command of the project can be told: options with defaults, config groups with choices, examples.

        Read those of "train" before start_training.
        """
        if command not in help_text.command_names():
            raise ConfigError(f"There is no command {command}. Expected one of {', '.join(help_text.command_names())}.")
        return {"command": command, "help": help_text.render(command)}

    def list_runs(self, limit: int = 20, table: str | None = None) -> ListedRuns:
        """List the newest runs of a table: state, validation metrics, the parameters in which they differ, and errors."""
        integer(1, MAX_RUNS).validate("limit", limit)
        frame = self._settings.project(table).runs(limit=limit)
        rows = json.loads(frame.to_json(orient="records", date_format="iso"))
        parameters = [str(name) for name in frame if str(name).startswith("params.")]
        constant = {name for name in parameters if len(frame) > 1 and frame[name].nunique(dropna=False) == 1}
        return ListedRuns([_run(row, constant) for row in rows])

    def compare_runs(self, run_ids: list[str]) -> ComparedRuns:
        """Compare runs: the value of each parameter and metric that is not the same in all of them, by run id."""
        integer(2, MAX_RUNS).validate("The number of run_ids", len(run_ids))
        frame = self._settings.project().compare(*(plain("run_ids", run_id) for run_id in run_ids))
        return ComparedRuns(json.loads(frame.to_json(orient="index")))

    def list_decisions(self, alias: str | None = None, limit: int = 20, table: str | None = None) -> Document:
        """List the decisions about an alias, or about all, newest first: verdict, versions, who decided, reason, scores."""
        chosen = [] if alias is None else [f"alias={plain('alias', alias)}"]
        integer(1, MAX_RUNS).validate("limit", limit)
        frame = self._settings.project(table).history(f"limit={limit}", *chosen)
        return {"decisions": to_json_value(frame.to_dict(orient="records"))}

    def explain_decision(self, run_id: str | None = None, alias: str | None = None, table: str | None = None) -> Document:
        """Explain why a run was promoted, held or rejected: reasons, checks with limits, scores, confidence interval.

        Without `run_id`, explain the newest decision. A run that failed has no decision: list_runs returns its error.
        """
        about = {name: plain(name, value) for name, value in (("alias", alias), ("run_id", run_id)) if value is not None}
        return self._settings.project(table).decision(**about)

    def predict(
        self,
        rows: list[dict[str, Any]],
        interval: float | None = None,
        quantiles: list[float] | None = None,
        source: str | None = None,
        table: str | None = None,
    ) -> Document:
        """Predict rows, given as objects with the columns of the table.

        `interval=0.9` adds bounds that hold 90 % of the true values, and `quantiles=[0.1, 0.5]` adds quantiles. `source` is
        MLflow's address of a model, such as models:/NAME@production or models:/NAME/3. Without it, the model at the alias
        staging predicts.
        """
        integer(1, MAX_ROWS).validate("The number of rows", len(rows))
        model = self._settings.project(table).load(_address(source))
        frame = model.predict(rows, interval=interval, quantiles=quantiles or ())
        unit = model.bundle.schema.target.unit_label
        return {"source": model.source, "unit": unit, "predictions": to_json_value(frame.to_dict(orient="records"))}

    def explain(self, row: dict[str, Any], source: str | None = None, table: str | None = None) -> Document:
        """Explain the prediction of one row: the Shapley value of each column, the largest first, in the target's unit.

        They add up to the prediction minus the mean prediction of background rows.
        """
        model = self._settings.project(table).load(_address(source))
        prediction = float(model.predict(row).prediction.iloc[0])
        values = {str(name): float(value) for name, value in model.explain(row).items()}
        return {"source": model.source, "prediction": prediction, "shapley_values": values}

    def read_drift(self) -> Document:
        """Read the drift of the running server: PSI of each column and of the predictions, of all rows since its start.

        The PSI compares these rows with the training rows. Above 0.1 it is moderate and above 0.25 large, for hundreds of rows.
        """
        settings = self._settings
        return dict(to_json_value(read_served_drift(settings.server_url, settings.server_key, settings.timeout_seconds)))

    def list_trainings(self) -> Document:
        """List the trainings that agents started: id, state (running, ended or lost) and overrides, newest first."""
        return self._trainings.list()

    def follow_training(self, training_id: str, n_lines: int = 20) -> Document:
        """Follow a training: its state, the outcome of each job so far, the last lines of its output.

        Once it has ended, `document` has its result (jobs with metrics, best_run_id) or its error. The state "lost" means that
        its process was killed.
        """
        integer(1, MAX_LINES).validate("n_lines", n_lines)
        return self._trainings.follow(training_id, n_lines)

    def describe_own_file(self, file: str, *overrides: str) -> Document:
        """Return the document of housing.describe for a file in the project's folder. Raise ConfigError if it is elsewhere."""
        context = self._settings.context
        path = (context.folder / file).resolve()
        if not path.is_relative_to(context.folder.resolve()):
            raise ConfigError(f"file must be in the folder of the project, such as data/houses.csv (got {file!r}).")
        with context.composed("describe", quoted("file", str(path)), *overrides) as cfg:
            return dict(to_json_value(describe(DescriptionSettings.from_config(cfg, context.config_folder), next_command)))


def _address(source: str | None) -> str | None:
    if source is not None and not re.fullmatch(r"models:/[\w.@/-]+", source):
        raise ConfigError(f"source must be MLflow's address of a model, such as models:/NAME@staging (got {source!r}).")
    return source


def _run(row: dict[str, Any], omitted: set[str]) -> ListedRun:
    """Return a run without its missing values and without parameters that all runs share."""
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    parts: dict[str, dict[str, Any]] = {"params": params, "metrics": metrics}
    for name, value in row.items():
        kind, _, rest = name.partition(".")
        if kind in parts and name not in omitted and value is not None:
            parts[kind][rest] = value
    facts = {name: row[name] for name in ("run_id", "status", "started_at", "seconds")}
    return ListedRun(**facts, params=params, metrics=metrics, error=row.get("tags.housing.error"))
