"""A column of every type, and a target whose logarithm is fitted: served, counted, logged, and returned as rows by feedback."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from housing.bundle.bundle import Bundle
from housing.data import table as data
from housing.data.settings import TableSettings
from housing.feedback.log_reader import LogFilter, read_entries, read_joined_rows
from housing.ingestion.ingestion import IngestionSettings, ingest
from housing.promotion.promotion import promote
from housing.schema.column import Vector
from tests.support.feedback import send_labels
from tests.support.server import Server, scraped, serving
from tests.support.tables import config, goods_frame, train
from tests.support.waiting import wait_for

pytestmark = pytest.mark.long

NEW = goods_frame(6, seed=7)  # goods that are no training rows
NEW.loc[1, "town"], NEW.loc[2, "brand"], NEW.loc[3, "bought"] = "elsewhere", "newcomer", "24.12.2090"


@dataclass(frozen=True)
class Shop:
    """A home with a promoted model of the goods, its server and its bundle."""

    home: Path
    server: Server
    bundle: Bundle

    @property
    def log(self) -> Path:
        """The folder of the prediction log."""
        return self.home / "serving" / "goods-staging.log"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Shop]:
    """A server of the goods with one worker."""
    home = tmp_path_factory.mktemp("goods")
    (home / "data").mkdir()
    goods_frame().to_csv(home / "data" / "goods.csv", index=False, sep=";")
    shutil.copy(empty_store, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(home))
        train(home, "data=goods", "model=linear", "figures=false", "target.transform=log")
        assert promote(config("promote", "data=goods", "gate.min_rows=50")).verdict == "PROMOTE"
        with serving(home, "data=goods", "serve.workers=1") as server:
            wait_for(lambda: server.answers("/readyz"), "the model is published")
            (checksums,) = (home / "mlartifacts").rglob("SHA256SUMS")
            yield Shop(home, server, Bundle.read(checksums.parent))


def parsed() -> list[dict[str, Any]]:
    """Return the new goods as JSON has them: numbers, booleans and null, but dates and written numbers as they are written."""
    rows: list[dict[str, Any]] = NEW.drop(columns="price").to_dict("records")  # type: ignore[assignment]
    used = {"ja": True, "nein": False, "": None}
    return [
        {
            **row,
            "size": float(row["size"].replace(",", ".")),
            "age": None if row["age"] == "?" else int(row["age"]),
            "used": used[row["used"]],
            "brand": row["brand"] or None,
        }
        for row in rows
    ]


def offline(shop: Shop) -> Vector:
    """Return the predictions of the file as the table is read."""
    NEW.to_csv(shop.home / "new.csv", index=False, sep=";")
    settings = TableSettings.from_config(config("train", "data=goods").data)
    frame = data.read_frame(shop.home / "new.csv", shop.bundle.schema, settings.read)
    return shop.bundle.predict(shop.bundle.schema.encode_frame(frame))


def csv_body() -> str:
    """Return the new goods as a client writes CSV."""
    return pd.DataFrame(parsed()).drop(columns="number").astype({"age": "Int64"}).to_csv(index=False)


def column_counts(server: Server) -> dict[tuple[str, str], float]:
    """Return the number of served values by column and bin."""
    prefix, counts = "housing_column_bin_total{", dict[tuple[str, str], float]()
    for name, value in scraped(server).items():
        if name.startswith(prefix):
            labels = dict(label.split("=", 1) for label in name.removeprefix(prefix).rstrip("}").split('",'))
            counts[labels["column"].strip('"'), labels["bin"].strip('"')] = value
    return counts


def request(layout: str) -> tuple[str, str, str]:
    """Return the route, the body and the content type of a request for the new goods."""
    rows = parsed()
    lists = {"columns": list(rows[0]), "rows": [list(row.values()) for row in rows]}
    bodies = {"objects": {"instances": rows}, "lists": lists, "records": {"dataframe_records": rows}}
    if layout == "CSV":
        return "/invocations", csv_body(), "text/csv"
    return "/invocations" if layout == "records" else "/predict", json.dumps(bodies[layout]), "application/json"


@pytest.mark.parametrize("layout", ["objects", "lists", "records", "CSV"])
def test_a_row_of_every_type_is_predicted_counted_and_logged_as_it_is_read_from_a_file(shop: Shop, layout: str) -> None:
    before = column_counts(shop.server)
    route, body, content_type = request(layout)
    answer = shop.server.ask(route, body.encode(), Content_Type=content_type)
    assert answer.status == 200, answer
    np.testing.assert_array_equal(answer.json["predictions"], offline(shop))
    counts = {key: count - before[key] for key, count in column_counts(shop.server).items()}
    for column in shop.bundle.schema.features:
        assert sum(count for (name, _), count in counts.items() if name == column.name) == len(NEW), column.name
    assert counts["town", "(other)"] == 1
    assert counts["brand", "missing"] == (NEW.brand == "").sum() + 1
    assert counts["used", "missing"] == (NEW.used == "").sum()
    assert counts["grade", "good"] == (NEW.grade == "good").sum()
    wait_for(lambda: bool(read_entries(shop.log, LogFilter(id=answer.id))[0]), "the request is logged")
    ((entry,), _) = read_entries(shop.log, LogFilter(id=answer.id))
    logged = [dict(zip(entry["columns"], row, strict=True)) for row in entry["rows"]]
    features = [column.name for column in shop.bundle.schema.features]
    assert [{name: row[name] for name in features} for row in logged] == [
        {name: row[name] for name in features} for row in parsed()
    ]


def test_a_date_beyond_the_training_rows_is_out_of_range_and_a_refused_level_counts_nowhere(shop: Shop) -> None:
    def beyond() -> float:
        return sum(value for name, value in scraped(shop.server).items() if "out_of_range_total" in name and '"bought"' in name)

    before, counts = beyond(), column_counts(shop.server)
    refused = shop.server.predict({**parsed()[0], "shelf": "S99"})
    assert (refused.status, refused.json["errors"][0]["field"]) == (422, "shelf")
    assert column_counts(shop.server) == counts
    assert shop.server.predict(parsed()[3]).status == 200
    assert beyond() == before + 1


def test_feedback_becomes_rows_of_the_table_in_its_own_notation(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = shop.server.predict({"instances": parsed()})
    labels = [{"request_id": answer.id, "row": row, "value": 100.25 + row} for row in range(len(NEW))]
    send_labels(shop.server, labels)
    wait_for(lambda: sum(row["id"] == answer.id for row in read_joined_rows(shop.log)) == len(NEW), "the labels are joined")
    monkeypatch.setenv("HOUSING_HOME", str(shop.home))
    settings = IngestionSettings.from_config(config("ingest", "data=goods", "source=feedback"))
    assert ingest(settings, read_joined_rows).added == len(NEW)
    assert ingest(settings, read_joined_rows).added == 0
    frame = data.read_frame(shop.home / "new.csv", settings.table.schema, settings.table.read)
    table = data.load(config("train", "data=goods").data)
    added = table.schema.encode_frame(frame)
    np.testing.assert_array_equal(table.matrix[-len(NEW) :], added)
    np.testing.assert_array_equal(table.target[-len(NEW) :], [label["value"] for label in labels])
    written = pd.read_csv(shop.home / "data" / "goods.csv", sep=";", dtype=str, keep_default_na=False)
    assert written.number.tolist()[-len(NEW) :] == NEW.number.astype(str).tolist()
