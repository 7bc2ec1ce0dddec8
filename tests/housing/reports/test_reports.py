"""The page of a run and of a comparison: what stands on it, of which rows, and that it needs nothing else."""

import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from housing.core.errors import ConfigError, HousingError
from housing.data import table as data
from housing.data.split import split
from housing.data.table import Table
from housing.evaluation.contributions import explain
from housing.evaluation.slices import compute_rmse
from housing.promotion.promotion import promote
from housing.reports.comparison_page import config_diff
from housing.reports.report import write_report
from housing.reports.run_data import read
from housing.reports.run_figures import covered_by_level
from housing.schema.column import Matrix
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from housing.training.build import BuildSettings, build
from housing.training.holdout import HoldoutPredictions
from housing.training.metrics import score
from tests.support.commands import command
from tests.support.tables import TABLES, config, train

FEW = ("model.estimator.n_estimators=20", "interval.estimator.n_estimators=10", "figures=false")
LINEAR = ("model=linear", "interval=none", "figures=false")


@pytest.fixture
def store(home: Path) -> Store:
    """The store of the test's own home."""
    assert home.is_dir()
    return tracking_store.connect(config("train", "data=rentals").mlflow)


def page_of(run_id: object, *overrides: str) -> str:
    """The page of a run, or of several."""
    return write_report(config("report", f"run_id={run_id}", *overrides)).read_text(encoding="utf-8")


def titles(page: str, level: int) -> list[str]:
    """The headings of a page."""
    return re.findall(f"<h{level}>(.*?)</h{level}>", page)


def stands_alone(page: str, ui: str) -> bool:
    """Whether a page asks for nothing from elsewhere; links to MLflow's pages are no resource, namespaces neither."""
    links = set(re.findall(r'<a href="([^"]*)"', page))
    inside = re.findall(r"""(?:src|href)=["']([^"']*)["']""", re.sub(r"<a href=[^>]*>", "", page))
    assert all(link.startswith(ui) for link in links)
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in inside)
    return "<script" not in page and "<link" not in page and "@import" not in page and not re.search(r"url\((?!#)", page)


def check_figures(page: str) -> None:
    """Read each figure as XML; none holds a number that is none."""
    for figure in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        text = ET.tostring(ET.fromstring(figure), encoding="unicode").lower()
        assert not re.search(r"\bnan\b|\binf\b", re.sub(r"base64,[^\"]*", "", text))


RUN = ["Predicted against actual", "Residuals"]
MAPS = ["Error map", "Error size"]
SHAP = ["Importance", "SHAP values", "Dependence"]


def test_the_page_of_a_run_has_each_figure_names_its_rows_and_stands_alone(home: Path, store: Store) -> None:
    run = train(home, "data=towns", *FEW)
    page = page_of(run.run_id, "learning_curve=true", "sizes=[0.25,0.5]", "evaluate=full", "harder_splits.blocks.test=0.4")
    found = titles(page, 3)
    assert found[:-1] == [*RUN, *MAPS, "Calibration", "Interval coverage", *SHAP, "Learning curve", *2 * ["Error by slice"]]
    assert found[-1] == "Error by distance"
    assert stands_alone(page, store.client.ui) and len(page) < 2_000_000
    check_figures(page)
    table = data.load(config("train", "data=towns").data)
    parts = split(table, config("train", "data=towns").split)
    fitted = f"{len(parts.valid)} validation rows, predicted by a model fitted on the {len(parts.train)} training rows"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert sum(fitted in caption for caption in captions) == 7
    assert all("rows" in caption for caption in captions)
    assert f"{len(parts.test)} test rows (their targets are not used)" in captions[6]
    assert f"{len(parts.test)} test rows, predicted by the bundle" in captions[-2]
    assert "would be optimistic and are not shown" in page  # the bundle was fitted on validation rows too
    assert f"{run.metrics['rmse']:.4f}" in page and "n_estimators: 20" in page and "fitted_on" in page
    assert "blocks split" in page and "intervals at 90%" in page


def test_a_table_without_coordinates_and_a_model_without_trees_give_what_they_can(home: Path, store: Store) -> None:
    run = train(home, *LINEAR, "refit=false")
    page = page_of(run.run_id)
    assert titles(page, 3) == [*RUN, "Calibration", "Importance", "Error by slice"]
    assert "SHAP values are available only if" in page
    assert "This run has no prediction intervals" in page and "Not available for this run. It scores the test rows" in page
    assert "would be optimistic" not in page and stands_alone(page, store.client.ui)
    check_figures(page)


def test_the_errors_are_those_that_the_run_was_scored_by(home: Path, store: Store) -> None:
    run = train(home, "data=towns", *FEW, "model.estimator.n_estimators=100")
    subject = read(config("report", f"run_id={run.run_id}"), store, str(run.run_id))
    assert score(subject.predictions, subject.actual) == pytest.approx(
        {name: run.metrics[name] for name in ("rmse", "mae", "r2")}
    )
    flattered = subject.bundle.predict(subject.table.matrix[subject.holdout.rows]) - subject.actual
    assert compute_rmse(flattered) < 0.9 * run.metrics["rmse"]  # the bundle knows these rows


def test_a_decision_brings_its_honest_evaluation_and_its_test_figures(home: Path, store: Store) -> None:
    run = train(home, *FEW)
    promote(config("promote", "data=rentals"))
    assert "test RMSE (gate)" in page_of(run.run_id)
    decision = promote(config("promote", "data=rentals", "evaluate=full"))
    assert decision.evaluation is not None
    page = page_of(run.run_id)
    assert "(gate)" not in page and f"({decision.evaluation.rmse_lower:.3f} – {decision.evaluation.rmse_upper:.3f})" in page
    assert "Skipped: grouped and blocks splits: table rentals has no coordinates" in page
    assert stands_alone(page, store.client.ui)


def explained(cfg_overrides: tuple[str, ...], table: Table) -> tuple[Matrix, Matrix, list[str]]:
    """What the contributions of a model add up to, its predictions, and the columns."""
    cfg = config("train", f"data={table.schema.name}", *cfg_overrides)
    left: list[HoldoutPredictions] = []
    parts = split(table, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), table, parts, run_id="none", on_fit=left.append)[0]
    found = explain(bundle, left[0].boosters, table.matrix[parts.test])
    assert found is not None
    return found.contributions.sum(axis=1) + found.base_values, bundle.predict(table.matrix[parts.test]), found.columns


@pytest.mark.parametrize(
    "asked",
    [
        ("features=none", FEW[0]),
        ("features=static", "model.early_stopping=2", "refit=false", FEW[0]),
        ("features=static", "model=mean", "model.members.trees.model.estimator.n_estimators=20"),
        (
            "features=static",
            "model=blend",
            "model.members.near.model.estimator.n_estimators=20",
            "model.members.far.model.estimator.n_estimators=20",
        ),
    ],
    ids=["one", "stopped early", "mean", "blend"],
)
def test_contributions_add_up_to_the_prediction(towns: Table, asked: tuple[str, ...]) -> None:
    added, predicted, columns = explained(("interval=none", *asked), towns)
    assert added == pytest.approx(predicted, rel=1e-4)
    assert len(set(columns)) == len(columns) and "area" in columns


def test_a_model_with_a_member_of_another_library_is_not_explained_by_half(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=none", "interval=none", *FEW[:1])
    parts = split(towns, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), towns, parts, run_id="none")[0]
    assert explain(bundle, {}, towns.matrix[parts.test]) is None


def test_what_is_kept_of_a_fit_is_read_as_it_was_written(tmp_path: Path) -> None:
    for scales in (None, np.array([1.0, 2.0])):
        kept = HoldoutPredictions(np.array([3, 5]), np.array([1.0, 2.0]), scales, {0: b"trees"})
        kept.write(tmp_path / str(scales is None))
        read_again = HoldoutPredictions.read(tmp_path / str(scales is None))
        assert read_again.rows.tolist() == [3, 5] and read_again.boosters == {0: b"trees"}
        assert (read_again.error_scales is None) == (scales is None)


def test_coverage_is_counted_with_intervals_that_other_rows_calibrated(home: Path, store: Store) -> None:
    run = train(home, *FEW)
    subject = read(config("report", f"run_id={run.run_id}"), store, str(run.run_id))
    inside = covered_by_level(subject)
    assert inside is not None
    shares = [rows.mean() for rows in inside.values()]
    assert shares == sorted(shares) and all(abs(share - level) < 0.1 for level, share in zip(inside, shares, strict=True))


def test_a_comparison_shows_runs_side_by_side(home: Path, store: Store) -> None:
    runs = [train(home, "data=towns", *asked) for asked in (FEW, (*FEW, "features=static"), LINEAR)]
    page = page_of(f"[{','.join(str(run.run_id) for run in runs)}]")
    assert titles(page, 3) == [
        "Scores and costs",
        "Error by slice",
        "Calibration",
        *(f"Error map of {letter}" for letter in "ABC"),
        *("B against A", "B against A, on the map", "C against A", "C against A, on the map"),
    ]
    assert stands_alone(page, store.client.ui) and len(page) < 2_000_000
    check_figures(page)
    assert all(f"{run.metrics['rmse']:.4f}" in page and str(run.run_id) in page for run in runs)
    differing = re.search(r"Differences between configs</h2>(.*)", page, re.DOTALL)
    assert differing is not None and ">model.name</td>" in differing[1] and ">seed</td>" not in differing[1]
    assert re.search(r">features.name</td><td class=\"text\">none</td><td class=\"text\">static</td>", differing[1])


def test_configs_differ_in_values_and_in_parts_that_are_not_there() -> None:
    one = {"seed": 0, "model": {"depth": 3, "rate": 0.1}, "blocks": {"far": {"degrees": [1, 2]}}}
    other = {"seed": 0, "model": {"depth": 4, "rate": 0.1}, "blocks": {}, "limit": None}
    found = list(config_diff([one, other]))
    assert found == [("model.depth", "3", "4"), ("blocks.far", "{'degrees': [1, 2]}", "–"), ("limit", "–", "None")]
    assert not list(config_diff([one, one]))
    (cut,) = config_diff(["a" * 500, "b"], "name")
    assert len(cut[1]) == 120 and cut[1].endswith("…")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("[{one},{one}]", "one to 8 different runs"),
        ("[]", "one to 8 different runs .got none"),
        ("[{one},{elsewhere}]", "different splits"),
        ("[{one},{fewer}]", "different tables"),
        ("nope", "has no run nope"),
        ("[{one},nope]", "has no run nope"),
        ("{bare}", "has no bundle .*: python -m housing.promote data=rentals run_id="),
        ("{decision}", "is a decision; expected a run of housing.train"),
        ("{failed}", "is FAILED"),
        ("{older}", "holdout.* Train it again with force_rerun=true"),
    ],
)
def test_what_cannot_be_shown_is_refused(home: Path, store: Store, asked: str, message: str) -> None:
    runs = {"one": train(home, *LINEAR).run_id}
    if "elsewhere" in asked:
        runs["elsewhere"] = train(home, *LINEAR, "split=random").run_id
    if "fewer" in asked:
        runs["fewer"] = train(home, *LINEAR, "max_rows=500").run_id
    if "bare" in asked:
        runs["bare"] = runs["one"]
        store.client.api.delete_tag(str(runs["bare"]), tags.MODEL_ID)
    if "decision" in asked:
        promote(config("promote", "data=rentals"))
        (record,) = store.client.api.search_runs([store.client.experiment_id("rentals-decisions")])
        runs["decision"] = record.info.run_id
    if "failed" in asked:
        runs["failed"] = store.client.api.create_run(
            store.client.experiment_id("rentals"), tags={tags.RUN_TYPE: "run", tags.TAG_FORMAT: tags.FORMAT}
        ).info.run_id
        store.client.api.set_terminated(str(runs["failed"]), "FAILED")
    if "older" in asked:
        runs["older"] = runs["one"]
        (kept,) = (home / "mlartifacts").rglob("holdout")
        shutil.rmtree(kept)
    with pytest.raises(HousingError, match=message):
        page_of(asked.format(**runs))


def test_other_words_than_those_that_mean_something_are_refused(home: Path) -> None:
    run = train(home, *LINEAR)
    for override, message in (("evaluate=yes", "evaluate must be"), ("sizes=[1.5]", "sizes must be .*1.5")):
        with pytest.raises(ConfigError, match=message):
            page_of(run.run_id, override, "learning_curve=true")


def test_the_command_says_where_the_page_is_and_a_mistake_has_no_traceback(home: Path) -> None:
    run = train(home, *LINEAR)
    ended = command(home, "housing.report", f"--config-dir={TABLES}", f"run_id={run.run_id}", f"out={home}/page.html")
    assert (ended.code, ended.out) == (0, f"written: {home}/page.html\n") and (home / "page.html").is_file()
    wrong = command(home, "housing.report", f"run_id={'0' * 32}")
    assert wrong.code == 1 and "Traceback" not in wrong.err and wrong.err.endswith(f"has no run {'0' * 32}.\n")
