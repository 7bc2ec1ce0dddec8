"""Promotion on splits that keep rows together: by time and by customer, also after the table has grown."""

from pathlib import Path

from housing.promotion.promotion import promote
from housing.tracking import store as tracking_store
from housing.tracking import tags
from tests.support.tables import config, orders_frame, train

QUICK = ("data=orders", "model=linear", "figures=false", "interval=none", "+data.columns.customer.nullable=true")
PROMOTE = ("data=orders", "gate.min_rows=20", "+data.columns.customer.nullable=true")


def write_orders(home: Path, rows: int) -> None:
    """Write the first rows of 1,500 orders of 400 customers in 150 weeks."""
    frame = orders_frame(1500).fillna({"price": 9.0}).assign(customer=[f"c{row * 7 % 400}" for row in range(1500)])
    frame.head(rows).to_csv(home / "data" / "orders.csv", index=False)


def test_a_champion_of_an_older_table_has_seen_no_row_that_is_later_than_its_own(home: Path) -> None:
    write_orders(home, 1000)
    first = train(home, *QUICK, "split=time", "split.gap=2")
    decision = promote(config("promote", *PROMOTE, "split=time", "split.gap=2"))
    assert decision.verdict == "PROMOTE" and decision.difference is not None
    assert (decision.difference.units, decision.difference.unit_name) == (20, "values of week")
    assert any("200 test rows belong to 20 values of week" in reason for reason in decision.reasons)
    store = tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=str(home / "mlartifacts"), ui="")
    assert first.run_id is not None and store.runs.get(first.run_id).tags[tags.FITTED_UNTIL] == "77.0"
    for rows, is_unseen in ((1500, True), (700, False)):  # with fewer rows, the test rows are older than the champion's
        write_orders(home, rows)
        train(home, *QUICK, "split=time", "split.gap=2", "seed=1")
        decision = promote(config("promote", *PROMOTE, "split=time", "split.gap=2"))
        assert decision.champion == "version 1"
        assert any("may have seen some of the test rows" in reason for reason in decision.reasons) != is_unseen


def test_customers_stay_in_their_part_when_the_table_grows(home: Path) -> None:
    write_orders(home, 1000)
    train(home, *QUICK, "split=grouped")
    decision = promote(config("promote", *PROMOTE, "split=grouped", "evaluate=full"))
    assert decision.verdict == "PROMOTE" and decision.difference is not None
    assert decision.difference.unit_name == "values of customer" and decision.difference.units < decision.difference.rows
    assert decision.evaluation is not None
    assert decision.evaluation.skipped[0] == "grouped split: it is the split of the run"
    write_orders(home, 1500)
    train(home, *QUICK, "split=grouped")
    decision = promote(config("promote", *PROMOTE, "split=grouped"))
    assert decision.champion == "version 1"
    assert not any("may have seen" in reason for reason in decision.reasons)
