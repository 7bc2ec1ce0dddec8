"""History of decisions: who decided what about an alias, when, and with which evidence."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from housing.command_line.output import to_json_value
from housing.core.errors import ConfigError, StoreError
from housing.core.files import atomic_write
from housing.core.validators import integer
from housing.promotion import decision_log
from housing.promotion.decision_log import DecisionRecord
from housing.tracking import store as tracking
from housing.tracking.aliases import require_declared_alias
from housing.tracking.store import Store

MAX_LIMIT = 50_000  # of one request to MLflow


@dataclass(frozen=True)
class History:
    """Past decisions, newest first.

    Attributes
    ----------
    file
        The file with all decisions, if one was written.
    """

    decisions: list[DecisionRecord]
    file: Path | None = None


def read_history(cfg: DictConfig) -> History:
    """Return the newest decisions, and write all of them to the file `export` if it is set.

    Raises
    ------
    ConfigError
        If the limit is out of range, the alias is not declared, or the file has another ending.
    StoreError
        If the store is unavailable or does not exist.
    """
    integer(1, MAX_LIMIT).validate("limit", cfg.limit)
    if cfg.alias is not None:
        require_declared_alias(cfg.alias, cfg.aliases)
    file = None if cfg.export is None else Path(cfg.export)
    if file is not None and file.suffix not in (".json", ".csv"):
        raise ConfigError(f"export must be a path that ends in .json or .csv (got {str(file)!r}).")
    store = tracking.connect(cfg.mlflow)
    limit = cfg.limit if file is None else MAX_LIMIT
    decisions = decision_log.list_decisions(store, cfg.decisions_experiment, cfg.alias, limit)
    if file is not None:
        _export(store, decisions, file)
    return History(decisions[: cfg.limit], file)


def _export(store: Store, decisions: Sequence[DecisionRecord], file: Path) -> None:
    """Write one JSON object, or one line of a CSV, for each decision."""
    with atomic_write(file) as partial:
        if file.suffix == ".csv":
            _write_csv(decisions, partial)
            return
        documents = [{**_as_dict(decision), "evidence": _read_evidence(store, decision)} for decision in decisions]
        partial.write_text(json.dumps(documents, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_csv(decisions: Sequence[DecisionRecord], path: Path) -> None:
    """Write the facts and scores of decisions. Scores that a decision does not have are empty."""
    rows = [dict(_flat(decision)) for decision in decisions]
    facts = [field.name for field in fields(DecisionRecord) if field.name != "metrics"]
    scores = sorted({name for row in rows for name in row if name.startswith("metrics.")})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*facts, *scores], restval="")
        writer.writeheader()
        writer.writerows(rows)


def _flat(decision: DecisionRecord) -> Iterator[tuple[str, Any]]:
    for name, value in _as_dict(decision).items():
        if name == "metrics":
            yield from ((f"metrics.{score}", number) for score, number in value.items())
        else:
            yield name, value


def _as_dict(decision: DecisionRecord) -> dict[str, Any]:
    return dict(to_json_value(decision))


def _read_evidence(store: Store, decision: DecisionRecord) -> dict[str, Any] | None:
    """Return the checks, scores and intervals that were logged with a decision; None if it was interrupted before."""
    try:
        evidence: dict[str, Any] = json.loads(store.artifacts.read_text(decision.decision_id, decision_log.DECISION_FILE))
    except StoreError:
        if decision.finished:
            raise
        return None
    return evidence
