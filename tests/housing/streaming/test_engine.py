"""The engine `stream` from training to promotion: the model of the engine `memory`, and all that belongs to a run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError
from housing.data import table as tables
from housing.data.settings import TableSettings
from housing.data.split import split
from housing.data.table import Table
from housing.fitting.fitting import FitSettings, fit
from housing.promotion.promotion import promote
from housing.runs.run import Job, run
from housing.runs.run_key import run_key
from housing.streaming.loading import read_streamed
from housing.streaming.settings import StreamSettings
from housing.tracking import store as tracking_store
from housing.training.build import BuildSettings, build
from tests.support.commands import command
from tests.support.tables import RENTALS_DATA, config, goods_frame, towns_frame

pytestmark = pytest.mark.long

TREES = ("model.estimator.n_estimators=40", "figures=false")
CHUNKS = ("engine=stream", "engine.chunk_rows=1000")
N_ROWS = 20_000  # of which the training rows stay on disk


@pytest.fixture(name="towns_path", scope="module")
def fixture_towns_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Parquet file of towns with many rows."""
    path = tmp_path_factory.mktemp("towns") / "towns.parquet"
    towns_frame(N_ROWS).to_parquet(path)
    return path


def both_tables(path: Path, name: str, *overrides: str, engine: StreamSettings) -> tuple[Any, Table, Table]:
    """Return a training config, and the table in memory and in chunks."""
    cfg = config("train", f"data={name}", f"data.path={path}", "interval=none", *TREES, *overrides)
    return cfg, tables.load(cfg.data), read_streamed(TableSettings.from_config(cfg.data), engine, None)


def predictions(cfg: Any, table: Table) -> np.ndarray:
    """Return the predictions of the test rows by a fit on the training rows, with early stopping on the validation rows."""
    parts = split(table, cfg.split)
    table = table.learn(parts.train)
    return fit(FitSettings.from_config(cfg), table, parts.train, parts.valid).predict(table.matrix[parts.test])


@pytest.mark.parametrize(
    "overrides",
    [
        ("features=none",),
        ("features=static", "+features.blocks.ratio.columns={size: {area: 1, rooms: -1}}"),
        ("features=none", "model.early_stopping=5", "model.estimator.n_estimators=200", "model.estimator.learning_rate=0.5"),
        ("features=none", "target.transform=log"),
    ],
    ids=["none", "static", "early_stopping", "log"],
)
def test_a_fit_in_chunks_predicts_like_one_in_memory(towns_path: Path, overrides: tuple[str, ...]) -> None:
    cfg, table, streamed = both_tables(towns_path, "towns", *overrides, engine=StreamSettings(1000, 5000))
    expected, actual = predictions(cfg, table), predictions(cfg, streamed)
    target = table.target[split(table, cfg.split).test]
    rmse, other = (float(np.sqrt(np.mean((predicted - target) ** 2))) for predicted in (expected, actual))
    assert other == pytest.approx(rmse, rel=1e-3)
    assert np.corrcoef(expected, actual)[0, 1] > 0.9999


@pytest.mark.parametrize("method", ["target_mean", "target_mean_and_share", "ordered", "auto"])
def test_encodings_of_levels_are_those_in_memory(tmp_path: Path, method: str) -> None:
    goods_frame(2000).to_csv(tmp_path / "goods.csv", index=False, sep=";")
    overrides = ("features=none", f"features.encoding.method={method}", "features.encoding.max_one_hot_levels=6")
    cfg, table, streamed = both_tables(tmp_path / "goods.csv", "goods", *overrides, engine=StreamSettings(100, 5000))
    scores = [
        build(BuildSettings.from_config(cfg), part, split(part, cfg.split), "none")[1]["rmse"] for part in (table, streamed)
    ]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)


def test_a_run_in_chunks_is_promoted_and_predicts_as_one_in_memory(home: Path, towns_path: Path) -> None:
    overrides = ("data=towns", f"data.path={towns_path}", "features=none", *TREES)
    memory = run(config("train", *overrides), Job([], home / "outputs" / "memory"))
    streamed = run(config("train", *overrides, *CHUNKS, "engine.sample_rows=1000"), Job([], home / "outputs" / "stream"))
    assert streamed.run_id != memory.run_id and not streamed.reused
    assert streamed.metrics["rmse"] == pytest.approx(memory.metrics["rmse"], rel=1e-3)
    store = tracking_store.connect(config("train").mlflow)
    tags = store.runs.get(str(streamed.run_id)).tags
    assert tags["housing.engine"] == "stream" and tags["housing.sample"].startswith("1,000 of 3,")

    overrides = ("data=towns", f"data.path={towns_path}", f"run_id={streamed.run_id}", *CHUNKS)
    decision = promote(config("promote", *overrides, "evaluate=full"))
    assert (decision.verdict, decision.version) == ("PROMOTE", "1")
    assert any(check.name == "coverage" and check.passed for check in decision.checks)
    assert decision.evaluation is not None and "engine=stream and dask do not" in " ".join(decision.evaluation.skipped)
    judged = promote(config("promote", "data=towns", f"data.path={towns_path}", f"run_id={memory.run_id}"))  # in memory
    assert judged.champion_metrics == decision.challenger_metrics

    with store.artifacts.bundle("models:/housing-towns/1") as directory:
        bundle = Bundle.read(directory)
    assert bundle.interval is not None and len(bundle.interval.calibration) == 1000
    assert bundle.reference["columns"]["area"]["lowest"] >= 20
    towns_frame(3000, seed=1).drop(columns="price").to_csv(home / "new.csv", index=False)
    files = (f"file={home}/new.csv", f"out={home}/out.csv")
    predicted = command(home, "housing.predict", *RENTALS_DATA[:1], "data=towns", *files)
    assert predicted.code == 0, predicted.err
    values = bundle.predict(bundle.schema.encode_frame(towns_frame(3000, seed=1)))
    assert np.allclose(pd.read_csv(home / "out.csv")["price_predicted"], values)


def test_an_equal_run_is_reused_and_settings_of_the_engine_belong_to_the_key(home: Path) -> None:
    overrides = ("data=rentals", "features=none", "interval=none", *TREES)
    first = run(config("train", *overrides, *CHUNKS), Job([], home / "outputs" / "0"))
    assert run(config("train", *overrides, *CHUNKS), Job([], home / "outputs" / "1")).run_id == first.run_id
    other = run(config("train", *overrides, "engine=stream", "engine.chunk_rows=999"), Job([], home / "outputs" / "2"))
    assert other.run_id != first.run_id


def test_the_engine_memory_does_not_change_the_key_of_a_run(rentals: Table) -> None:
    from omegaconf import OmegaConf  # pylint: disable=import-outside-toplevel

    cfg = config("train", "data=rentals", "features=none")
    parts = split(rentals, cfg.split)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    before_engines = {name: value for name, value in resolved.items() if name != "engine"}
    assert run_key(resolved, rentals, parts) == run_key(before_engines, rentals, parts)
    assert run_key({**resolved, "engine": {"name": "stream"}}, rentals, parts) != run_key(resolved, rentals, parts)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=linear",), "engine=stream and dask fit XGBoost only .* Use model=xgboost, or engine=memory"),
        (("features=geo",), "no feature block neighbours, .* Use features=none, static or landmarks, or engine=memory"),
        (("model.estimator.tree_method=exact",), "engine=stream and dask need tree_method=hist"),
        (("model.nan_handling=impute",), "engine=stream and dask need model.nan_handling=native"),
        (("interval=quantile",), "engine=stream and dask need interval.held_out=validation .* Use interval=scaled"),
        (("model.select_members=true",), "model.select_members"),
        (("engine.chunk_rows=0",), "engine.chunk_rows must be a whole number"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_before_the_table_is_read(
    home: Path, overrides: tuple[str, ...], message: str
) -> None:
    (home / "data" / "towns.csv").write_text("nothing", encoding="utf-8")
    cfg = config("train", "data=towns", "features=none", "engine=stream", *map(_allow_new, overrides))
    with pytest.raises(ConfigError, match=message):
        run(cfg, Job([], home / "outputs" / "0"))


def _allow_new(override: str) -> str:
    return f"+{override}" if override.startswith("model.select_members") else override


def test_rows_of_a_table_with_weights_count_in_chunks_too(tmp_path: Path) -> None:
    frame = pd.concat([towns_frame(2000).assign(kind="flat"), towns_frame(2000, seed=1)], ignore_index=True)
    frame.assign(counts=np.where(np.arange(4000) % 3 == 0, 1.0, 5.0)).to_parquet(tmp_path / "towns.parquet")
    overrides = ("features=none", "+data.columns.counts={type: float, role: weight}")
    cfg, table, streamed = both_tables(tmp_path / "towns.parquet", "towns", *overrides, engine=StreamSettings(300, 5000))
    assert np.corrcoef(predictions(cfg, table), predictions(cfg, streamed))[0, 1] > 0.9999
    unweighted = replace(streamed, weight=None)
    assert not np.allclose(predictions(cfg, unweighted), predictions(cfg, streamed))
