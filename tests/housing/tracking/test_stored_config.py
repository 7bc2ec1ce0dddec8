"""Stored configs: a manipulated artifact must not run code, read the environment or exhaust the memory of its reader."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from housing.core.config import CONF
from housing.core.errors import HousingError, UntrustedConfigError
from housing.promotion.promotion import promote
from housing.runs.reproduction import reproduce
from housing.tracking import store as tracking
from housing.tracking.stored_config import GROUPS, parse_stored_config
from tests.support.commands import command
from tests.support.promotions import config_file, promote_rentals
from tests.support.tables import TABLES, config, train

RUN = "0" * 32
SHELL = {"_target_": "mlflow.utils.process._exec_cmd", "cmd": ["touch", "PWNED"]}
BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]" for level in range(1, 40))])


def stored(*overrides: str) -> dict[str, Any]:
    """Return a config as housing.train stores it."""
    resolved: Any = OmegaConf.to_container(config("train", *overrides), resolve=True)
    return {str(name): value for name, value in resolved.items()}


def parse(content: Any, *trusted: str) -> Any:
    """Parse a config as if it came from the store."""
    return parse_stored_config(yaml.safe_dump(content, sort_keys=False), RUN, trusted)


def choices() -> Iterator[str]:
    """Yield `group=choice` for each file of each group that names targets."""
    for group in GROUPS:
        yield from (f"{group}={file.stem}" for file in sorted((Path(CONF) / group).glob("*.yaml")))


@pytest.mark.parametrize("choice", [*choices(), "experiment=best", "features=full"])
def test_every_config_of_the_project_survives_storing(choice: str) -> None:
    content = stored(choice)
    assert OmegaConf.to_container(parse(content)) == content


@pytest.mark.parametrize(
    "target",
    [
        "mlflow.utils.process._exec_cmd",
        "pandas.read_pickle",
        "joblib.load",
        "numpy.load",
        "hydra.utils.get_method",
        "hydra.utils.instantiate",
        "sklearn.datasets.fetch_california_housing",  # a source of tables unpickles a file of its folder
        "xgboost.XGBRegressor.load_model",
        "xgboost",
        " xgboost.XGBRegressor",
        "housing.data.split.split_by_hash",
        "",
        None,
        ["xgboost.XGBRegressor"],
    ],
)
@pytest.mark.parametrize("key", ["model.estimator", "interval.estimator", "evaluation.folds", "tags.note", "new.node"])
def test_a_target_that_conf_does_not_name_for_this_key_is_an_error(key: str, target: Any) -> None:
    cfg = OmegaConf.create(stored())
    OmegaConf.update(cfg, key, {"_target_": target}, force_add=True)
    with pytest.raises(UntrustedConfigError, match=rf"{RUN} would call .* \({key}\._target_\)"):
        parse(OmegaConf.to_container(cfg))


@pytest.mark.parametrize(
    "hidden", [{"_args_": [SHELL]}, {"callbacks": [SHELL]}, {"deep": [[{"er": SHELL}]]}, {"_partial_": SHELL}]
)
def test_a_target_within_arguments_is_an_error(hidden: dict[str, Any]) -> None:
    content = stored()
    content["model"]["estimator"] |= hidden
    with pytest.raises(UntrustedConfigError, match="_exec_cmd"):
        parse(content)


def test_a_target_that_the_owner_trusts_is_allowed_everywhere() -> None:
    content = stored("model.estimator._target_=sklearn.svm.NuSVR")
    with pytest.raises(UntrustedConfigError, match=r"add it: 'mlflow.trusted_targets=\[sklearn.svm.NuSVR\]'"):
        parse(content)
    assert parse(content, "sklearn.svm.NuSVR").model.estimator["_target_"] == "sklearn.svm.NuSVR"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_target_", "${oc.env:HOME}"),
        ("_target_", "xgboost.${tags.rest}"),
        ("max_depth", "${oc.decode:'${oc.env:SECRET}'}"),
        ("${oc.env:HOME}", 1),
    ],
)
def test_an_interpolation_is_an_error(name: str, value: Any) -> None:
    content = stored()
    content["model"]["estimator"][name] = value
    with pytest.raises(UntrustedConfigError, match="has an interpolation"):
        parse(content)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/object/apply:os.system ['touch PWNED']", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("a: 2020-99-99", "not valid YAML"),
        (BOMB, "no YAML aliases"),
        ("a: &a [*a]", "no YAML aliases"),
        ("a: " + "[" * 200 + "]" * 200, "30 nested levels"),
        ("- a", "must be a mapping"),
        ("", "must be a mapping"),
        ("1: a", "must be a mapping"),
    ],
)
def test_a_file_that_is_not_a_plain_mapping_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UntrustedConfigError, match=reason):
        parse_stored_config(text, RUN, ())


@pytest.fixture
def hostile(home: Path) -> str:
    """A run at staging whose stored config runs a shell, and its id."""
    run_id = str(train(home, "model=linear", "figures=false").run_id)
    assert promote_rentals().version == "1"
    store = tracking.connect(config("train", "data=rentals").mlflow)
    file = config_file(store, run_id)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["model"]["estimator"] = {**SHELL, "cmd": ["touch", str(home / "PWNED")]}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return run_id


def test_a_promotion_to_production_rejects_a_hostile_config_even_by_force(home: Path, hostile: str) -> None:
    decision = promote_rentals("alias=production", "force=true", "force_reason=hurry")
    assert decision.verdict == "REJECT" and not decision.moves and not decision.force_reason
    assert f"stored config of run {hostile} would call 'mlflow.utils.process._exec_cmd'" in decision.reasons[-1]
    assert tracking.connect(config("promote", "data=rentals").mlflow).registry.version_at("housing-rentals", "production") is None
    assert not (home / "PWNED").exists()


def test_no_command_runs_a_hostile_config(home: Path, hostile: str) -> None:
    for name in ("reproduce", "report"):
        result = command(home, f"housing.{name}", f"--config-dir={TABLES}", "data=rentals", f"run_id={hostile}")
        assert result.code == 1 and "would call 'mlflow.utils.process._exec_cmd'" in result.err and "Traceback" not in result.err
    store = tracking.connect(config("promote", "data=rentals").mlflow)
    store.client.api.delete_tag(hostile, "housing.model_id")  # a run without a bundle is refitted
    assert promote_rentals(f"run_id={hostile}").verdict == "REJECT"
    assert not (home / "PWNED").exists()


def test_a_config_that_can_no_longer_be_fitted_stops_a_full_evaluation(home: Path) -> None:
    run_id = str(train(home, "data=towns", "model=linear", "figures=false").run_id)
    cfg = config("promote", "data=towns", "evaluate=full")
    file = config_file(tracking.connect(cfg.mlflow), run_id)
    file.write_text(file.read_text(encoding="utf-8").replace("tol: ", "tool: "), encoding="utf-8")
    with pytest.raises(HousingError, match="tool"):
        promote(cfg)


def test_a_config_folder_of_the_user_names_targets_too(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own" / "model"
    folder.mkdir(parents=True)
    model = "name: bayesian\nnan_handling: impute\nestimator: {_target_: sklearn.linear_model.BayesianRidge}\n"
    (folder / "bayesian.yaml").write_text(model, encoding="utf-8")
    own = (f"--config-dir={folder.parent}", f"hydra.searchpath=[file://{TABLES}]", "data=rentals")
    assert command(home, "housing.train", *own, "model=bayesian", "features=none", "figures=false").code == 0
    store = tracking.connect(config("train", "data=rentals").mlflow)
    (run,) = store.client.api.search_runs([store.client.experiment_id("rentals")])
    allowed = command(home, "housing.reproduce", *own, f"run_id={run.info.run_id}")
    assert allowed.code == 0, allowed.err
    trusted, selector = "mlflow.trusted_targets=[sklearn.linear_model.BayesianRidge]", f"run_id={run.info.run_id}"
    with pytest.raises(UntrustedConfigError, match=re.escape(trusted)):
        reproduce(config("reproduce", selector))
    assert reproduce(config("reproduce", selector, trusted))
