"""Hydra's own grid sweep, which composes once what its jobs share.

Hydra composes the whole config twice for each job: a quarter of a second with this project's groups. Jobs that choose the
same options differ in values alone, so here they are copies of one composition with their values put in.
"""

from collections.abc import Sequence
from typing import Any, cast

import cloudpickle
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf


class CachedGridSweeper(BasicSweeper):
    """The basic sweeper with shared compositions; its config is the basic sweeper's."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives, with a loader that remembers."""
        loader = CachingConfigLoader(hydra_context.config_loader.get_search_path())
        caching_context = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        super().setup(hydra_context=caching_context, task_function=task_function, config=config)
        self.launcher = cast(Launcher, _SilentLauncher(self.launcher))

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """Give the next jobs; before the first, tell the sweep how many there are."""
        from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start

        jobs = [job for batch in self.overrides or [] for job in batch]
        if Sweep.current is not None and self.batch_index == 0:
            Sweep.current.set_job_count(len(jobs), set.intersection(*map(set, jobs)) if len(jobs) > 1 else ())
        batch: Sequence[Sequence[str]] = super().get_job_batch()
        return batch


class _SilentLauncher:
    """A launcher whose failed jobs are the sweep's to tell: Hydra would end with the traceback of the first alone."""

    def __init__(self, launcher: Any) -> None:
        self.launcher = launcher

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and give what came of them where there is no sweep to do so."""
        from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start

        results: Sequence[JobReturn] = self.launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        return results if Sweep.current is None else []


class CachingConfigLoader(ConfigLoaderImpl):
    """A loader that keeps each composition of options, and puts the values of a job into a copy."""

    def __init__(self, config_search_path: Any) -> None:
        super().__init__(config_search_path)
        self._compositions: dict[tuple[str | None, ...], bytes] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Travel to the processes of the jobs without what is remembered: they compose nothing."""
        return {**self.__dict__, "_compositions": {}}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Give the config of one job, equal to what Hydra's own loader gives."""
        overrides = OverridesParser.create().parse_overrides([*master_config.hydra.overrides.hydra, *sweep_overrides])
        values = [override for override in overrides if self._is_value(override)]
        options = [str(override.input_line) for override in overrides if override not in values]
        config = self._compose_cached(master_config, options)
        self._apply_overrides_to_config(values, config)
        task = [override for override in overrides if not override.is_hydra_override()]
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

    def _compose_cached(self, master_config: DictConfig, options: list[str]) -> DictConfig:
        if tuple(options) not in self._compositions:
            name = master_config.hydra.job.config_name
            composed = self.load_configuration(name, options, run_mode=RunMode.RUN)
            # pickle refuses a plugin's class of a module that Hydra has imported twice
            self._compositions[tuple(options)] = cloudpickle.dumps(composed)
        copied: DictConfig = cloudpickle.loads(self._compositions[tuple(options)])  # four times as fast as deepcopy
        return copied


# Under the name of Hydra's own, which is every command's default: a search can then take its place.
ConfigStore.instance().store(
    group="hydra/sweeper", name="basic", node=BasicSweeperConf(_target_=f"{__name__}.CachedGridSweeper"), provider="housing"
)
