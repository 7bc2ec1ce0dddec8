"""A project in Python: the work of the commands on one folder of data, store and outputs."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser

from housing.api.composition import Context
from housing.api.model import Model, Rows
from housing.api.results import FittedRun, PromotionResult, SweepResult
from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.environment import PROJECT
from housing.core.errors import HousingError
from housing.core.files import timestamp
from housing.core.printable import show
from housing.description.description import DescriptionSettings, describe
from housing.promotion.approval import approve
from housing.promotion.decision_log import read_decision
from housing.promotion.history import read_history
from housing.promotion.promotion import promote
from housing.promotion.rolling_back import rollback
from housing.reports.report import write_report
from housing.runs.outcome import TrainingResult
from housing.runs.run import Job, run
from housing.serving.readiness import free_port, last_lines, wait_until_ready
from housing.sweeps.ranking import best_run_id
from housing.sweeps.sweep import read_outcomes
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.train import search_if_asked

N_RUNS = 1000  # newest runs in a table of runs, unless another number is asked for
UNUSED_FILES = ("file=none", "out=none")  # housing.predict requires them
READY_SECONDS = 120.0  # in which a server has to be ready


class Project:
    """Experiments, models and decisions in one folder.

    Each method does what the command of its name does, with the same overrides, run keys, records and errors. A method works on
    the process's environment and config while it runs, so call one at a time.
    """

    def __init__(self, folder: str | Path, *overrides: str, config_dir: str | Path | None = None) -> None:
        """Open a project.

        Parameters
        ----------
        folder
            The folder of data, store and outputs, as $HOUSING_HOME of the commands.
        overrides
            Overrides of all methods, such as "data=rentals". A method whose command has no such option or group ignores it.
        config_dir
            A folder with config files of one's own, as the commands' --config-dir.
        """
        self._context = Context(Path(folder).absolute(), None if config_dir is None else Path(config_dir).absolute(), overrides)

    @property
    def folder(self) -> Path:
        """The folder of data, store and outputs."""
        return self._context.folder

    def describe(self, file: str | Path, *overrides: str, target: str | None = None) -> str:
        """Write the YAML of a file's table and a page about it, and return what misleads. Without a target, list the columns."""
        words = [f"file={Path(file).absolute()}", *([] if target is None else [f"target={target}"]), *overrides]
        with self._context.composed("describe", *words) as cfg:
            return describe(DescriptionSettings.from_config(cfg, self._context.config_folder), next_command).text

    def train(self, *overrides: str) -> FittedRun:
        """Fit one model, or return the equal run that is finished already. `experiment=auto` searches first."""
        with self._context.composed("train", *overrides) as cfg:
            folder = Path(cfg.paths.outputs) / "runs" / timestamp()
            job = Job([*self._context.common_overrides("train"), *overrides], folder)
            return FittedRun(run(search_if_asked(cfg, job), job))

    def sweep(self, *overrides: str) -> SweepResult:
        """Fit a model for each combination of values, such as "model=linear,xgboost", in a process of its own.

        Its output is printed. The same call again goes on where an interrupted sweep has ended: finished jobs are reused.

        Raises
        ------
        HousingError
            If no job has started; the output says why.
        """
        with self._context.composed("train", *_without_sweeps(overrides)) as cfg:
            folder, metric = Path(cfg.paths.outputs) / "sweeps" / timestamp(), str(cfg.metric)
        words = [*self._context.words("train", overrides), f"hydra.sweep.dir='{folder}'"]
        code = self._run_command("train", "-m", *words)
        outcomes = read_outcomes(folder)
        if not outcomes:
            raise HousingError(f"The sweep ended with exit code {code} before a job started. Its output says why.")
        return SweepResult(TrainingResult(metric, str(folder), outcomes, best_run_id(outcomes, metric)))

    def search(self, space: str, *overrides: str, n_trials: int | None = None) -> SweepResult:
        """Sweep over values that Optuna chooses from a search space, such as "xgboost" for conf/search/xgboost.yaml.

        The same call again goes on, with more trials if `n_trials` is larger. None: as many as the config says.

        Raises
        ------
        HousingError
            If no trial has started; the output says why.
        """
        trials = [] if n_trials is None else [f"hydra.sweeper.n_trials={n_trials}"]
        return self.sweep(f"search={space}", *overrides, *trials)

    def runs(self, *overrides: str, where: str = "", limit: int = N_RUNS) -> pd.DataFrame:
        """Return the newest runs of the table, one row each: state, parameters, metrics, tags, start and duration in seconds.

        Columns of parameters, metrics and tags begin with `params.`, `metrics.` and `tags.`.

        Parameters
        ----------
        where
            A condition in MLflow's filter language, such as "metrics.rmse < 20 and params.`model.name` = 'linear'".
        limit
            The largest number of rows.

        Raises
        ------
        StoreError
            If `where` is no such condition.
        """
        with self._context.composed("train", *overrides) as cfg:
            records = tracking.connect(cfg.mlflow).runs.find_latest(cfg.experiment_name, {tags.RUN_TYPE: "run"}, limit, where)
        return pd.DataFrame(map(_run_row, records))

    def compare(self, *run_ids: str) -> pd.DataFrame:
        """Return what differs between runs: a row for each parameter and metric, a column for each run.

        Raises
        ------
        StoreError
            If the store has no run of an id.
        """
        with self._context.composed("train") as cfg:
            runs = tracking.connect(cfg.mlflow).runs
            values = {run_id: {**(record := runs.get(run_id)).params, **record.metrics} for run_id in run_ids}
        frame = pd.DataFrame(values)
        return frame[frame.astype(str).nunique(axis=1) > 1]

    def report(self, *run_ids: str) -> Path:
        """Write an HTML page about a run, or about several side by side, and return its path."""
        with self._context.composed("report", f"run_id=[{','.join(run_ids)}]") as cfg:
            return write_report(cfg)

    def promote(self, *overrides: str) -> PromotionResult:
        """Move an alias to the best run, or to `run_id=ID`, if it is significantly better on the test rows."""
        with self._context.composed("promote", *overrides) as cfg:
            return PromotionResult(promote(cfg))

    def approve(self, *overrides: str) -> PromotionResult:
        """Carry out a promotion that another person has requested, if nothing has changed since."""
        with self._context.composed("approve", *overrides) as cfg:
            return PromotionResult(approve(cfg))

    def rollback(self, *overrides: str) -> PromotionResult:
        """Move an alias back to the version that served before."""
        with self._context.composed("rollback", *overrides) as cfg:
            return PromotionResult(rollback(cfg))

    def history(self, *overrides: str) -> pd.DataFrame:
        """Return the decisions, newest first. `export=FILE` also writes all of them with their evidence."""
        with self._context.composed("history", *overrides) as cfg:
            return pd.DataFrame(map(asdict, read_history(cfg).decisions))

    def decision(self, alias: str | None = None, run_id: str | None = None) -> dict[str, Any]:
        """Return the newest decision, about an alias or about a run if one is given: verdict, reasons, checks and scores."""
        with self._context.composed("history") as cfg:
            return read_decision(tracking.connect(cfg.mlflow), cfg.decisions_experiment, alias, run_id)

    def load(self, source: str | None = None) -> Model:
        """Load a model by MLflow's address. None: the one at the alias staging of the project's table."""
        words = [*UNUSED_FILES, *([] if source is None else [f"source='{source}'"])]
        with (
            self._context.composed("predict", *words) as cfg,
            tracking.connect(cfg.mlflow).artifacts.bundle(cfg.source) as folder,
        ):
            bundle, address = Bundle.read(folder), str(cfg.source)
        with self._context.composed("serve") as cfg:
            return Model(address, bundle, cfg.serve.explain_max_exact_columns, cfg.serve.explain_samples)

    def predict(self, rows: Rows, *, interval: float | None = None, quantiles: Sequence[float] = ()) -> pd.DataFrame:
        """Predict rows with the model at the alias staging. See `Model.predict`."""
        return self.load().predict(rows, interval=interval, quantiles=quantiles)

    def explain(self, row: Mapping[str, Any]) -> pd.Series:
        """Explain the prediction of one row by the model at the alias staging. See `Model.explain`."""
        return self.load().explain(row)

    @contextmanager
    def serve(self, *overrides: str) -> Iterator[str]:
        """Run the server during a block, and yield its URL once it is ready. Without `serve.port=`, it gets a free port.

        Raises
        ------
        HousingError
            If the server ends or is not ready in time, with the last lines of its output.
        """
        with self._context.composed("serve", f"serve.port={free_port()}", *overrides) as cfg:
            url, log = f"http://{cfg.serve.host}:{cfg.serve.port}", Path(cfg.paths.outputs) / "serve.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [*self._context.words("serve", overrides), f"serve.port={url.rpartition(':')[2]}"]
        with log.open("wb") as output, self._start("serve", words, stdout=output) as process:
            try:
                if not wait_until_ready(url, process, READY_SECONDS):
                    reason = f"was not ready within {READY_SECONDS:g} s" if process.poll() is None else "ended"
                    raise HousingError(f"The server {reason}. Its output ({log}) ends with:\n{last_lines(log, 10)}")
                yield url
            finally:
                process.terminate()

    def _run_command(self, name: str, *words: str) -> int:
        """Run a command in a process of its own, print its output line by line, and return its exit code."""
        with self._start(name, words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    show(line.decode(errors="replace").rstrip("\n"))
            except KeyboardInterrupt:  # a notebook interrupts its own process alone
                process.send_signal(signal.SIGINT)
                raise
        return process.returncode

    def _start(self, name: str, words: Sequence[str], stdout: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", f"housing.{name}", *words],
            cwd=PROJECT,
            env=self._context.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
        )


def _run_row(record: RunRecord) -> dict[str, Any]:
    metrics = record.metrics | record.system_metrics
    kinds: dict[str, Mapping[str, Any]] = {"params": record.params, "metrics": metrics, "tags": record.tags}
    values = {f"{kind}.{name}": value for kind, of_kind in kinds.items() for name, value in of_kind.items()}
    return {"run_id": record.id, "status": record.status, "started_at": record.started_at, "seconds": record.seconds, **values}


def _without_sweeps(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with one value each."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [str(override.input_line) for override in parsed if not override.is_sweep_override()]
