"""Tensors for a table of plain numbers, which become a matrix without lists of values."""

import json
from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from housing.bundle.bundle import Bundle
from housing.data import table as data
from housing.data.split import split
from housing.feedback.log_reader import parse_entry
from housing.serving import publishing
from housing.training.build import BuildSettings, build
from server.api.auth import Access
from server.api.prediction import FAST_ROUTES, PredictionApi, PredictionRequest, PredictionResponse, Reader
from server.api.row_reader import RowReader
from server.inference_protocol.inference import INFER_ROUTE, TensorReader
from server.metrics.model_metrics import ModelMetrics
from server.models.served_models import ServedModels
from server.validation.request_body import ARROW, JSON
from tests.support.server import model_list
from tests.support.tables import config, rentals_frame

NUMBERS = ["area", "rooms", "built"]  # built is nullable
ROWS = np.array([[50.5, 2, 1950], [60, 3, np.nan], [99.5, 4, 2001]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a small model of the numbers of the rentals."""
    path = tmp_path_factory.mktemp("numbers") / "rentals.csv"
    rentals_frame(200).to_csv(path, index=False)
    others = [f"+data.columns.{name}.role=ignore" for name in ("furnished", "quarter")]
    cfg = config("train", "data=rentals", f"data.path={path}", *others, "model=linear", "features=none", "interval=none")
    table = data.load(cfg.data)
    return build(BuildSettings.from_config(cfg), table, split(table, cfg.split), run_id="none")[0]


@pytest.fixture(scope="module")
def log() -> list[dict[str, Any]]:
    """The logged predictions."""
    return []


@pytest.fixture(scope="module")
def api(bundle: Bundle, log: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> PredictionApi:
    """Return the routes of the protocol for the model."""
    folder = tmp_path_factory.mktemp("published")
    bundle.write(folder / "bundle")
    publishing.publish(
        folder / "releases", "1-run", folder / "bundle", {"model": "numbers", "version": "1", "alias": "a", "mlflow": "3"}
    )
    current = ServedModels(model_list(folder / "releases", "numbers"), 1e9, partial(ModelMetrics, folder, 0))
    tensors = TensorReader(10, lambda *_: pytest.fail("nobody requested an explanation"))
    readers: dict[str, Reader] = {INFER_ROUTE: tensors, **dict.fromkeys(FAST_ROUTES, RowReader(10))}
    return PredictionApi(current, Access([], 0), readers, lambda: "id", log.append, lambda _: None)


def infer(api: PredictionApi, inputs: list[dict[str, Any]], raw: bytes = b"") -> PredictionResponse:
    """Send inputs, of which some may be binary."""
    head = json.dumps({"inputs": inputs}).encode()
    length = str(len(head)) if raw else ""
    return api.handle(PredictionRequest(INFER_ROUTE, JSON, "", None, head + raw, "/v2/models/numbers/infer", length, "numbers"))


def with_null(values: np.ndarray) -> list[Any]:
    """Return values as JSON has them."""
    return [None if np.isnan(value) else value for value in values.ravel().tolist()]


def test_a_matrix_and_columns_are_the_same_rows(api: PredictionApi, bundle: Bundle, log: list[dict[str, Any]]) -> None:
    matrix = {"name": "input-0", "shape": [3, 3], "datatype": "FP64"}
    columns = [{"name": name, "shape": [3], "datatype": "FP64"} for name in NUMBERS]
    raw_matrix, raw_column = {"binary_data_size": 72}, {"binary_data_size": 24}
    requests: list[tuple[list[dict[str, Any]], bytes]] = [
        ([{**matrix, "data": with_null(ROWS)}], b""),
        ([{**matrix, "data": [with_null(row) for row in ROWS]}], b""),
        ([{**matrix, "parameters": raw_matrix}], ROWS.tobytes()),
        ([{**column, "data": with_null(values)} for column, values in zip(columns, ROWS.T, strict=True)], b""),
        ([{**column, "parameters": raw_column} for column in columns[::-1]], ROWS.T[::-1].tobytes()),
    ]
    for inputs, raw in requests:
        response = infer(api, inputs, raw)
        assert json.loads(response.body)["outputs"][0]["data"] == bundle.predict(ROWS).tolist()
        assert (log[-1]["columns"], np.array(log[-1]["rows"]).tolist()[0]) == (NUMBERS, ROWS[0].tolist())
    halves = infer(api, [{**matrix, "datatype": "FP16", "parameters": {"binary_data_size": 18}}], ROWS.astype("<f2").tobytes())
    assert json.loads(halves.body)["outputs"][0]["data"] == bundle.predict(ROWS.astype("<f2").astype(float)).tolist()


@pytest.mark.parametrize(
    ("row", "column", "value", "reason"),
    [
        (0, 0, np.nan, "row 0, area: Missing required value."),
        (1, 0, np.inf, "row 1, area: Not a finite number: inf."),
        (2, 0, 501, "row 2, area: Must be at most 500 (got 501.0)."),
        (2, 1, 1.5, "row 2, rooms: Not a whole number: 1.5."),
    ],
)
def test_an_invalid_number_of_a_binary_matrix_is_named(
    api: PredictionApi, row: int, column: int, value: float, reason: str
) -> None:
    rows = ROWS.copy()
    rows[row, column] = value
    matrix = {"name": "x", "shape": [3, 3], "datatype": "FP64", "parameters": {"binary_data_size": 72}}
    response = infer(api, [matrix], rows.tobytes())
    assert (response.status, json.loads(response.body)) == (422, {"error": f"1 invalid value.\n{reason}"})


def test_too_many_rows_are_refused(api: PredictionApi) -> None:
    matrix = {"name": "x", "shape": [11, 3], "datatype": "FP64", "parameters": {"binary_data_size": 264}}
    response = infer(api, [matrix], np.ones((11, 3)).tobytes())
    assert (response.status, json.loads(response.body)["error"]) == (413, "The request must have at most 10 rows (got 11).")


def test_a_stream_of_numbers_is_predicted_and_logged_like_json(api: PredictionApi, log: list[dict[str, Any]]) -> None:
    columns = [pa.array(values, pa.float64(), from_pandas=True) for values in ROWS.T]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([(name, pa.float64()) for name in NUMBERS])) as writer:
        writer.write_table(pa.table(columns, NUMBERS))
    text = json.dumps({"columns": NUMBERS, "rows": [[*map(float, row[:2]), with_null(row)[2]] for row in ROWS]}).encode()
    answers = [
        api.handle(PredictionRequest("/predict", media_type, "", None, body))
        for media_type, body in ((JSON, text), (ARROW, sink.getvalue().to_pybytes()))
    ]
    assert (answers[0].status, answers[0].body) == (200, answers[1].body)
    plain, arrow = (json.loads(orjson.dumps(entry["rows"], option=orjson.OPT_SERIALIZE_NUMPY)) for entry in log[-2:])
    assert plain == arrow


def test_a_request_that_fails_is_logged_with_its_version_and_without_rows(
    api: PredictionApi, log: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(row: object) -> int:
        return api.handle(PredictionRequest(FAST_ROUTES[0], JSON, "", None, json.dumps(row).encode())).status

    monkeypatch.setattr(Bundle, "predict", lambda *_: 1 / 0)
    before = len(log)
    assert (send({}), len(log)) == (422, before)  # the mistake of a caller
    assert (send(dict(zip(NUMBERS, ROWS[0], strict=True))), len(log)) == (500, before + 1)
    entry = parse_entry(orjson.dumps(log[-1]))
    assert (entry["failed"], entry["version"], entry["rows"], entry["predictions"]) == ("ZeroDivisionError", "1", [], [])
