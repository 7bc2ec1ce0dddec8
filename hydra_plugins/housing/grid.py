"""Hydra's own grid sweep, which composes once what its jobs share.

Hydra composes the whole config twice for each job: a quarter of a second with this project's groups. Jobs that choose the
same options differ in values alone, so here they are copies of one composition with their values put in.
"""

from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf


class Grid(BasicSweeper):
    """The basic sweeper with shared compositions; its config is the basic sweeper's."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives, with a loader that remembers."""
        loader = SharedCompositions(hydra_context.config_loader.get_search_path())
        remembering = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=remembering, task_function=task_function, config=config)


class SharedCompositions(ConfigLoaderImpl):
    """A loader that keeps each composition of options, and puts the values of a job into a copy."""

    def __init__(self, config_search_path: Any) -> None:
        super().__init__(config_search_path)
        self._compositions: dict[tuple[str | None, ...], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Give the config of one job, equal to what Hydra's own loader gives."""
        asked = OverridesParser.create().parse_overrides([*master_config.hydra.overrides.hydra, *sweep_overrides])
        values = [override for override in asked if self._is_value(override)]
        options = [str(override.input_line) for override in asked if override not in values]
        config = deepcopy(self._composed(master_config, options))
        self._apply_overrides_to_config(values, config)
        task = [override for override in asked if not override.is_hydra_override()]
        config.hydra.overrides.task = [override.input_line for override in task]
        names = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            task, exclude_keys=names.exclude_keys, item_sep=names.item_sep, kv_sep=names.kv_sep
        )
        OmegaConf.copy_cache(from_config=master_config, to_config=config)  # one time stamp for all jobs
        return config

    def _is_value(self, override: Override) -> bool:
        """Whether an override sets a value, as `a.b=c` does; options, additions and Hydra's own belong to the composition."""
        plain = override.type == OverrideType.CHANGE and override.package is None and not override.is_hydra_override()
        return plain and not self.repository.group_exists(override.key_or_group)

    def _composed(self, master_config: DictConfig, options: list[str]) -> DictConfig:
        if tuple(options) not in self._compositions:
            name = master_config.hydra.job.config_name
            self._compositions[tuple(options)] = self.load_configuration(name, options, run_mode=RunMode.RUN)
        return self._compositions[tuple(options)]
