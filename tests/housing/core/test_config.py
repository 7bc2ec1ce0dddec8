"""Interpolations: parsed once, looked up at each access."""

import pytest
from omegaconf import OmegaConf, base
from omegaconf.errors import GrammarParseError, InterpolationKeyError

from housing.core import config


def test_an_interpolation_is_parsed_once_and_has_the_value_of_the_moment() -> None:
    assert config.CONF
    cfg = OmegaConf.create({"a": 1, "b": "${a}", "c": {"d": "${..a}-${b}", "e": {"x": 1}}, "f": "${c.e}"})
    assert (cfg.b, cfg.c.d, cfg.f) == (1, "1-1", {"x": 1})
    parses = vars(base)["parse"].cache_info().misses
    cfg.a, cfg.c.e.x = 2, 3
    assert (cfg.b, cfg.c.d, cfg.f) == (2, "2-2", {"x": 3})
    other = OmegaConf.create({"a": [1], "b": "${a}"})
    assert other.b == [1]
    assert vars(base)["parse"].cache_info().misses == parses


def test_a_wrong_interpolation_is_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(InterpolationKeyError, match="Interpolation key 'missing' not found"):
            OmegaConf.to_container(OmegaConf.create({"a": "${missing}"}), resolve=True)
        with pytest.raises(GrammarParseError):
            OmegaConf.to_container(OmegaConf.create({"a": "${b"}), resolve=True)
