"""Distillation: a model that can be served is fitted to the predictions of a teacher."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, UntrustedConfigError
from housing.data.settings import parse_schema
from housing.data.split import Split, split
from housing.data.table import Table, validate_frame
from housing.data.units import Units
from housing.estimators.specs import estimator_specs
from housing.fitting.fitting import FitSettings, fit
from housing.fitting.teacher import Teacher
from housing.tracking import store as tracking_store
from housing.tracking.stored_config import parse_stored_config
from housing.training.build import BuildSettings, build
from tests.support.tables import config, rentals_frame, train
from tests.support.teachers import Answers, Formula, Memory, Unweighted

MODULE = "tests.support.teachers"
DISTILLED = ("model=distilled", "interval=none", "figures=false", "model.estimator.n_estimators=150")


def distilled(teacher: str, *overrides: str) -> DictConfig:
    """Return the config of a model of the rentals table, distilled from a class of the support module."""
    return config("train", "data=rentals", "features=none", *DISTILLED, f"model.teacher._target_={MODULE}.{teacher}", *overrides)


@pytest.fixture(name="parts")
def _parts(rentals: Table) -> Split:
    return split(rentals, config("train", "data=rentals").split)


def test_training_rows_get_the_predictions_of_the_teacher_and_others_keep_their_targets(rentals: Table, parts: Split) -> None:
    taught = Teacher(Formula).teach(rentals, parts.train, None)
    np.testing.assert_allclose(taught.target[parts.train], Formula().predict(rentals_frame().iloc[parts.train]), rtol=1e-12)
    for rows in (parts.valid, parts.test):
        np.testing.assert_array_equal(taught.target[rows], rentals.target[rows])


def test_no_row_teaches_what_a_fit_on_itself_remembers(rentals: Table, parts: Split) -> None:
    with_memory = Teacher(Memory, folds=4).teach(rentals, parts.train, None).target[parts.train]
    own = rentals.target[parts.train]
    assert not np.isclose(with_memory, own).any()
    assert len(np.unique(with_memory)) == 4  # the mean of each fit
    mixed = Teacher(Memory, folds=4, true_share=0.25).teach(rentals, parts.train, None).target[parts.train]
    np.testing.assert_allclose(mixed, 0.25 * own + 0.75 * with_memory)


def test_rows_of_a_unit_are_not_predicted_from_each_other(rentals: Table) -> None:
    copies = rentals.take(np.repeat(np.arange(60), 3))
    units = Units("flats", np.repeat(np.arange(60), 3))
    rows = np.arange(len(copies))
    of_rows, of_units = (Teacher(Memory, folds=3).teach(copies, rows, chosen).target for chosen in (None, units))
    assert np.isclose(of_rows, copies.target).any()  # a copy of the row is in another fold
    assert not np.isclose(of_units, copies.target).any()
    with pytest.raises(ConfigError, match="model.teacher_folds=61 needs at least as many flats in each fit \\(got 60\\)"):
        Teacher(Memory, folds=61).teach(copies, rows, units)


def test_a_student_is_near_its_teacher_and_better_than_without(rentals: Table, parts: Split) -> None:
    cfg = distilled("Formula", "model.true_share=0")
    bundle, metrics = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")
    _, alone = build(
        BuildSettings.from_config(config("train", "data=rentals", "features=none", "interval=none")), rentals, parts, ""
    )
    assert metrics["teacher_rmse"] == pytest.approx(20, rel=0.2)  # the noise of the rents
    assert metrics["teacher_rmse"] < metrics["rmse"] < alone["rmse"]
    card = bundle.card["distillation"]
    assert (card["teacher"], card["folds"], card["true_share"]) == ("Formula", None, 0)
    assert card["validation"]["student"]["rmse"] == pytest.approx(metrics["rmse"], rel=1e-5)
    model = fit(FitSettings.from_config(cfg), rentals, parts.train, parts.valid)
    teacher = Formula().predict(rentals_frame().iloc[parts.valid])
    distance = np.sqrt(np.mean((model.predict(rentals.matrix[parts.valid]) - teacher) ** 2))
    assert card["validation"]["rmse_to_teacher"] == pytest.approx(distance, rel=1e-5)


def test_targets_of_validation_rows_have_no_part_in_what_is_taught(rentals: Table, parts: Split) -> None:
    target = rentals.target.copy()
    target[np.concatenate([parts.valid, parts.test])] = 1e5
    settings = FitSettings.from_config(distilled("Memory", "model.teacher_folds=3"))
    first, second = (
        fit(settings, table, parts.train, parts.valid).predict(rentals.matrix[parts.valid])
        for table in (rentals, replace(rentals, target=target))
    )
    np.testing.assert_array_equal(first, second)


def pipeline() -> Pipeline:
    """Return a teacher that no bundle can hold: a forest on columns that scikit-learn encodes."""
    words = make_column_selector(dtype_exclude=["number", "bool"])
    encoder = make_column_transformer((OneHotEncoder(), words), remainder=SimpleImputer())
    return make_pipeline(encoder, RandomForestRegressor(50, random_state=0))


def test_a_fitted_pipeline_in_a_file_is_distilled_into_data_that_is_served(home: Path, rentals: Table, parts: Split) -> None:
    frame = rentals_frame()
    file = home / "teacher.joblib"
    columns = frame.drop(columns="rent")
    joblib.dump(pipeline().fit(columns.iloc[parts.train], frame["rent"].iloc[parts.train]), file)
    loaded = (*DISTILLED, "model.teacher._target_=joblib.load", f"+model.teacher.filename={file}")
    outcome = train(home, *loaded)
    run = tracking_store.connect(config("train").mlflow).runs.get(str(outcome.run_id))
    assert run.tags["housing.teacher"] == "Pipeline of ColumnTransformer, RandomForestRegressor"
    assert 0 < run.metrics["rmse_to_teacher"] < run.metrics["teacher_rmse"]
    (card,) = home.glob("**/bundle/card.json")
    bundle = Bundle.read(card.parent)
    assert {path.suffix for path in card.parent.rglob("*") if path.is_file()} <= {".json", ".npz", ".onnx", ""}
    predicted = bundle.predict(bundle.schema.encode_records(rentals.schema.decode(rentals.matrix[parts.valid])))
    assert np.corrcoef(predicted, joblib.load(file).predict(columns.iloc[parts.valid]))[0, 1] > 0.98

    assert train(home, *loaded).reused
    joblib.dump(pipeline().fit(columns.iloc[parts.valid], frame["rent"].iloc[parts.valid]), file)
    assert not train(home, *loaded).reused  # the file has another content


def test_a_stored_config_may_not_name_a_loader_of_files() -> None:
    text = json.dumps({"model": {"teacher": {"_target_": "joblib.load", "filename": "x.joblib"}}})
    with pytest.raises(UntrustedConfigError, match="would call 'joblib.load' \\(model.teacher._target_\\)"):
        parse_stored_config(text, "a", ())


@pytest.mark.parametrize(
    ("teacher", "overrides", "expected"),
    [
        (Answers.__name__, ("+model.teacher.answer=short",), "must return a number for each of 432 rows (got the shape (1,))."),
        (
            Answers.__name__,
            ("+model.teacher.answer=wide",),
            "must return a number for each of 432 rows (got the shape (432, 3)).",
        ),
        (Answers.__name__, ("+model.teacher.answer=words",), "predict of Answers must return a number for each row (got list)."),
        (
            Answers.__name__,
            ("+model.teacher.answer=nan",),
            "must return finite numbers (got nan for 1 of 432 rows, the first in row",
        ),
        (
            "Answers",
            ("+model.teacher.answer=error",),
            "predict of Answers failed: KeyError: 'no such column'. If it is not fitted",
        ),
        (
            "Memory",
            (),
            "predict of Memory failed: AttributeError: 'Memory' object has no attribute 'targets'. If it is not fitted",
        ),
        (
            "Formula",
            ("model.teacher_folds=5",),
            "needs a teacher with fit(DataFrame, targets) (got Formula). If it is fitted already",
        ),
        ("rows", (), "model.teacher must be a model with predict(DataFrame) (got list)."),
        ("Memory", ("model.teacher_folds=1",), "model.teacher_folds must be a whole number, at least 2, or null (got 1)."),
        ("Memory", ("model.true_share=1",), "model.true_share must be a number from 0, but below 1 (got 1)."),
        (
            "Memory",
            ("model.teacher=slow.joblib",),
            "model.teacher must name a class or function by _target_ (got 'slow.joblib').",
        ),
        ("Formula", ("+model.teacher.per_rom=3",), "Formula.__init__() got an unexpected keyword argument 'per_rom'"),
    ],
)
def test_a_teacher_that_does_not_fit_is_an_error(
    rentals: Table, parts: Split, teacher: str, overrides: tuple[str, ...], expected: str
) -> None:
    cfg = distilled(teacher, *overrides)
    if teacher == "rows":
        cfg.model.teacher = {"_target_": "builtins.list"}
    parts = replace(parts, train=np.arange(432), valid=np.arange(432, 500))
    with pytest.raises(ConfigError) as error:
        fit(FitSettings.from_config(cfg), rentals, parts.train, parts.valid)
    assert expected in str(error.value)


def test_a_teacher_receives_the_weights_or_is_refused() -> None:
    frame = rentals_frame(100).assign(times=np.arange(1.0, 101.0))
    schema = parse_schema(config("train", "data=rentals", "+data.columns.times={type: float, role: weight}").data)
    table = validate_frame(schema, frame, digest="")
    rows = np.arange(100)
    taught = Teacher(Memory, folds=2).teach(table, rows, None).target
    for mean in np.unique(taught):
        others = taught != mean
        assert mean == pytest.approx(np.average(table.target[others], weights=frame["times"][others]))
    with pytest.raises(ConfigError, match="model.teacher must accept weights, because column times has the role weight"):
        Teacher(Unweighted, folds=2).teach(table, rows, None)


def test_predictions_without_a_logarithm_are_an_error_that_names_the_teacher(rentals: Table, parts: Split) -> None:
    cfg = distilled("Formula", "+model.teacher.per_room=-2000", "model.true_share=0", "target.transform=log")
    with pytest.raises(ConfigError, match="needs values above 0 in rent, also in those that the teacher predicts \\(got 0"):
        fit(FitSettings.from_config(cfg), rentals, parts.train, parts.valid)


def test_a_member_of_an_ensemble_has_no_teacher() -> None:
    cfg: Any = config("train", "model=mean", "+model.members.trees.model.teacher={_target_: builtins.list}")
    with pytest.raises(ConfigError, match="model.members.trees.model must have no teacher"):
        estimator_specs(cfg)


def test_a_teacher_without_folds_predicts_each_row_once(rentals: Table, parts: Split) -> None:
    predicted: list[int] = []

    class Counting:
        """Counts the rows that it predicts."""

        def predict(self, frame: pd.DataFrame) -> Any:
            """Predict 0."""
            predicted.append(len(frame))
            return np.zeros(len(frame))

    teacher = Teacher(Counting)
    teacher.teach(rentals, parts.train, None)
    teacher.teach(rentals, np.union1d(parts.train, parts.valid), None)
    assert sum(predicted) == len(parts.train) + len(parts.valid)
