"""Settings of a monitoring report, read and validated once from its config."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from omegaconf import DictConfig

from housing.command_line.times import parse_period
from housing.feedback.log_reader import LogFilter
from housing.monitoring_report.timeline import Timeline
from housing.traffic.settings import require_log


@dataclass(frozen=True)
class ReportSettings:
    """Settings of `conf/monitor.yaml`."""

    log_dir: Path
    timeline: Timeline
    name: str | None
    version: str | None

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read and validate the settings.

        Raises
        ------
        ConfigError
            If a time is invalid, or `since` is not before `until`.
        HousingError
            If the log folder does not exist or has no prediction log.
        """
        now = time.time()
        timeline = Timeline(*parse_period(cfg.since, cfg.until, now - 7 * 86_400, now))
        version = None if cfg.version is None else str(cfg.version)
        return cls(require_log(Path(cfg.log_dir)), timeline, cfg.name, version)

    @property
    def log_filter(self) -> LogFilter:
        """The selection of entries of the log."""
        return LogFilter(self.timeline.since, self.timeline.until, self.version, name=self.name)

    def selects(self, key: str) -> bool:
        """Return whether a version is selected: its key is the version, after the model's name and a colon if it has one."""
        model, _, version = key.rpartition(":")
        return self.name in (None, model) and self.version in (None, version)
