"""Trainings in the background: sweeps, searches and single runs, each in a process of its own that outlives the server."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from housing.agent.overrides import parse_overrides
from housing.api.composition import Context
from housing.command_line.output import to_json_value
from housing.core.environment import PROJECT
from housing.core.errors import HousingError
from housing.core.files import atomic_write, timestamp
from housing.core.processes import PROCESS, is_dead, process_tags
from housing.runs.outcome import Outcome
from housing.serving.readiness import last_lines
from housing.sweeps.sweep import read_running_outcomes

FOLDER = "agent"  # below paths.outputs: one folder for each training
SEARCH_GROUPS = ("search", "hydra/sweeper")
TRAINING_FILE, DOCUMENT_FILE, LOG_FILE = "training.json", "document.json", "output.log"
RUNNING, ENDED, LOST = "running", "ended", "lost"


@dataclass(frozen=True)
class Training:
    """A training that was started.

    Attributes
    ----------
    folder
        The folder of the run or of the sweep.
    process
        Tags that identify the process.
    """

    id: str
    overrides: list[str]
    is_sweep: bool
    started_at: str
    folder: str
    process: dict[str, str]


class Trainings:
    """The trainings of a project. One runs at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._children: list[subprocess.Popen[bytes]] = []  # referenced, so that Python waits for them

    def start(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Start a training and return its description at once.

        Raises
        ------
        ConfigError
            If an override is wrong, with the message of the command.
        HousingError
            If another training is running.
        """
        swept, is_sweep = _swept(overrides), _is_sweep(overrides)
        with self._context.composed("train", *(word for word in overrides if word not in swept)) as cfg:
            outputs = Path(cfg.paths.outputs)
        running = [training.id for training in self._read_all() if self._state(training) == RUNNING]
        if running:
            raise HousingError(f"Training {running[0]} is still running. Wait until it has ended, or stop it.")
        name, started_at = timestamp(), datetime.now().astimezone().isoformat()
        folder = outputs / ("sweeps" if is_sweep else "runs") / name
        flags = ["-m"] if is_sweep else []
        target = f"hydra.{'sweep' if is_sweep else 'run'}.dir='{folder}'"
        process = self._start_process(name, [*flags, *self._context.words("train", overrides), target, "output=json"])
        training = Training(name, list(overrides), is_sweep, started_at, str(folder), process)
        with atomic_write(self._folder / name / TRAINING_FILE) as partial:
            partial.write_text(json.dumps(asdict(training), indent=2) + "\n", encoding="utf-8")
        return self.follow(name, n_lines=1)

    def _start_process(self, name: str, words: Sequence[str]) -> dict[str, str]:
        """Start housing.train with its document and its log in the folder of a training. Return tags that identify it."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        with (folder / DOCUMENT_FILE).open("wb") as document, (folder / LOG_FILE).open("wb") as log:
            process = subprocess.Popen(  # pylint: disable=consider-using-with  # it lasts
                [sys.executable, "-m", "housing.train", *words],
                cwd=PROJECT,
                env=self._context.environment,
                stdin=subprocess.DEVNULL,
                stdout=document,
                stderr=log,
                start_new_session=True,  # it goes on when the client ends the server
            )
        self._children.append(process)
        return process_tags(process.pid)

    def follow(self, training_id: str, n_lines: int) -> dict[str, Any]:
        """Return the state of a training, its jobs so far, the last lines of its output, and its document once it has ended.

        Raises
        ------
        HousingError
            If there is no such training.
        """
        training = self._read(training_id)
        state = self._state(training)
        jobs = _read_jobs(training) if state != ENDED else []
        return {
            **self._describe(training, state),
            "jobs": to_json_value(jobs),
            "last_lines": last_lines(self._folder / training.id / LOG_FILE, n_lines),
            "document": self._document(training),
        }

    def list(self) -> dict[str, Any]:
        """Return all trainings and their states, newest first."""
        return {"trainings": [self._describe(training, self._state(training)) for training in self._read_all()]}

    def stop(self, training_id: str) -> dict[str, Any]:
        """Ask a running training to end: its jobs are closed as KILLED. The same training started again goes on from there."""
        training = self._read(training_id)
        if self._state(training) == RUNNING:
            os.kill(int(training.process[PROCESS].partition(" ")[0]), signal.SIGTERM)
        return self._describe(training, self._state(training))

    def _describe(self, training: Training, state: str) -> dict[str, Any]:
        return {"id": training.id, "state": state, "overrides": training.overrides, "started_at": training.started_at}

    def _state(self, training: Training) -> str:
        is_over = is_dead(training.process)  # before the document is read, since the process writes it last
        if self._document(training) is not None:
            return ENDED
        return LOST if is_over else RUNNING

    def _document(self, training: Training) -> Mapping[str, Any] | None:
        """Return the document of output=json, or None before it is written."""
        try:
            document: dict[str, Any] = json.loads((self._folder / training.id / DOCUMENT_FILE).read_text(encoding="utf-8"))
        except ValueError:
            return None
        return document

    def _read(self, training_id: str) -> Training:
        path = self._folder / training_id / TRAINING_FILE
        if not re.fullmatch(r"[\w-]+", training_id) or not path.is_file():
            raise HousingError(f"There is no training {training_id!r}. list_trainings returns their ids.")
        return Training(**json.loads(path.read_text(encoding="utf-8")))

    def _read_all(self) -> Sequence[Training]:
        paths = sorted(self._folder.glob(f"*/{TRAINING_FILE}"), reverse=True)
        return [Training(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]

    @cached_property
    def _folder(self) -> Path:
        """The folder of all trainings."""
        with self._context.composed("train") as cfg:
            return Path(cfg.paths.outputs) / FOLDER


def _read_jobs(training: Training) -> Sequence[Outcome]:
    folder = Path(training.folder)
    if training.is_sweep:
        return read_running_outcomes(folder)
    outcome = Outcome.read(folder)
    return [] if outcome is None else [outcome]


def _is_sweep(overrides: Sequence[str]) -> bool:
    """Return whether there are several values, or a config of a search that draws them."""
    return any(override.is_sweep_override() or override.key_or_group in SEARCH_GROUPS for override in parse_overrides(overrides))


def _swept(overrides: Sequence[str]) -> Sequence[str]:
    """Return the overrides with several values, such as model=linear,xgboost."""
    return [str(override.input_line) for override in parse_overrides(overrides) if override.is_sweep_override()]
