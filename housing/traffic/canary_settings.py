"""Settings of the canary's judge, read and validated once from its config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from omegaconf import DictConfig, OmegaConf

from housing.command_line.next_command import next_command
from housing.core.errors import ConfigError
from housing.core.validators import BOOLEAN, NON_NEGATIVE, POSITIVE, Validator, choice, integer, validate
from housing.evaluation.paired_test import MIN_UNITS
from housing.evaluation.sequential_test import SequentialRules
from housing.promotion.settings import AliasSettings

ALPHA = Validator("a number above 0 and below 0.5", lambda value: POSITIVE.is_valid(value) and value < 0.5)
VALIDATORS = {
    "follow": BOOLEAN,
    "take_back": BOOLEAN,
    "metric": choice("rmse", "mae"),
    "rules.margin": NON_NEGATIVE,
    "rules.take_over_alpha": ALPHA,
    "rules.take_back_alpha": ALPHA,
    "rules.min_groups": integer(MIN_UNITS),
    "rules.min_hours": NON_NEGATIVE,
    "rules.failures_alpha": ALPHA,
    "rules.latency_ratio": POSITIVE,
    "rules.latency_alpha": ALPHA,
}


@dataclass(frozen=True)
class RequestRules:
    """When a canary is taken back for its failures and latencies. See `rules` of conf/canary.yaml."""

    failures_alpha: float
    latency_ratio: float
    latency_alpha: float


@dataclass(frozen=True)
class CanarySettings:
    """Settings of `conf/canary.yaml`.

    Attributes
    ----------
    log_dir
        The log folder of the server.
    errors, requests
        The rules for errors on true values, and for failures and latencies.
    min_seconds
        A canary takes over after this time at the earliest.
    take_back_reason
        Why the canary is taken back whatever the rules say, or "" if they decide.
    """

    alias: AliasSettings
    log_dir: Path
    errors: SequentialRules
    requests: RequestRules
    min_seconds: float
    take_back_reason: str

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read and validate the settings.

        Raises
        ------
        ConfigError
            If an option is invalid, or a canary is to be taken back without a reason.
        """
        validate({name: OmegaConf.select(cfg, name) for name in VALIDATORS}, VALIDATORS)
        if bool(cfg.take_back) != bool(str(cfg.reason or "").strip()):
            end = next_command("canary", f"alias={cfg.alias}", "take_back=true", "reason=REASON")
            raise ConfigError(f"take_back=true needs a reason, and a reason needs take_back=true. End the canary with: {end}")
        rules = cfg.rules
        errors = SequentialRules(cfg.metric, rules.margin, rules.take_back_alpha, rules.take_over_alpha, rules.min_groups)
        requests = RequestRules(rules.failures_alpha, rules.latency_ratio, rules.latency_alpha)
        reason = str(cfg.reason) if cfg.take_back else ""
        return cls(AliasSettings.from_config(cfg), Path(cfg.log_dir), errors, requests, 3600 * rules.min_hours, reason)
