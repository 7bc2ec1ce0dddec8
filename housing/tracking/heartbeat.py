"""Heartbeat: a time stamp in the tags of open runs, from which other machines tell live runs from abandoned ones."""

import logging
import threading
import time

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from housing.core import processes
from housing.tracking.client import cause_of

log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that tags each open run with the time, from the first open run on."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._run_ids: set[str] = set()
        self._thread: threading.Thread | None = None

    def start(self, run_id: str) -> None:
        """Tag this run from now on."""
        self._run_ids.add(run_id)
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._thread.start()

    def stop(self, run_id: str) -> None:
        """Tag this run no longer."""
        self._run_ids.discard(run_id)

    def _beat(self) -> None:
        api = MlflowClient(self._uri)  # without retries: the next beat is the next try
        while True:
            time.sleep(processes.HEARTBEAT_SECONDS)
            for run_id in tuple(self._run_ids):
                try:
                    api.set_tag(run_id, processes.HEARTBEAT, processes.now())
                except MlflowException as error:
                    log.warning("No heartbeat for run %s: %s", run_id, cause_of(error))
