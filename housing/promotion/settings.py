"""Settings of promotion and rollback, read and validated once from a command's config."""

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from housing.core.errors import ConfigError
from housing.core.validators import BOOLEAN, NON_NEGATIVE, POSITIVE, Validator, choice, integer, optional, validate
from housing.evaluation.evaluate import EvaluationSettings
from housing.promotion.decision_events import EventSettings
from housing.promotion.signing import Signer
from housing.scoring.metrics import require_ranking_metric
from housing.tracking.aliases import require_declared_alias

ALIAS_PATTERN = re.compile(r"(?!(latest|v\d+)$)[\w-]+", re.ASCII | re.IGNORECASE)  # MLflow reserves "latest" and "v1"
QUICK, FULL = "quick", "full"
SELECTORS = ("run_id", "sweep", "metrics_files")
FRACTION = Validator("a number from 0 to 1", lambda value: NON_NEGATIVE.is_valid(value) and value <= 1)
VALIDATORS = {
    "evaluate": optional(choice(QUICK, FULL)),
    "force": BOOLEAN,
    "max_rows": optional(integer(1)),
    "canary": Validator("a number from 0 to below 1", lambda value: FRACTION.is_valid(value) and value < 1),
    "gate.confidence": Validator("a number from 0.5 to below 1", lambda value: FRACTION.is_valid(value) and 0.5 <= value < 1),
    "gate.min_rows": integer(6),
    "gate.n_resamples": integer(1),
    "gate.seed": integer(0),
    "gate.slices.max_regression": NON_NEGATIVE,
    "gate.slices.min_rows": integer(1),
    "gate.coverage.nominal": Validator("a number above 0 and below 1", lambda value: FRACTION.is_valid(value) and 0 < value < 1),
    "gate.coverage.min": FRACTION,
    "gate.coverage.max": FRACTION,
    "gate.latency_us": optional(POSITIVE),
    "gate.model_bytes": optional(POSITIVE),
    "gate.smoke_test_seconds": optional(POSITIVE),
    "serve.wait_seconds": NON_NEGATIVE,
}


@dataclass(frozen=True)
class ServerSettings:
    """A server that follows an alias, and how long to wait until it serves a new version. `url` is None if there is none."""

    url: str | None
    key: str = ""
    wait_seconds: float = 30.0

    @classmethod
    def from_config(cls, serve: Mapping[str, Any]) -> Self:
        """Read the settings of the config `serve`."""
        return cls(serve["url"], serve["key"], serve["wait_seconds"])


@dataclass(frozen=True)
class AliasSettings:
    """The alias that a command moves.

    Attributes
    ----------
    experiment
        The MLflow experiment of the decision log.
    actor
        The person or job that decides.
    server
        The server that follows the alias.
    needs_approval
        Whether a promotion is only a request, which another person approves.
    events
        Where decisions are sent, or None.
    signer
        Signs each version that moves to the alias, or None.
    """

    registered_model: str
    name: str
    experiment: str
    actor: str
    server: ServerSettings
    needs_approval: bool = False
    events: EventSettings | None = None
    signer: Signer | None = None

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of a command's config. Without `actor`, it is the user of this machine.

        Raises
        ------
        ConfigError
            If the alias, or one that requires approval, is not declared, `events` is wrong, or the signing key cannot be read.
        """
        name = str(cfg.alias)
        for alias, key in ((name, "alias"), *((str(alias), "approval_required") for alias in cfg.approval_required)):
            require_declared_alias(alias, cfg.aliases, key)
        actor, server = str(cfg.actor or getpass.getuser()), ServerSettings.from_config(cfg.serve)
        needs_approval, events = name in cfg.approval_required, EventSettings.from_config(cfg.events)
        signer = None if cfg.signing_key is None else Signer.read(Path(cfg.signing_key))
        return cls(cfg.registered_model, name, cfg.decisions_experiment, actor, server, needs_approval, events, signer)


@dataclass(frozen=True)
class GateSettings:  # pylint: disable=too-many-instance-attributes  # one for each key of `gate` in conf/promote.yaml
    """Thresholds of the gate.

    Attributes
    ----------
    confidence
        One-sided confidence with which the challenger must be better, or worse, than the champion.
    min_rows
        Fewer test rows neither promote nor reject by the score.
    max_slice_regression
        The share by which the metric of a slice may exceed the champion's.
    min_slice_rows
        Smaller slices are not checked.
    nominal_coverage, min_coverage, max_coverage
        The prediction interval that is checked, and the range in which its actual coverage must lie.
    max_latency_us, max_model_bytes
        Limits of one prediction in microseconds and of the bundle in bytes; None for no limit.
    smoke_test_seconds
        Time within which a server must be ready with the bundle; None to skip the smoke test.
    """

    metric: str
    confidence: float
    min_rows: int
    n_resamples: int
    seed: int
    max_slice_regression: float
    min_slice_rows: int
    nominal_coverage: float
    min_coverage: float
    max_coverage: float
    max_latency_us: float | None = None
    max_model_bytes: float | None = None
    smoke_test_seconds: float | None = None

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read `metric` and `gate` of a promotion's config."""
        gate = cfg.gate
        return cls(
            metric=cfg.metric,
            confidence=gate.confidence,
            min_rows=gate.min_rows,
            n_resamples=gate.n_resamples,
            seed=gate.seed,
            max_slice_regression=gate.slices.max_regression,
            min_slice_rows=gate.slices.min_rows,
            nominal_coverage=gate.coverage.nominal,
            min_coverage=gate.coverage.min,
            max_coverage=gate.coverage.max,
            max_latency_us=gate.latency_us,
            max_model_bytes=gate.model_bytes,
            smoke_test_seconds=gate.smoke_test_seconds,
        )


@dataclass(frozen=True)
class ChallengerSettings:
    """Which model is judged.

    Attributes
    ----------
    experiment, evaluation, metric
        Without a selector, the finished run with the best `metric` in this experiment, validated by `evaluation`.
    run_id, sweep, metrics_files
        Selectors, of which at most one is set: a run, the best run of a sweep, the best run of exported metrics files.
    source_alias
        If set, the version at this alias is judged, and no selector is allowed.
    """

    experiment: str
    evaluation: str
    metric: str
    run_id: str | None
    sweep: str | None
    metrics_files: tuple[str, ...]
    source_alias: str | None

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of a promotion's config.

        Raises
        ------
        ConfigError
            If selectors contradict each other or the alias.
        """
        selectors = [name for name in SELECTORS if cfg[name]]
        source_alias = cfg.aliases.get(cfg.alias)
        if source_alias is not None and selectors:
            raise ConfigError(
                f"{selectors[0]} cannot be combined with alias={cfg.alias}, which always takes the version at {source_alias}."
                f" Omit {selectors[0]}, or promote to {source_alias} first."
            )
        if len(selectors) > 1:
            raise ConfigError(f"{' and '.join(selectors)} cannot be combined; expected at most one of {', '.join(SELECTORS)}.")
        files = tuple(map(str, cfg.metrics_files or ()))
        return cls(cfg.experiment_name, cfg.evaluation, str(cfg.rank_by), cfg.run_id, cfg.sweep, files, source_alias)


@dataclass(frozen=True)
class PromotionSettings:
    """Everything that a promotion depends on besides the data and the store.

    Attributes
    ----------
    force_reason
        Why the alias moves against the gate's verdict, or "" if the verdict holds.
    evaluation
        The slices that the gate checks, and the harder splits of the full evaluation.
    is_full_evaluation
        Whether the challenger is also evaluated on harder splits.
    canary_share
        The share of the requests that a promoted version answers before the alias moves; 0: the alias moves at once.
    serve
        Settings of the server that the smoke test starts.
    """

    alias: AliasSettings
    challenger: ChallengerSettings
    gate: GateSettings
    force_reason: str
    evaluation: EvaluationSettings
    is_full_evaluation: bool
    canary_share: float
    serve: Mapping[str, Any]

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read and validate the config of a promotion.

        Raises
        ------
        ConfigError
            If a value is out of range.
        """
        _validate(cfg)
        return cls(
            AliasSettings.from_config(cfg),
            ChallengerSettings.from_config(cfg),
            GateSettings.from_config(cfg),
            str(cfg.force_reason) if cfg.force else "",
            EvaluationSettings.from_config(cfg),
            cfg.evaluate == FULL or (cfg.evaluate is None and cfg.aliases.get(cfg.alias) is not None),
            float(cfg.canary),
            cfg.serve,
        )


def _validate(cfg: DictConfig) -> None:
    require_ranking_metric(cfg.metric)
    for name in cfg.aliases:
        if not ALIAS_PATTERN.fullmatch(str(name)):
            raise ConfigError(
                f"aliases must consist of letters, digits, - and _, and must not be 'latest' or 'v' and a number (got {name!r})."
            )
    validate({name: OmegaConf.select(cfg, name) for name in VALIDATORS}, VALIDATORS)
    if cfg.gate.coverage.min > cfg.gate.coverage.max:
        raise ConfigError(
            f"gate.coverage.min must be at most gate.coverage.max, {cfg.gate.coverage.max} (got {cfg.gate.coverage.min})."
        )
    if cfg.force and not str(cfg.force_reason or "").strip():
        raise ConfigError('force=true needs a reason, which is kept in the decision log: force=true force_reason="..."')
    if cfg.force_reason and not cfg.force:
        raise ConfigError("force_reason is only allowed with force=true.")
