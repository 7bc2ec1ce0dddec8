"""A sweeper that asks Optuna what to try next."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.housing.grid_sweeper import CachingConfigLoader


class OptunaSweeper(Sweeper):
    """Drives a study of `housing.sweeps.search`; what its config says is told in conf/hydra/sweeper/search.yaml."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config: DictConfig
        self.launcher: Any
        self.parser: OverridesParser

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives, with a loader that remembers."""
        from hydra.core.plugins import Plugins  # pylint: disable=import-outside-toplevel  # it imports this file

        loader = CachingConfigLoader(hydra_context.config_loader.get_search_path())
        caching_context = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        self.parser = OverridesParser.create(config_loader=loader)
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=caching_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search until the study has its number of trials."""
        from housing.sweeps import search  # pylint: disable=import-outside-toplevel  # Hydra imports this file each time

        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        overrides = [f"{name}={values}" for name, values in self.options["params"].items()] + list(arguments)
        search.run(self.config, self.parser.parse_overrides(overrides), self._launch, getattr(self.launcher, "stop", None))

    def _launch(self, number: int, overrides: Sequence[str]) -> None:
        """Run one job. What came of it is in its folder; that it failed is no reason to end the search."""
        self.launcher.launch([list(overrides)], initial_job_idx=number)
