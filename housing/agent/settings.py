"""Settings of the tools: the project, the rights of an agent, and the server whose drift is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from housing.agent.overrides import table_override
from housing.api.composition import Context
from housing.api.project import Project
from housing.command_line.next_command import CONFIG_DIR_PROVIDER
from housing.core.environment import project_home


@dataclass(frozen=True)
class AgentSettings:
    """Settings of `conf/mcp.yaml`.

    Attributes
    ----------
    context
        The project, in which the configs of commands are composed.
    rights
        "train", "promote", both or neither.
    """

    context: Context
    rights: frozenset[str]
    server_url: str
    server_key: str
    timeout_seconds: float

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of `housing.mcp`, while Hydra runs it."""
        hydra = HydraConfig.get()
        own = ("rights", "server_url", "server_key", "timeout_seconds")
        shared = [word for word in hydra.overrides.task if word.partition("=")[0].lstrip("+") not in own]
        folders = [Path(source.path) for source in hydra.runtime.config_sources if source.provider == CONFIG_DIR_PROVIDER]
        return cls(
            context=Context(project_home(), folders[0].absolute() if folders else None, tuple(shared)),
            rights=frozenset(cfg.rights),
            server_url=str(cfg.server_url).rstrip("/"),
            server_key=cfg.server_key,
            timeout_seconds=cfg.timeout_seconds,
        )

    def project(self, table: str | None = None) -> Project:
        """Return the project, with another table than that of the command line if one is named."""
        context = self.context
        return Project(context.folder, *context.overrides, *table_override(table), config_dir=context.config_dir)
