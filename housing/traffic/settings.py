"""Settings of a replay, read and validated once from its config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from omegaconf import DictConfig

from housing.command_line.next_command import next_command
from housing.command_line.times import parse_period
from housing.core.errors import ConfigError, HousingError
from housing.core.validators import Validator, choice, integer
from housing.evaluation.paired_test import MIN_UNITS, ComparisonSettings
from housing.feedback.log_reader import LogFilter
from housing.server_files.rotating_file import PREDICTIONS, list_files
from housing.tracking.aliases import require_declared_alias
from housing.traffic.errors import N_RESAMPLES, SEED

SELECTORS = ("version", "alias", "run_id")
CONFIDENCE = Validator(
    "a number from 0.5 to below 1",
    lambda value: isinstance(value, float | int) and not isinstance(value, bool) and 0.5 <= value < 1,
)


@dataclass(frozen=True)
class ReplaySettings:
    """Settings of `conf/replay.yaml`.

    Attributes
    ----------
    selector, value
        How the candidate is named: one of SELECTORS, and its value.
    """

    selector: str
    value: str
    log_dir: Path
    log_filter: LogFilter
    comparison: ComparisonSettings

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read and validate the settings.

        Raises
        ------
        ConfigError
            If not exactly one candidate is named, or an option is invalid.
        HousingError
            If the log folder does not exist or has no prediction log.
        """
        named = {name: str(cfg[name]) for name in SELECTORS if cfg[name] is not None}
        if len(named) != 1:
            raise ConfigError(
                f"Exactly one of version, alias and run_id must name the candidate (got {', '.join(named) or 'none'})."
                f" Example: {next_command('replay', 'alias=staging')}"
            )
        [(selector, value)] = named.items()
        if selector == "alias":
            require_declared_alias(value, cfg.aliases)
        choice("rmse", "mae").validate("metric", cfg.metric)
        CONFIDENCE.validate("confidence", cfg.confidence)
        integer(MIN_UNITS).validate("min_groups", cfg.min_groups)
        since, until = parse_period(cfg.since, cfg.until, float("-inf"), float("inf"))
        comparison = ComparisonSettings(cfg.metric, cfg.confidence, N_RESAMPLES, SEED, cfg.min_groups)
        return cls(selector, value, require_log(Path(cfg.log_dir)), LogFilter(since, until), comparison)


def require_log(folder: Path) -> Path:
    """Return the log folder of a server. Raise HousingError if it has no prediction log."""
    if not list_files(folder, PREDICTIONS):
        raise HousingError(
            f"log_dir={folder} has no prediction log. Name the log folder of a server (its serve.log_dir), or its alias:"
            " serve.alias=production."
        )
    return folder
