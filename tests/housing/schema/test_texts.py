"""Columns of texts: what they become, alone and in a batch, in training and in a bundle that was read back."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from housing.bundle.array_files import read_arrays, write_arrays
from housing.bundle.bundle import Bundle
from housing.bundle.file_format import TEXT_ARRAYS
from housing.core.errors import BundleError, ConfigError, TableError
from housing.core.files import sha256
from housing.data.split import split
from housing.data.table import Table, load, validate_frame
from housing.data.text_fitting import fit_projection
from housing.ingestion.drift import Drift, measure_drift, reference_of
from housing.schema.column import Column
from housing.schema.table_schema import Schema
from housing.training.build import BuildSettings, build
from tests.support.tables import config, orders_frame, remarks

TEXTS = ["", " ", "oak", "Oak lamp", "oak  lamp", "ein Tisch aus Köln", "東京の机", "x" * 9999, "\x00 \U0001f600"]


def lots(texts: list[str | None], **attributes: Any) -> Table:
    """Return a table with a text in each row."""
    columns = {
        "text": {"type": "text", "nullable": True, "components": 8, **attributes},
        "x": {"type": "float"},
        "y": {"type": "float", "role": "target"},
    }
    numbers = np.arange(len(texts)) * 1.0
    schema = Schema.from_dict({"name": "t", "columns": columns})
    return validate_frame(schema, pd.DataFrame({"text": texts, "x": numbers, "y": numbers}), digest="")


def test_a_text_has_the_same_bits_alone_in_a_batch_and_in_any_order() -> None:
    texts = [*TEXTS, None, *remarks(200)]
    table = lots(texts).learn(range(len(texts)))
    alone = [table.schema.encode_records([{"text": text, "x": float(row)}])[0] for row, text in enumerate(texts)]
    assert np.array(alone).tobytes() == table.matrix.tobytes()
    frame = pd.DataFrame({"text": texts, "x": np.arange(len(texts)) * 1.0})[::-1]
    assert table.schema.encode_frame(frame)[::-1].tobytes() == table.matrix.tobytes()


def test_case_and_spaces_do_not_count_and_a_missing_text_is_no_empty_one() -> None:
    projection = fit_projection(remarks(200), 32)
    numbers = {text: projection.encode(text) for text in (*TEXTS, None)}
    assert numbers["Oak lamp"].tobytes() == numbers["oak  lamp"].tobytes()
    assert not numbers[""].any()
    assert np.isnan(numbers[None]).all()
    assert 0.3 < numbers["Oak lamp"][0] <= 1
    assert numbers["東京の机"][0] < 0.01


def test_the_explained_share_is_the_squared_length_within_directions_of_length_one() -> None:
    projection = fit_projection(remarks(300), 16)
    np.testing.assert_allclose(projection.components.T @ projection.components, np.eye(16), atol=1e-9)
    numbers = np.array([projection.encode(text) for text in remarks(50, seed=1) if text])
    np.testing.assert_allclose(numbers[:, 0], (numbers[:, 1:] ** 2).sum(axis=1), rtol=1e-12)
    assert (numbers[:, 0] > 0.2).all()


@pytest.mark.parametrize("texts", [[], [None], ["", " "], ["oak"], ["oak", "oak"]])
def test_few_texts_leave_components_without_a_direction(texts: list[str | None]) -> None:
    projection = fit_projection(texts, 4)
    assert projection.components.shape == (4096, 4)
    assert projection.encode("oak")[0] == pytest.approx(float("oak" in texts))
    assert not projection.encode("table").any()


def test_only_training_rows_are_learned_from() -> None:
    texts = [*["red lamp"] * 20, *["green chair"] * 20]
    table = lots(list(texts)).learn(range(20))
    assert table.matrix[0, 0] == pytest.approx(1)
    assert table.matrix[-1, 0] < 0.1


def test_rows_differ_and_keep_their_identity_by_their_texts() -> None:
    table = lots(["a", "b", "a", None, ""])
    assert len({key.hex() for key in table.keys.tolist()}) == 5  # x differs
    same = [key.hex() for key in lots(["a", "b"]).learn([0]).row_keys()]
    assert same == [key.hex() for key in table.row_keys()[:2]]
    assert table.identify("text").tolist()[:3:2] == [table.identify("text")[0]] * 2
    assert table.identify("text")[3] is None


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"type": "text", "role": "target"}, "the type text needs the role feature, key, group, audit or ignore"),
        ({"type": "text", "components": 513}, "components must be a whole number, at least 1 and at most 512 .got 513"),
        ({"type": "text", "components": 2.5}, "components must be a whole number"),
        ({"type": "text", "max_length": -1}, "max_length must be a whole number, at least 1 .got -1"),
        ({"type": "text", "role": "key", "components": 3}, "components needs the type text and the role feature .got text, key"),
        ({"type": "float", "max_length": 3}, "max_length needs the type text"),
        ({"type": "text", "min": 3}, "min and max need the type float or int"),
    ],
)
def test_a_contradiction_is_refused(attributes: dict[str, Any], message: str) -> None:
    columns = {"x": attributes, "z": {"type": "float"}, "y": {"type": "float", "role": "target"}}
    with pytest.raises(ConfigError, match=message):
        Schema.from_dict({"name": "t", "columns": columns})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (5, "Not text: 5."),
        (True, "Not text: True."),
        (None, "Missing required value."),
        ("x" * 10_001, "Must be at most 10,000 characters long (got 10,001)."),
        ("\ud800", "Not valid Unicode, with half of a surrogate pair: '\\ud800'."),
    ],
)
def test_an_invalid_text_is_named(value: Any, reason: str) -> None:
    assert Column("x", "text").validate(value) == reason
    with pytest.raises(TableError) as error:
        lots(["oak"], nullable=False).learn([0]).schema.encode_frame(pd.DataFrame({"text": [value], "x": [1.0]}, dtype=object))
    assert [violation.reason for violation in error.value.violations] == [reason]


def drift_of(new: list[str | None]) -> Drift:
    """Return the drift of the text of new rows."""
    present = lots([*remarks(500)]).learn(range(500))
    return measure_drift(reference_of(present), lots(new).encoded_as(present.schema), significance=0.01)[0]


def test_empty_and_foreign_texts_drift_and_new_ones_of_the_same_kind_do_not() -> None:
    assert drift_of([*remarks(300, seed=1)]).psi < 0.1
    assert drift_of([""] * 300).psi > 0.25
    assert drift_of([None] * 300).psi > 0.25
    foreign = drift_of(["Продам холодильник, почти новый"] * 300)
    assert foreign.psi > 0.25
    assert foreign.current == "median 0, missing 0%" or float(foreign.current.split()[1].strip(",")) < 0.02


def test_a_text_of_two_hundred_characters_takes_less_than_a_millisecond() -> None:
    projection = fit_projection(remarks(300), 32)
    text = " ".join(remarks(20))[:200]
    started = time.process_time()
    for _ in range(100):
        projection.encode(text)
    assert (time.process_time() - started) / 100 < 1e-3


@pytest.fixture(scope="module", params=["ridge", "xgboost"])
def orders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, Bundle, Path]:
    """Return a table, and a bundle that was built from it and read back, with its folder."""
    folder = tmp_path_factory.mktemp("orders")
    orders_frame(900).to_csv(folder / "orders.csv", index=False)
    paths = (f"data.path={folder}/orders.csv", "interval=scaled")
    cfg = config("train", "data=orders", "features=none", f"model={request.param}", *paths)
    table = load(cfg.data)
    bundle, metrics = build(BuildSettings.from_config(cfg), table, split(table, cfg.split), run_id="none")
    assert metrics["r2"] > 0.89  # 0.84 to 0.86 without the remark
    bundle.write(folder / "bundle")
    return table, Bundle.read(folder / "bundle"), folder / "bundle"


def test_a_bundle_that_was_read_back_predicts_like_the_training(orders: tuple[Table, Bundle, Path]) -> None:
    table, bundle, _ = orders
    matrix = table.encoded_as(bundle.schema).matrix
    records = table.schema.decode(table.matrix, table.texts)
    assert bundle.schema.encode_records(records).tobytes() == matrix.tobytes()
    assert {record["remark"] for record in bundle.golden["rows"]} <= {*remarks(900), None}
    names = bundle.ensemble.features[0].names
    assert [name for name in names if name.startswith("remark")][:8] == [f"remark_component_{number}" for number in range(8)]
    assert ("remark_is_missing" in names) == (bundle.ensemble.features[0].nan_handling == "impute")


def reseal(folder: Path) -> None:
    """Replace the checksums of a bundle by valid ones."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in sorted(names)))


def change_array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return a change of one of the arrays of texts."""

    def apply(folder: Path) -> None:
        arrays = read_arrays(folder / TEXT_ARRAYS)
        write_arrays(folder / TEXT_ARRAYS, {**arrays, name: change(arrays[name])})

    return apply


def change_background(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Return a change of the components of the background rows."""

    def apply(folder: Path) -> None:
        rows = read_arrays(folder / "background.npz")["rows"]
        rows[0, -1] = change(rows[0, -1])
        write_arrays(folder / "background.npz", {"rows": rows})

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_array("9.components", lambda array: array[:, :7]), r"text.npz: 9.components must hold .* \(4096, 8\) .*4096, 7"),
        (change_array("9.components", lambda array: array[:100]), "text.npz: 9.components must hold"),
        (change_array("9.idf", lambda array: array[:100]), "text.npz: 9.idf must hold"),
        (change_array("9.idf", lambda array: array * np.nan), "text.npz: 9.idf must hold finite"),
        (change_array("9.idf", lambda array: array.astype(np.float32)), "text.npz: 9.idf must hold finite float64"),
        (change_array("9.components", lambda array: -array), "Golden row"),
        (change_background(lambda _: np.nan), "background.npz: column remark must have numbers from -1 to 1"),
        (change_background(lambda _: 7.0), "background.npz: column remark must have numbers from -1 to 1"),
        (lambda folder: (folder / TEXT_ARRAYS).unlink(), "text.npz must be there if and only if a feature is a text"),
    ],
)
def test_a_changed_projection_is_refused(
    orders: tuple[Table, Bundle, Path], tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(orders[2], folder)
    change(folder)
    with pytest.raises(BundleError, match="text.npz|background.npz"):
        Bundle.read(folder)  # the checksums know it
    reseal(folder)
    with pytest.raises(BundleError, match=message):
        Bundle.read(folder)
