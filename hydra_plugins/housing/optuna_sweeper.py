"""Optuna sweeper: connects a search to Hydra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.housing.grid_sweeper import CachingConfigLoader


class OptunaSweeper(Sweeper):
    """Run a search of `housing.sweeps.search`. conf/hydra/sweeper/search.yaml describes the options."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config: DictConfig
        self.launcher: Any
        self.parser: OverridesParser

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up parser and launcher with a caching config loader."""
        from hydra.core.plugins import Plugins  # pylint: disable=import-outside-toplevel  # Hydra's plugins import this file

        loader = CachingConfigLoader(hydra_context.config_loader.get_search_path())
        caching_context = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        self.parser = OverridesParser.create(config_loader=loader)
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=caching_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search until the study has its number of trials."""
        from housing.sweeps import search  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start

        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        overrides = [f"{name}={values}" for name, values in self.options["params"].items()] + list(arguments)
        search.run(self.config, self.parser.parse_overrides(overrides), self._launch, getattr(self.launcher, "stop", None))

    def _launch(self, number: int, overrides: Sequence[str]) -> None:
        """Run one job. Its outcome is in its folder; the search continues after a failure."""
        self.launcher.launch([list(overrides)], initial_job_idx=number)
