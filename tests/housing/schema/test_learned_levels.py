"""Categories whose levels are learned from the training rows."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError
from housing.data.split import split, split_by_hash
from housing.data.table import Table, load, validate_frame
from housing.ingestion.drift import measure_drift, reference_of
from housing.schema.column import Column
from housing.schema.table_schema import Schema
from housing.training.build import BuildSettings, build
from tests.support.tables import config, orders_frame

TOWNS = Schema.from_dict(
    {
        "name": "t",
        "columns": {
            "town": {"type": "category", "categories": "auto", "nullable": True},
            "x": {"type": "float"},
            "y": {"type": "float", "role": "target"},
        },
    }
)


def towns(*names: str | None) -> Table:
    """Return a table with a row for each town."""
    frame = pd.DataFrame({"town": names, "x": np.arange(len(names)) * 1.0, "y": np.arange(len(names)) * 1.0})
    return validate_frame(TOWNS, frame, digest="")


def decoded(table: Table) -> list[Any]:
    """Return the towns of a table."""
    return [row["town"] for row in table.schema.decode(table.matrix)]


def test_levels_are_counted_and_the_most_frequent_comes_first() -> None:
    table = towns("b", "a", "c", "c", None)
    assert table.schema.levels == {"town": {"c": 2, "a": 1, "b": 1}}
    assert list(table.schema.levels["town"]) == ["c", "a", "b"]
    assert decoded(table) == ["b", "a", "c", "c", None]


def test_levels_of_other_rows_are_unseen() -> None:
    table = towns("b", "a", "c", "c", None)
    train = table.learn([0, 2, 3, 4])
    assert train.schema.levels == {"town": {"c": 2, "b": 1}}
    assert decoded(train) == ["b", "(other)", "c", "c", None]
    assert Schema.from_dict(train.schema.to_dict()) == train.schema
    assert train.schema.encode_records(train.schema.decode(train.matrix)).tobytes() == train.matrix.tobytes()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"type": "float", "categories": "auto"}, "categories need the type category"),
        ({"type": "category", "categories": "auto", "role": "key"}, "categories: auto needs the role feature"),
        ({"type": "category", "categories": "all"}, "categories must be a list of strings, or auto .got 'all'"),
        (
            {"type": "category", "categories": "auto", "unseen": "drop"},
            "unseen must be one of refuse, missing, other .got 'drop'",
        ),
        ({"type": "category", "categories": "auto", "unseen": "missing"}, "unseen: missing needs nullable: true"),
        ({"type": "float", "unseen": "other"}, "unseen: other needs the type category"),
    ],
)
def test_a_contradiction_is_refused(attributes: dict[str, Any], message: str) -> None:
    columns = {"x": attributes, "y": {"type": "float", "role": "target"}}
    with pytest.raises(ConfigError, match=message):
        Schema.from_dict({"name": "t", "columns": columns})


def test_declared_categories_may_have_unseen_values_too() -> None:
    column = Column("x", "category", categories=("a", "b"), unseen="other")
    assert [column.encode(value) for value in ("b", "z")] == [1.0, 2.0]
    assert column.validate("z") is None
    assert column.breaking_changes(replace(column, categories=("a", "b", "c"))) is not None
    assert not list(column.breaking_changes(replace(column, categories=("a", "b", "c"))))
    refusing = replace(column, unseen="refuse")
    assert list(refusing.breaking_changes(column)) == ["no longer accepts values that are no level"]


def test_a_row_keeps_its_part_and_its_identity_when_other_levels_arrive() -> None:
    before = towns(*(f"town {number}" for number in range(1, 300)))
    after = towns(*(f"town {number}" for number in range(1, 300)), "a new one", "a new one")
    assert after.schema.levels != before.schema.levels
    assert after.row_keys()[:-2] == before.row_keys()
    assert len(set(after.row_keys())) == len(after)
    parts = [split_by_hash(table, 0.2, 0.2, "salt").test for table in (before, after)]
    assert set(parts[0]) == set(parts[1]) - {299, 300}


def test_drift_counts_new_levels_in_a_bin_of_their_own() -> None:
    present, new = towns(*["a", "b"] * 300), towns(*["c"] * 100, *["a"] * 100)
    reference = reference_of(present)
    assert measure_drift(reference, new.encoded_as(present.schema), significance=0.01)[0].psi > 1
    assert not measure_drift(reference, towns(*["b", "a"] * 100).encoded_as(present.schema), significance=0.01)[0].psi > 0.1


@pytest.fixture(scope="module", params=["linear", "xgboost"])
def orders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """Return a bundle of the orders, read back from disk, and the table's file."""
    folder = tmp_path_factory.mktemp("orders")
    orders_frame(900).to_csv(folder / "orders.csv", index=False)
    cfg = config(
        "train", "data=orders", "features=none", f"model={request.param}", f"data.path={folder}/orders.csv", "interval=none"
    )
    table = load(cfg.data)
    bundle, metrics = build(BuildSettings.from_config(cfg), table, split(table, cfg.split), run_id="none")
    assert metrics["r2"] > 0.9
    bundle.write(folder / "bundle")
    return Bundle.read(folder / "bundle"), folder / "orders.csv"


def test_a_bundle_predicts_a_table_and_its_records_alike_bit_for_bit(orders: tuple[Bundle, Path]) -> None:
    bundle, path = orders
    assert [column.name for column in bundle.schema.features if column.counts] == ["town", "brand", "shelf"]
    table = load(config("train", "data=orders", f"data.path={path}").data)
    matrix = table.encoded_as(bundle.schema).matrix
    records = table.schema.decode(table.matrix, table.texts)
    assert bundle.schema.encode_records(records).tobytes() == matrix.tobytes()
    one_by_one = [bundle.predict(bundle.schema.encode_records([record]))[0] for record in records[:50]]
    assert np.array(one_by_one).tobytes() == bundle.predict(matrix)[:50].tobytes()
    shuffled = bundle.schema.encode_frame(pd.DataFrame(records[::-1]))
    assert shuffled[::-1].tobytes() == matrix.tobytes()


def test_ten_thousand_levels_are_checked_by_lookup_and_the_nearest_are_named() -> None:
    levels = {f"street {number}": 1 for number in range(10_000)}
    (town, *_) = replace(TOWNS).with_levels({"town": levels}).columns
    refusing = replace(town, unseen="refuse", counts=None)
    assert refusing.validate("street 77") is None
    started = time.process_time()
    for _ in range(1000):
        refusing.validate("street 9999")
        refusing.encode("street 9999")
    assert time.process_time() - started < 0.5  # a scan of all levels would take many times as long
    message = str(refusing.validate("stret 77"))
    assert message.startswith("Must be one of 10,000 levels (got 'stret 77'). The nearest: 'street 77', ")
    assert len(message) < 150
