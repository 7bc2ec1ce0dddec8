"""The grid sweeper: a config from the cache equals the config that Hydra composes."""

from pathlib import Path
from typing import cast

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from housing.core.config import CONF
from hydra_plugins.housing.grid_sweeper import CachedGridSweeper, CachingConfigLoader
from tests.support.commands import command
from tests.support.tables import RENTALS_SWEEP


@pytest.mark.parametrize(
    "jobs",
    [
        [["model=linear"], ["model=decision_tree"]],
        [["model=decision_tree", f"model.estimator.max_depth={depth}"] for depth in (2, 3)],
        [
            ["data=synthetic", "seed=1", "+tags.why=x", "data.rows=50"],
            ["data=synthetic", "seed=2", "+tags.why=x", "data.rows=60"],
        ],
        [["experiment=baseline", "model.estimator.n_estimators=3"], ["experiment=baseline", "model.estimator.n_estimators=4"]],
        [["debug=fast", "features=none", "max_rows=7"], ["debug=fast", "features=static", "max_rows=7"]],
        [["split=random", "split.seeds=[1,2]"], ["split=random", "split.seeds=[3,4]"], ["split=random"]],
    ],
)
def test_every_job_gets_the_config_that_hydra_composes(jobs: list[list[str]]) -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        basic_loader = GlobalHydra.instance().config_loader()
        assert isinstance(basic_loader, ConfigLoaderImpl)
        caching_loader = CachingConfigLoader(basic_loader.get_search_path())
        master = basic_loader.load_configuration("train", ["hydra.verbose=true", "hydra/launcher=slurm"], RunMode.MULTIRUN)
        for job in jobs:
            expected, cached = basic_loader.load_sweep_config(master, job), caching_loader.load_sweep_config(master, job)
            assert OmegaConf.to_container(cached) == OmegaConf.to_container(expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model=linear,decision_tree,xgboost", "model.estimator.max_depth=3"],
            "model.estimator.max_depth does not exist for model=linear, only for model=decision_tree, model=xgboost.",
        ),
        (
            ["model=linear,xgboost", "model.estimator.max_deph=3,4"],
            "has no option model.estimator.max_deph (model.estimator.max_deph=3,4). Did you mean model.estimator.max_depth?",
        ),
    ],
)
def test_a_key_that_some_models_of_a_sweep_lack_is_refused_with_their_names(
    home: Path, overrides: list[str], message: str
) -> None:
    result = command(home, "housing.train", *RENTALS_SWEEP, *overrides)
    assert result.code == 1 and message in result.err and "+model" not in result.err


def test_each_value_is_tried_once_before_the_first_job_and_no_job_is_composed_twice() -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        basic_loader = GlobalHydra.instance().config_loader()
        assert isinstance(basic_loader, ConfigLoaderImpl)
        loader = CachingConfigLoader(basic_loader.get_search_path())
        master = basic_loader.load_configuration("train", [], RunMode.MULTIRUN)
        jobs = [[f"seed={seed}", f"max_rows={rows}"] for seed in range(40) for rows in range(1, 40)]
        loader.require_valid(master, jobs)
        with pytest.raises(ConfigCompositionException, match="seed.low"):
            loader.require_valid(master, [*jobs, ["seed.low=1"]])
    CachedGridSweeper.validate_batch_is_legal(cast(CachedGridSweeper, None), [["seed.low=1"]])  # nothing is composed
