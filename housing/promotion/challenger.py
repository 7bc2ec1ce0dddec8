"""The challenger: the run, or the version at another alias, that is judged."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.errors import BundleError, ConfigError, StoreError
from housing.promotion.settings import AliasSettings, ChallengerSettings
from housing.promotion.test_set import TestSet
from housing.runs.export import RUN_ID_KEY
from housing.runs.outcome import Outcome
from housing.runs.run import BUNDLE, HOLDOUT, log_bundle
from housing.scoring.holdout import HoldoutPredictions
from housing.scoring.metrics import HIGHER_IS_BETTER, as_loss
from housing.sweeps.ranking import best_outcomes
from housing.sweeps.sweep import JOBS_FILE
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store
from housing.training.build import BuildSettings, build

TRAIN_OVERRIDES = ("-m", "model=linear,decision_tree,xgboost")  # the sweep that is suggested if there is no run
REFIT_TOLERANCE = 1e-3  # relative difference of the validation RMSE; beyond it the refitted model is another one


@dataclass(frozen=True)
class Challenger:
    """A run, and its version in the registry if it is taken from another alias."""

    run: RunRecord
    version: str | None = None


def find_challenger(settings: ChallengerSettings, alias: AliasSettings, store: Store, test_set: TestSet) -> Challenger:
    """Return the version at the source alias, the selected run, or the best comparable run.

    Raises
    ------
    StoreError
        If there is no such run, or if it may have been fitted on some of the test rows.
    """
    if settings.source_alias is not None:
        return _version_at_alias(settings.source_alias, alias, store, test_set)
    if not (settings.run_id or settings.sweep or settings.metrics_files):
        return Challenger(_best_run(settings, store, test_set))
    run = _selected_run(settings, store)
    _require_comparable(run, test_set)
    return Challenger(run)


def _version_at_alias(source_alias: str, alias: AliasSettings, store: Store, test_set: TestSet) -> Challenger:
    version = store.registry.version_at(alias.registered_model, source_alias)
    if version is None:
        raise StoreError(
            f"{alias.registered_model} has no version at {source_alias}, from which {alias.name} is promoted."
            f" Promote one first: {next_command('promote', f'alias={source_alias}', table=test_set.table.schema.name)}"
        )
    run = store.runs.get(store.registry.run_of_version(alias.registered_model, version))
    if not test_set.is_unseen_by(run, store.artifacts):
        raise StoreError(
            f"Version {version} at {source_alias} was fitted on another table or split and may have seen some of the test rows."
            f" Promote a run on the current ones to {source_alias} first, or pass the data and split of its run."
        )
    return Challenger(run, version)


def _best_run(settings: ChallengerSettings, store: Store, test_set: TestSet) -> RunRecord:
    wanted_tags = {
        **test_set.tags(),
        tags.RUN_TYPE: "run",
        tags.COLUMNS: test_set.table.schema.interface_hash(),
        tags.EVALUATION: settings.evaluation,
    }
    order = "DESC" if settings.metric in HIGHER_IS_BETTER else "ASC"
    run = store.runs.find_first(settings.experiment, wanted_tags, f"metrics.`{settings.metric}` {order}")
    if run is not None and settings.metric not in run.metrics:
        raise ConfigError(
            f"rank_by={settings.metric}: no run of experiment {settings.experiment} has this metric. Train one with"
            f" metric={settings.metric}, or rank by one of {', '.join(sorted(run.metrics))}."
        )
    if run is None:
        raise StoreError(
            f"Experiment {settings.experiment} has no finished run on this table, its columns and this split"
            f" with evaluation={settings.evaluation}. Train one first:"
            f" {next_command('train', *TRAIN_OVERRIDES, f'evaluation={settings.evaluation}', table=test_set.table.schema.name)}"
        )
    return run


def _selected_run(settings: ChallengerSettings, store: Store) -> RunRecord:
    if settings.metrics_files:
        return _best_of_metrics_files(settings, store)
    if settings.run_id:
        return _run_of_type(store, settings.run_id, is_sweep=False)
    return store.runs.get(_best_run_of_sweep(str(settings.sweep), settings.metric, store))


def _run_of_type(store: Store, run_id: str, is_sweep: bool) -> RunRecord:
    """Return a run. Raises StoreError if it is a sweep instead of the run of one job, or the other way round."""
    run = store.runs.get(run_id)
    if (run.tags.get(tags.RUN_TYPE) == "sweep") != is_sweep:
        kind, option = ("the run of one job", "run_id") if is_sweep else ("a sweep", "sweep")
        raise StoreError(f"Run {run_id} is {kind}. Promote it with: {next_command('promote', f'{option}={run_id}')}")
    return run


def _best_run_of_sweep(sweep: str, metric: str, store: Store) -> str:
    _run_of_type(store, sweep, is_sweep=True)
    outcomes = [Outcome(**outcome) for outcome in json.loads(store.artifacts.read_text(sweep, JOBS_FILE))]
    best = best_outcomes(outcomes, metric)
    if not best:
        raise StoreError(f"Sweep {sweep} has no finished run.")
    if len(best) > 1:
        runs = ", ".join(str(outcome.run_id) for outcome in best)
        raise StoreError(
            f"Sweep {sweep} has no best run: its jobs were scored on {len(best)} different sets of rows. Select the best run of"
            f" one set ({runs}): {next_command('promote', 'run_id=ID')}, with the data and split of that run."
        )
    return str(best[0].run_id)


def _best_of_metrics_files(settings: ChallengerSettings, store: Store) -> RunRecord:
    """Return the run with the best metric among those named in exported metrics files."""
    try:
        contents = {name: json.loads(Path(name).read_text(encoding="utf-8")) for name in settings.metrics_files}
        best = min(contents, key=lambda name: as_loss(settings.metric, float(contents[name][settings.metric])))
        run_id = str(contents[best][RUN_ID_KEY])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Could not read metrics_files={list(settings.metrics_files)}: {type(error).__name__}: {error}."
            " Expected files that housing.train wrote with export=FOLDER."
        ) from error
    try:
        return store.runs.get(run_id)
    except StoreError as error:
        raise StoreError(
            f"{error} {best} names it, so that file comes from another store, for example through DVC's cache."
            " Fit the run here (dvc repro --force), or select the store that has it (mlflow=server)."
        ) from error


def _require_comparable(run: RunRecord, test_set: TestSet) -> None:
    run_type = run.tags.get(tags.RUN_TYPE)
    if run.status != "FINISHED" or run_type != "run":
        raise StoreError(f"Run {run.id} must be a finished training run (got type {run_type!r} in state {run.status}).")
    for name, tag in (("table", tags.DATA), ("split", tags.SPLIT)):
        current = test_set.tags()[tag]
        if run.tags.get(tag) != current:
            raise StoreError(
                f"Run {run.id} was fitted on another {name} ({run.tags.get(tag)}) than the current one ({current})."
                " Train again, or pass the data and split of the run."
            )


@contextmanager
def open_bundle(
    challenger: Challenger, registered_model: str, store: Store, test_set: TestSet, reasons: list[str]
) -> Iterator[tuple[Bundle, Path]]:
    """Yield the challenger's verified bundle and its directory, which exists until the block ends.

    A run without a bundle is refitted from its config, and `reasons` says so.

    Raises
    ------
    BundleError
        If the bundle is damaged, or if the refitted model is another one.
    """
    run = challenger.run
    if challenger.version is None and tags.MODEL_ID not in run.tags:
        reasons.append("the run had no bundle and was refitted from its config")
        _refit(run, store, test_set)
        run = store.runs.get(run.id)
    model = f"{registered_model}/{challenger.version}" if challenger.version else run.tags[tags.MODEL_ID]
    with store.artifacts.bundle(f"models:/{model}") as directory:
        yield Bundle.read(directory), directory


def _refit(run: RunRecord, store: Store, test_set: TestSet) -> None:
    """Fit a run's config again and log the bundle to the run."""
    holdouts: list[HoldoutPredictions] = []
    cfg = store.artifacts.read_config(run.id)
    bundle, metrics = build(BuildSettings.from_config(cfg), test_set.table, test_set.parts, run.id, on_fit=holdouts.append)
    if abs(metrics["rmse"] - run.metrics["rmse"]) > REFIT_TOLERANCE * run.metrics["rmse"]:
        raise BundleError(
            f"Refitting run {run.id} gave a validation RMSE of {metrics['rmse']:.6f} instead of {run.metrics['rmse']:.6f}."
            " The code or a library has changed since; train again."
        )
    with tempfile.TemporaryDirectory(prefix="housing-") as name:
        directory = Path(name)
        bundle.write(directory / BUNDLE)
        holdouts[0].write(directory / HOLDOUT)
        log_bundle(run.run, directory, bundle)
    run.run.log(tags={"housing.refitted": "true"})


def require_same_columns(bundle: Bundle, challenger: Challenger, test_set: TestSet) -> None:
    """Raise StoreError if the challenger was fitted on other columns than the table has now."""
    schema = test_set.table.schema
    if bundle.schema.interface() != schema.interface():
        changes = [*bundle.schema.breaking_changes(schema), *schema.breaking_changes(bundle.schema)]
        raise StoreError(
            f"Run {challenger.run.id} was fitted on other columns than table {schema.name} has now ({'; '.join(changes)})."
            " Train again, or pass the data of the run."
        )
