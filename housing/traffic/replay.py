"""The replay: predicts the rows of a prediction log again with a candidate, and compares both predictions."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.errors import HousingError, StoreError
from housing.data import table as data
from housing.feedback.log_reader import LogFilter
from housing.plots.html import write_page
from housing.reports.page import TEMPLATE
from housing.runs.past_run import PastRun
from housing.schema.column import Matrix
from housing.schema.table_schema import Schema
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import Run
from housing.tracking.store import Store
from housing.traffic.candidate import Candidate
from housing.traffic.differences import Differences
from housing.traffic.errors import compare_errors
from housing.traffic.labelled_rows import hash_rows, read_labelled_rows
from housing.traffic.logged_rows import LogCounts, OnBytes, make_batches, read_lines, select_files
from housing.traffic.page import build_page
from housing.traffic.progress import log_progress
from housing.traffic.result import ReplayResult
from housing.traffic.settings import ReplaySettings

ARTIFACTS = "replays"  # folder of the pages: of the candidate's run, and below outputs
ALONE_ROWS = 200  # rows that are predicted one by one for the latency
TIME_FORMAT = "%Y%m%dT%H%M%SZ"

log = logging.getLogger(__name__)


def replay(cfg: DictConfig) -> tuple[ReplayResult, Path]:
    """Replay a log, write the page, log both to the candidate's run, and return the result and the page's path.

    Raises
    ------
    HousingError
        If there is no such candidate, its bundle is damaged, or no logged row is in the time range.
    """
    result, schema, run = replay_candidate(cfg)
    replayed_at = datetime.now(UTC).strftime(TIME_FORMAT)
    name = f"{result.name.replace(' ', '-')}-{replayed_at}.html"
    path = Path(cfg.out or Path(cfg.paths.outputs) / ARTIFACTS / name)
    write_page(TEMPLATE, path, page=build_page(result, schema, {f"run {run.id[:8]}": run.link}))
    run.log_current_metrics(result.metrics())
    with tempfile.TemporaryDirectory(prefix="housing-") as scratch:
        shutil.copyfile(path, Path(scratch) / f"{replayed_at}.html")
        summary = json.dumps(result.to_dict(), indent=2)
        (Path(scratch) / f"{replayed_at}.json").write_text(f"{summary}\n", encoding="utf-8")
        run.log_directory(Path(scratch), ARTIFACTS)
    return result, path


def replay_candidate(cfg: DictConfig) -> tuple[ReplayResult, Schema, Run]:
    """Replay a log, and return the result, the candidate's schema and its run. Raises HousingError as `replay` does."""
    settings = ReplaySettings.from_config(cfg)
    store = tracking.connect(cfg.mlflow)
    name, run_id, source = _find_candidate(cfg.registered_model, settings, store)
    with store.artifacts.bundle(source) as folder:
        bundle = Bundle.read(folder)
    table = _table_rows(cfg, store, run_id, bundle)
    with log_progress(sum(path.stat().st_size for path in select_files(settings.log_dir, settings.log_filter))) as on_bytes:
        result = replay_log(bundle, name, settings, table, on_bytes)
    return result, bundle.schema, store.runs.get(run_id).run


def _find_candidate(model: str, settings: ReplaySettings, store: Store) -> tuple[str, str, str]:
    """Return the candidate's name, its run and MLflow's address of its bundle."""
    if settings.selector == "run_id":
        run = PastRun.read(store, settings.value).run
        if tags.MODEL_ID not in run.tags:
            raise HousingError(f"Run {run.id} has no bundle. Name a run that kept its bundle, or a version.")
        return f"run {run.id[:8]}", run.id, f"models:/{run.tags[tags.MODEL_ID]}"
    version: str | None = settings.value
    if settings.selector == "alias":
        version = store.registry.version_at(model, settings.value)
        if version is None:
            raise StoreError(
                f"{model} has no version at alias {settings.value}. Promote one with:"
                f" {next_command('promote', f'alias={settings.value}')}"
            )
    return f"version {version}", store.registry.run_of_version(model, str(version)), f"models:/{model}/{version}"


def _table_rows(cfg: DictConfig, store: Store, run_id: str, bundle: Bundle) -> set[int] | None:
    """Return hashes of the rows of the candidate's table, or None with a warning if it is not on this machine."""
    try:
        past_run = PastRun.read(store, run_id)
        past_run.cfg.data.path = str(past_run.locate_table(Path(cfg.data.path), Path(cfg.paths.data)))
        table = data.load(past_run.cfg.data)
    except HousingError as error:
        log.warning("True values that are older than the candidate are left out, since its table cannot be read: %s", error)
        return None
    return set(hash_rows(table.encoded_as(bundle.schema).matrix).tolist())


def replay_log(
    bundle: Bundle, name: str, settings: ReplaySettings, table: Collection[int] | None, on_bytes: OnBytes
) -> ReplayResult:
    """Predict the selected rows of a log, and those with true values, with a bundle. `table` has hashes of its table's rows."""
    candidate, differences, counts = Candidate(bundle), Differences(bundle), LogCounts()
    alone = np.empty((0, len(bundle.schema.features)))
    lines = read_lines(select_files(settings.log_dir, settings.log_filter), on_bytes)
    for batch in make_batches(lines, settings.log_filter, counts):
        predicted = candidate.predict(batch)
        differences.add(batch.version, predicted.matrix, predicted.predictions, batch.predictions[predicted.accepted])
        alone = alone if len(alone) else predicted.matrix[:ALONE_ROWS]
    if not counts.entries:
        raise HousingError(
            f"{settings.log_dir} has no entry {_describe_period(settings.log_filter)} ({counts.malformed:,} damaged lines)."
            " Choose another time with since= and until=."
        )
    # a candidate of their own counts these rows, which stand in the log, too
    labels, refused_labels = read_labelled_rows(settings.log_dir, settings.log_filter, Candidate(bundle))
    fitted_at = datetime.fromisoformat(bundle.card["created"])
    errors = compare_errors(labels, settings.comparison, fitted_at, table)
    period = _describe_period(settings.log_filter)
    return ReplayResult(
        name, period, counts, candidate.counts, _measure_alone(bundle, alone), differences, errors, refused_labels
    )


def _measure_alone(bundle: Bundle, matrix: Matrix) -> float | None:
    """Return the median processor time of the prediction of a single row, in microseconds."""
    seconds = []
    for row in range(len(matrix)):
        start = time.process_time()
        bundle.predict(matrix[row : row + 1])
        seconds.append(time.process_time() - start)
    return 1e6 * float(np.median(seconds)) if seconds else None


def _describe_period(log_filter: LogFilter) -> str:
    ends = (("since", log_filter.since), ("before", log_filter.until))
    words = [
        f"{word} {datetime.fromtimestamp(moment, UTC).isoformat(timespec='seconds')}"
        for word, moment in ends
        if abs(moment) != float("inf")
    ]
    return " ".join(words) or "of the whole log"
