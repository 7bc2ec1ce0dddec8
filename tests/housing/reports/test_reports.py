"""The pages of runs and comparisons: their figures, the rows behind each figure, and no external resources."""

import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from housing.bundle.conformal import Calibration
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
from housing.scoring.holdout import HoldoutPredictions
from housing.scoring.metrics import score
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from housing.training.build import BuildSettings, build
from tests.support.commands import command
from tests.support.tables import TABLES, config, rentals_frame, train

FEW_TREES = ("model.estimator.n_estimators=20", "interval.estimator.n_estimators=10", "figures=false")
LINEAR = ("model=linear", "interval=none", "figures=false")


@pytest.fixture
def store(home: Path) -> Store:
    """The store of the test's own home."""
    assert home.is_dir()
    return tracking_store.connect(config("train", "data=rentals").mlflow)


def write_page(run_id: object, *overrides: str) -> str:
    """Write the page of one or several runs and return its HTML."""
    return write_report(config("report", f"run_id={run_id}", *overrides)).read_text(encoding="utf-8")


def titles(page: str, level: int) -> list[str]:
    """Return the headings of a page."""
    return re.findall(f"<h{level}>(.*?)</h{level}>", page)


def is_self_contained(page: str, ui: str) -> bool:
    """Return whether a page loads no external resource. Links to MLflow and XML namespaces are allowed."""
    links = set(re.findall(r'<a href="([^"]*)"', page))
    resources = re.findall(r"""(?:src|href)=["']([^"']*)["']""", re.sub(r"<a href=[^>]*>", "", page))
    assert all(link.startswith(ui) for link in links)
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in resources)
    return "<script" not in page and "<link" not in page and "@import" not in page and not re.search(r"url\((?!#)", page)


def check_figures(page: str) -> None:
    """Parse each figure as XML and check that it contains no NaN or infinity."""
    for figure in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        text = ET.tostring(ET.fromstring(figure), encoding="unicode").lower()
        assert not re.search(r"\bnan\b|\binf\b", re.sub(r"base64,[^\"]*", "", text))


RUN = ["Predicted against actual", "Residuals"]
MAPS = ["Error map", "Error size"]
SHAP = ["Importance", "SHAP values", "Dependence"]


def test_the_page_of_a_run_has_every_figure_with_its_rows_and_is_self_contained(home: Path, store: Store) -> None:
    run = train(home, "data=towns", *FEW_TREES)
    page = write_page(run.run_id, "learning_curve=true", "sizes=[0.25,0.5]", "evaluate=full", "harder_splits.blocks.test=0.4")
    headings = titles(page, 3)
    assert headings[:-1] == [*RUN, *MAPS, "Calibration", "Interval coverage", *SHAP, "Learning curve", *2 * ["Error by slice"]]
    assert headings[-1] == "Error by distance"
    assert is_self_contained(page, store.client.ui) and len(page) < 2_000_000
    check_figures(page)
    table = data.load(config("train", "data=towns").data)
    parts = split(table, config("train", "data=towns").split)
    description = f"{len(parts.valid)} validation rows, predicted by a model fitted on the {len(parts.train)} training rows"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert sum(description in caption for caption in captions) == 7
    assert all("rows" in caption for caption in captions)
    assert f"{len(parts.test)} test rows (their targets are not used)" in captions[6]
    assert f"{len(parts.test)} test rows, predicted by the bundle" in captions[-2]
    assert "would be optimistic and are not shown" in page  # the bundle was fitted on validation rows too
    assert f"{run.metrics['rmse']:.4f}" in page and "n_estimators: 20" in page and "fitted_on" in page
    assert "blocks split" in page and "intervals at 90%" in page


def test_a_page_without_coordinates_trees_and_intervals_has_the_remaining_figures(home: Path, store: Store) -> None:
    run = train(home, *LINEAR, "refit=false")
    page = write_page(run.run_id)
    assert titles(page, 3) == [*RUN, "Calibration", "Importance", "Error by slice"]
    assert "SHAP values are available only if" in page
    assert "This run has no prediction intervals" in page and "Not available for this run. It scores the test rows" in page
    assert "would be optimistic" not in page and is_self_contained(page, store.client.ui)
    check_figures(page)


def test_the_errors_on_a_page_are_those_of_the_score_of_the_run(home: Path, store: Store) -> None:
    run = train(home, "data=towns", *FEW_TREES, "model.estimator.n_estimators=100")
    run_data = read(config("report", f"run_id={run.run_id}"), store, str(run.run_id))
    assert score(run_data.predictions, run_data.actual, None) == pytest.approx(
        {name: run.metrics[name] for name in ("rmse", "mae", "r2")}
    )
    bundle_errors = run_data.bundle.predict(run_data.table.matrix[run_data.holdout.rows]) - run_data.actual
    assert compute_rmse(bundle_errors, None) < 0.9 * run.metrics["rmse"]  # the bundle was fitted on these rows too


def test_the_page_of_a_promoted_run_has_the_evaluation_of_the_decision(home: Path, store: Store) -> None:
    run = train(home, *FEW_TREES)
    promote(config("promote", "data=rentals"))
    assert "test RMSE (gate)" in write_page(run.run_id)
    decision = promote(config("promote", "data=rentals", "evaluate=full"))
    assert decision.evaluation is not None
    page = write_page(run.run_id)
    assert "(gate)" not in page and f"({decision.evaluation.rmse_lower:.3f} – {decision.evaluation.rmse_upper:.3f})" in page
    assert "Skipped: grouped and blocks splits: table rentals has no coordinates" in page
    assert is_self_contained(page, store.client.ui)


def explained(cfg_overrides: tuple[str, ...], table: Table) -> tuple[Matrix, Matrix, list[str]]:
    """Return the predictions to which contributions of a model add up, its predictions, and its columns."""
    cfg = config("train", f"data={table.schema.name}", *cfg_overrides)
    holdouts: list[HoldoutPredictions] = []
    parts = split(table, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), table, parts, run_id="none", on_fit=holdouts.append)[0]
    explanation = explain(bundle, holdouts[0].boosters, table.matrix[parts.test])
    assert explanation is not None
    sums = explanation.contributions.sum(axis=1) + explanation.base_values
    is_log = bundle.ensemble.transform is not None
    return np.exp(sums) if is_log else sums, bundle.predict(table.matrix[parts.test]), explanation.columns


HEAVY_MEMBER = (
    "+model.members.heavy={weight: 5, model: {name: heavy, nan_handling: native, early_stopping: null,"
    " estimator: {_target_: xgboost.XGBRegressor, n_estimators: 9, max_depth: 2, random_state: 0}}}"
)


@pytest.mark.parametrize(
    "overrides",
    [
        ("features=none", FEW_TREES[0]),
        ("features=none", FEW_TREES[0], "target.transform=log"),
        ("features=static", "model.early_stopping=2", "refit=false", FEW_TREES[0]),
        ("features=static", "model=mean", "model.members.trees.model.estimator.n_estimators=20"),
        (
            "features=static",
            "model=mean",
            "model.members.trees.model.estimator.n_estimators=20",
            HEAVY_MEMBER,
        ),
        (
            "features=static",
            "model=blend",
            "model.members.near.model.estimator.n_estimators=20",
            "model.members.far.model.estimator.n_estimators=20",
        ),
    ],
    ids=["xgboost", "log", "stopped early", "mean", "weighted mean", "blend"],
)
def test_contributions_add_up_to_the_prediction(towns: Table, overrides: tuple[str, ...]) -> None:
    sums, predicted, columns = explained(("interval=none", *overrides), towns)
    assert sums == pytest.approx(predicted, rel=1e-4)
    assert len(set(columns)) == len(columns) and "area" in columns


def test_a_model_with_a_member_without_contributions_is_not_explained(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=none", "interval=none", *FEW_TREES[:1])
    parts = split(towns, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), towns, parts, run_id="none")[0]
    assert explain(bundle, {}, towns.matrix[parts.test]) is None


def test_holdout_predictions_survive_writing(tmp_path: Path) -> None:
    for calibration in (None, Calibration(np.array([1.0, 2.0]))):
        holdout = HoldoutPredictions(np.array([3, 5]), np.array([1.0, 2.0]), calibration, {0: b"trees"})
        holdout.write(tmp_path / str(calibration is None))
        restored = HoldoutPredictions.read(tmp_path / str(calibration is None))
        assert restored.rows.tolist() == [3, 5] and restored.boosters == {0: b"trees"}
        assert (None if restored.calibration is None else restored.calibration.scores.tolist()) == (calibration and [1.0, 2.0])


def test_the_coverage_is_measured_on_rows_that_did_not_calibrate_the_intervals(home: Path, store: Store) -> None:
    run = train(home, *FEW_TREES)
    run_data = read(config("report", f"run_id={run.run_id}"), store, str(run.run_id))
    inside = covered_by_level(run_data)
    assert inside is not None
    shares = [rows.mean() for rows in inside.values()]
    assert shares == sorted(shares) and all(abs(share - level) < 0.1 for level, share in zip(inside, shares, strict=True))


def test_a_comparison_shows_runs_side_by_side(home: Path, store: Store) -> None:
    runs = [train(home, "data=towns", *overrides) for overrides in (FEW_TREES, (*FEW_TREES, "features=static"), LINEAR)]
    page = write_page(f"[{','.join(str(run.run_id) for run in runs)}]")
    assert titles(page, 3) == [
        "Scores and costs",
        "Error by slice",
        "Calibration",
        *(f"Error map of {letter}" for letter in "ABC"),
        *("B against A", "B against A, on the map", "C against A", "C against A, on the map"),
    ]
    assert is_self_contained(page, store.client.ui) and len(page) < 2_000_000
    check_figures(page)
    assert all(f"{run.metrics['rmse']:.4f}" in page and str(run.run_id) in page for run in runs)
    differing = re.search(r"Differences between configs</h2>(.*)", page, re.DOTALL)
    assert differing is not None and ">model.name</td>" in differing[1] and ">seed</td>" not in differing[1]
    assert re.search(r">features.name</td><td class=\"text\">none</td><td class=\"text\">static</td>", differing[1])


def test_rows_of_a_group_are_compared_together_and_weights_count_on_the_map(home: Path, store: Store) -> None:
    roles = (
        "data=towns", "split=grouped", "split.by=kind_id", "+data.columns.kind_id={type: text, role: group}",
        "+data.columns.copies={type: int, role: weight}", *LINEAR,
    )  # fmt: skip
    frame = pd.read_csv(home / "data" / "towns.csv")
    frame["kind_id"], frame["copies"] = [f"k{row % 60}" for row in range(len(frame))], [1 + row % 3 for row in range(len(frame))]
    frame.to_csv(home / "data" / "towns.csv", index=False)
    runs = [train(home, *roles, *features) for features in ((), ("features=static",))]
    page = write_page(f"[{','.join(str(run.run_id) for run in runs)}]")
    (n_groups,) = re.findall(r">B minus A</td><td class=\"text\">([\d,]+) [^<]+</td>", page)
    data_ = read(config("report", f"run_id={runs[0].run_id}"), store, str(runs[0].run_id))
    assert int(n_groups) == len({data_.table.identifiers["kind_id"][row] for row in data_.holdout.rows}) < len(data_.holdout.rows)
    rows, weight = np.array([0, 1, 2, 5]), data_.weight
    assert weight is not None
    assert data_.rmse_of(rows) == pytest.approx(np.sqrt(np.average(data_.error[rows] ** 2, weights=weight[rows])))


def test_the_diff_of_configs_has_changed_values_and_missing_parts() -> None:
    first = {"seed": 0, "model": {"depth": 3, "rate": 0.1}, "blocks": {"far": {"degrees": [1, 2]}}}
    second = {"seed": 0, "model": {"depth": 4, "rate": 0.1}, "blocks": {}, "limit": None}
    differences = list(config_diff([first, second]))
    assert differences == [("model.depth", "3", "4"), ("blocks.far", "{'degrees': [1, 2]}", "–"), ("limit", "–", "None")]
    assert not list(config_diff([first, first]))
    (shortened,) = config_diff(["a" * 500, "b"], "name")
    assert len(shortened[1]) == 120 and shortened[1].endswith("…")


@pytest.mark.parametrize(
    ("run_ids", "message"),
    [
        ("[{base},{base}]", "one to 8 different runs"),
        ("[]", "one to 8 different runs .got none"),
        ("[{base},{other_split}]", "different splits"),
        ("[{base},{fewer_rows}]", "different tables"),
        ("nope", "has no run nope"),
        ("[{base},nope]", "has no run nope"),
        ("{no_bundle}", "has no bundle .*: python -m housing.promote data=rentals run_id="),
        ("{decision}", "is a decision; expected a run of housing.train"),
        ("{failed}", "is FAILED"),
        ("{no_holdout}", "holdout.* Train it again with force_rerun=true"),
    ],
)
def test_runs_that_cannot_be_reported_are_an_error(home: Path, store: Store, run_ids: str, message: str) -> None:
    runs = {"base": train(home, *LINEAR).run_id}
    if "other_split" in run_ids:
        runs["other_split"] = train(home, *LINEAR, "split=random").run_id
    if "fewer_rows" in run_ids:
        runs["fewer_rows"] = train(home, *LINEAR, "max_rows=500").run_id
    if "no_bundle" in run_ids:
        runs["no_bundle"] = runs["base"]
        store.client.api.delete_tag(str(runs["no_bundle"]), tags.MODEL_ID)
    if "decision" in run_ids:
        promote(config("promote", "data=rentals"))
        (record,) = store.client.api.search_runs([store.client.experiment_id("rentals-decisions")])
        runs["decision"] = record.info.run_id
    if "failed" in run_ids:
        runs["failed"] = store.client.api.create_run(
            store.client.experiment_id("rentals"), tags={tags.RUN_TYPE: "run", tags.TAG_FORMAT: tags.FORMAT}
        ).info.run_id
        store.client.api.set_terminated(str(runs["failed"]), "FAILED")
    if "no_holdout" in run_ids:
        runs["no_holdout"] = runs["base"]
        (holdout_dir,) = (home / "mlartifacts").rglob("holdout")
        shutil.rmtree(holdout_dir)
    with pytest.raises(HousingError, match=message):
        write_page(run_ids.format(**runs))


def test_an_invalid_option_is_an_error_with_its_value(home: Path) -> None:
    run = train(home, *LINEAR)
    for override, message in (("evaluate=yes", "evaluate must be"), ("sizes=[1.5]", "sizes must be .*1.5")):
        with pytest.raises(ConfigError, match=message):
            write_page(run.run_id, override, "learning_curve=true")


def test_the_command_prints_the_path_of_the_page_and_errors_without_traceback(home: Path) -> None:
    run = train(home, *LINEAR)
    result = command(home, "housing.report", f"--config-dir={TABLES}", f"run_id={run.run_id}", f"out={home}/page.html")
    assert (result.code, result.out) == (0, f"written: {home}/page.html\n") and (home / "page.html").is_file()
    wrong = command(home, "housing.report", f"run_id={'0' * 32}")
    assert wrong.code == 1 and "Traceback" not in wrong.err and f"has no run {'0' * 32}. Run ids are in" in wrong.err


HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>"
HOSTILE_TABLE = {
    "name": "hostile",
    "description": HOSTILE,
    "path": "${paths.data}/hostile.csv",
    "columns": {
        HOSTILE: {"type": "float", "min": 0, "max": 500, "unit": HOSTILE, "description": HOSTILE},
        "quarter": {"type": "category", "categories": [HOSTILE, "harbour", "hills"], "description": HOSTILE},
        "rent": {"type": "float", "min": 0, "unit": HOSTILE, "role": "target", "description": HOSTILE},
    },
}


def test_texts_of_a_table_and_a_run_are_escaped_on_every_page(home: Path) -> None:
    folder, quoted = home / "conf", HOSTILE.replace('"', '\\"')
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "hostile.yaml").write_text(yaml.safe_dump(HOSTILE_TABLE), encoding="utf-8")
    frame = rentals_frame().replace({"quarter": {"old town": HOSTILE}}).rename(columns={"area": HOSTILE})
    frame[[HOSTILE, "quarter", "rent"]].to_csv(home / "data" / "hostile.csv", index=False)
    context = (f"--config-dir={folder}", "data=hostile")
    jobs = (*context[1:], "model=linear,decision_tree", "features=none", f'+tags.why="{quoted}"', "figures=true", "interval=none")
    result = command(home, "housing.train", "-m", context[0], *jobs)
    assert result.code == 0, result.err
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    experiment = store.client.experiment_id("hostile")
    runs = [run.info.run_id for run in store.client.api.search_runs([experiment]) if "rmse" in run.data.metrics]
    for run_ids in (runs[0], f"[{','.join(runs[:2])}]"):
        write_page(run_ids)
    pages = [path.read_text(encoding="utf-8") for path in home.rglob("*.html")]
    assert len(pages) >= 3
    for page in pages:
        assert "<script>alert" not in page and "<img" not in page  # the page of a sweep has a script of its own
        check_figures(page)
    assert any("&lt;script&gt;alert" in page for page in pages)
