"""Groups of a column with the role audit: kept from models, bundles and requests, and seen in evaluation, report and card."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from housing.core.errors import ConfigError
from housing.data.settings import parse_schema
from housing.data.table import load
from housing.evaluation.slices import SliceSettings, make_slices, score_slices
from housing.promotion.promotion import promote
from housing.reports.card import write_card
from housing.reports.report import write_report
from tests.support.tables import config, train

COLUMNS = ("+data.columns.origin={type: text, role: audit, nullable: true}", "+data.columns.age={type: int, role: audit}")
GROUPS = ["common", "other", "rare", "missing"]


@pytest.fixture
def audited(home: Path) -> Path:
    """The rentals with two more columns, which say nothing about the rent."""
    path = home / "data" / "rentals.csv"
    frame = pd.read_csv(path)
    origin = ["common"] * 400 + ["other"] * 100 + [None] * 95 + ["rare"] * 5
    frame.assign(origin=pd.Series(origin), age=[row % 60 for row in range(600)]).to_csv(path, index=False)
    return home


@pytest.mark.usefixtures("audited")
def test_each_group_is_a_slice_with_an_interval_and_a_number_is_cut_at_its_quintiles() -> None:
    table = load(config("train", "data=rentals", *COLUMNS).data)
    rows = np.arange(600)
    slices = [item for item in make_slices(table, rows, SliceSettings()) if item.is_group]
    assert [item.name for item in slices if item.kind == "origin"] == GROUPS
    ages = [item.name for item in slices if item.kind == "age"]
    assert len(ages) == 5 and ages[0] == "0 to 11"
    scored = {score.name: score for score in score_slices(slices, table.target * 1.1, table.target, None)}
    common, rare = scored["common"], scored["rare"]
    assert common.rmse_lower is not None and common.rmse_upper is not None
    assert common.rmse_lower < common.rmse < common.rmse_upper
    assert (rare.rows, rare.rmse_lower) == (5, None)


def test_a_date_is_no_group() -> None:
    with pytest.raises(ConfigError, match="Column born: the role audit does not take the type date"):
        parse_schema(config("train", "data=rentals", "+data.columns.born={type: date, role: audit}").data)


@pytest.mark.long
def test_groups_are_in_the_evaluation_the_report_and_the_card_and_not_in_the_bundle(audited: Path) -> None:
    run = train(audited, "model=linear", *COLUMNS)
    decision = promote(config("promote", "data=rentals", "evaluate=full", *COLUMNS))
    assert decision.verdict == "PROMOTE" and decision.evaluation is not None
    scored = {score.name: score for score in decision.evaluation.slices if score.kind == "origin"}
    assert list(scored) == GROUPS and scored["common"].rmse_lower is not None

    card = write_card(config("card", "data=rentals", f"run_id={run.run_id}", *COLUMNS)).markdown.read_text(encoding="utf-8")
    page = write_report(config("report", f"run_id={run.run_id}")).read_text(encoding="utf-8")
    for text in (card, page):
        assert re.search(r"origin\W+(</td>)?\W*(<td>)?common", text) and "too small to judge: fewer than 30 rows" in text
    (model,) = (audited / "mlartifacts").rglob("schema.json")
    assert set(json.loads(model.read_text(encoding="utf-8"))["columns"]) == {
        "area",
        "rooms",
        "furnished",
        "quarter",
        "built",
        "rent",
    }
    assert not [path for path in model.parent.rglob("*") if path.is_file() and b"origin" in path.read_bytes()]
