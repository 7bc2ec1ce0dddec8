"""Bundles: atomic writing, verification when reading, and an error for every changed file."""

import dataclasses
import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housing.bundle import pyfunc
from housing.bundle.array_files import read_arrays
from housing.bundle.bundle import Bundle
from housing.bundle.ensemble import Ensemble
from housing.core.errors import BundleError, TableError
from housing.data.split import split
from housing.data.table import Table
from housing.features.kd_tree import PACKED
from housing.features.spatial_index import km_per_degree
from housing.schema.table_schema import Schema
from housing.training.build import BuildSettings, build
from tests.support.tables import SMALL_GEO, config, rentals_frame

FILES = [
    "background.npz",
    "card.json",
    "ensemble.json",
    "ensemble.npz",
    "features/0/arrays.npz",
    "features/0/features.json",
    "golden.json",
    "interval.npz",
    "interval.onnx",
    "members/0/model.onnx",
    "reference.json",
    "schema.json",
]


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """A written bundle."""
    bundle.write(tmp_path / "bundle")
    return tmp_path / "bundle"


def rewrite_checksums(folder: Path) -> None:
    """Write valid checksums for a changed bundle."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"
    )
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_a_bundle_has_exactly_the_files_of_the_format_with_valid_checksums(folder: Path) -> None:
    present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert present == sorted([*FILES, "SHA256SUMS"])
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_a_bundle_that_was_read_predicts_like_the_written_one(bundle: Bundle, folder: Path, rentals: Table) -> None:
    np.testing.assert_array_equal(Bundle.read(folder).predict(rentals.matrix), bundle.predict(rentals.matrix))


def test_rows_get_equal_predictions_alone_and_in_a_batch(bundle: Bundle, rentals: Table) -> None:
    batch = bundle.predict(rentals.matrix[:50])
    single = [bundle.predict(row[None])[0] for row in rentals.matrix[:50]]
    np.testing.assert_array_equal(single, batch)


def test_predictions_are_clipped_to_the_bounds_of_the_target(bundle: Bundle, rentals: Table) -> None:
    declaration = json.loads(json.dumps(bundle.schema.to_dict()))
    declaration["columns"]["rent"]["max"] = 300.0
    capped = Ensemble(Schema.from_dict(declaration), bundle.ensemble.features, bundle.ensemble.members)
    assert bundle.predict(rentals.matrix).max() > 300.0
    assert capped.predict(rentals.matrix).max() == 300.0


def test_members_that_share_features_survive_writing(bundle: Bundle, rentals: Table, tmp_path: Path) -> None:
    members = [*bundle.ensemble.members, *bundle.ensemble.members]
    pair = dataclasses.replace(bundle, ensemble=Ensemble(bundle.schema, bundle.ensemble.features, members))
    pair.write(tmp_path / "pair")
    assert sorted(path.name for path in (tmp_path / "pair" / "members").iterdir()) == ["0", "1"]
    assert [path.name for path in (tmp_path / "pair" / "features").iterdir()] == ["0"]
    np.testing.assert_array_equal(Bundle.read(tmp_path / "pair").predict(rentals.matrix), pair.predict(rentals.matrix))


def test_twelve_members_keep_their_order(towns: Table, tmp_path: Path) -> None:
    trees = "model.members.trees"
    cfg = config(
        "train", "data=towns", "model=mean", "features=none", f"{trees}.n_seeds=12", f"{trees}.model.estimator.n_estimators=2"
    )
    many = build(BuildSettings.from_config(cfg), towns, split(towns, cfg.split), run_id="none")[0]
    many.write(tmp_path / "many")
    read = Bundle.read(tmp_path / "many").ensemble.members
    for member, expected in zip(read, many.ensemble.members, strict=True):
        assert member.estimator.graph == expected.estimator.graph  # type: ignore[attr-defined]


def test_a_bundle_of_format_8_is_still_read(towns: Table, tmp_path: Path) -> None:
    cfg = config("train", "data=towns", "features=geo", *SMALL_GEO, "model.estimator.n_estimators=5", "interval=none")
    bundle, _ = build(BuildSettings.from_config(cfg), towns, split(towns, cfg.split), "run")
    bundle.write(tmp_path / "old")
    for name in ("features/0/arrays.npz", "ensemble.npz"):
        arrays = read_arrays(tmp_path / "old" / name)
        for prefix in {name.removesuffix("tree_order") for name in arrays if name.endswith("tree_order")}:
            packed = {part: arrays.pop(f"{prefix}{part}") for part in PACKED}
            km = np.empty(packed["tree_points"].shape)
            km[packed["tree_order"]] = packed["tree_points"]
            arrays[f"{prefix}points"] = km / km_per_degree(float(arrays[f"{prefix}latitude"][0]))
        np.savez(tmp_path / "old" / name, **arrays)  # type: ignore[arg-type]
    edit_json("schema.json", lambda schema: schema.update(format=8))(tmp_path / "old")
    rewrite_checksums(tmp_path / "old")
    np.testing.assert_allclose(Bundle.read(tmp_path / "old").predict(towns.matrix), bundle.predict(towns.matrix), rtol=1e-6)


def test_background_rows_survive_writing(bundle: Bundle, folder: Path) -> None:
    assert bundle.background.shape == (16, 5)
    np.testing.assert_array_equal(Bundle.read(folder).background, bundle.background)


def test_the_sample_survives_writing_and_may_be_absent(bundle: Bundle, tmp_path: Path) -> None:
    sample = bundle.background[[3, 1, 2]]
    for name, rows in (("with", sample), ("without", None)):
        dataclasses.replace(bundle, sample=rows).write(tmp_path / name)
    restored = Bundle.read(tmp_path / "with").sample
    assert restored is not None
    np.testing.assert_array_equal(restored, sample)
    assert Bundle.read(tmp_path / "without").sample is None


def test_intervals_survive_writing_and_a_bundle_without_them_has_no_interval_files(
    bundle: Bundle, rentals: Table, tmp_path: Path
) -> None:
    bundle.write(tmp_path / "with")
    for values, expected in zip(
        Bundle.read(tmp_path / "with").predict_interval(rentals.matrix, 0.8),
        bundle.predict_interval(rentals.matrix, 0.8),
        strict=True,
    ):
        np.testing.assert_array_equal(values, expected)
    without = dataclasses.replace(bundle, interval=None)
    without.select_golden_rows(rentals.matrix, 8)
    without.write(tmp_path / "without")
    assert not list((tmp_path / "without").glob("interval*"))
    assert Bundle.read(tmp_path / "without").interval is None


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_an_error_with_the_name_of_its_file(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} does not match its checksum"):
        Bundle.read(folder)


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_missing_file_is_an_error_with_its_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.read(folder)


def put_pickle(folder: Path) -> None:
    """Add an array that only pickle can store."""
    with (folder / "features/0/arrays.npz").open("wb") as file:
        np.savez(file, np.array([print], dtype=object))


def replace_background(rows: Any) -> Callable[[Path], None]:
    """Return a change that replaces the background rows: area, rooms, furnished, quarter, built."""
    return lambda folder: np.savez(folder / "background.npz", rows=np.asarray(rows))


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a change of a JSON file."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "extra.py").write_text("import os"), "extra.py does not belong to a bundle"),
        (lambda folder: (folder / "members/0/deep").symlink_to("/etc/passwd"), "members/0/deep is not a regular file"),
        (edit_json("golden.json", lambda golden: golden.update(predictions=[0.0] * 16)), "Golden row .*: predictions must be 0"),
        (
            edit_json("golden.json", lambda golden: golden.update(predictions=[1.0])),
            "golden.json must have as many predictions as rows",
        ),
        (edit_json("golden.json", lambda golden: golden.clear()), "KeyError"),
        (lambda folder: (folder / "features/0/arrays.npz").write_bytes(b"no archive"), "arrays.npz is no archive of arrays"),
        (
            edit_json("schema.json", lambda schema: schema.update(format=99)),
            "format 99, .* only formats 8 and 9; train the model again: python -m housing.train",
        ),
        (edit_json("ensemble.json", lambda ensemble: ensemble.update(members=[])), "shorter than"),
        (
            edit_json("ensemble.json", lambda ensemble: ensemble["members"][0].update(region="nearby")),
            "region of a member must be .*got 'nearby'",
        ),
        (
            edit_json("ensemble.json", lambda ensemble: ensemble["members"][0].update(region="near")),
            "need model.applicability",
        ),
        (edit_json("ensemble.json", lambda ensemble: ensemble["members"][0].update(features=7)), "IndexError"),
        (edit_json("features/0/features.json", lambda state: state.update(blocks={"magic": {}})), "Unknown block 'magic'"),
        (edit_json("features/0/features.json", lambda state: state["names"].reverse()), "The blocks have the columns"),
        (edit_json("golden.json", lambda golden: golden.update(lower=[0.0] * 16)), "Golden row .*: lower must be 0"),
        (lambda folder: (folder / "interval.npz").unlink(), "interval.npz is missing"),
        (lambda folder: shutil.copytree(folder / "members/0", folder / "members/2"), "members/1/model.onnx is missing"),
        (lambda folder: shutil.copytree(folder / "features/0", folder / "features/x"), "features/1/arrays.npz is missing"),
        (put_pickle, "pickle"),
        (
            lambda folder: np.savez(folder / "background.npz", other=np.ones(3)),
            "background.npz: rows must be float64.*no array",
        ),
        (replace_background(np.ones((2, 4))), r"shape \(at least 1, 5\) \(got float64, shape \(2, 4\)"),
        (replace_background(np.ones((0, 5))), r"got float64, shape \(0, 5\)"),
        (replace_background(np.ones((2, 5), dtype=np.int64)), "got int64"),
        (
            replace_background([[50.0, 2, 1, 0, 1950], [np.nan, 2, 1, 0, 1950]]),
            "background.npz: row 1 violates the schema",
        ),
        (replace_background([[50.0, 2.5, 1, 0, 1950]]), "row 0 violates the schema"),
        (replace_background([[50.0, 2, 1, -1, 1950]]), "row 0 violates the schema"),
        (replace_background([[900.0, 2, 1, 0, 1950]]), "row 0 violates the schema"),
        (
            lambda folder: (folder / "members/0/model.onnx").write_bytes(b"no graph"),
            "members/0/model.onnx: It is not an ONNX model",
        ),
        (lambda folder: (folder / "card.json").write_text("{"), "JSONDecodeError"),
        (edit_json("card.json", lambda card: card["metrics"].pop("rmse")), "KeyError: 'rmse'"),
        (edit_json("card.json", lambda card: card.update(created="yesterday")), "ValueError: .*yesterday"),
        (edit_json("reference.json", lambda reference: reference["columns"].pop("area")), "KeyError: 'area'"),
        (
            edit_json("reference.json", lambda reference: reference["prediction"].pop("lowest")),
            "the histogram of the prediction lacks lowest",
        ),
        (
            edit_json("reference.json", lambda reference: reference["contributions"].pop("rooms")),
            "contributions must have a finite number for each column",
        ),
        (
            lambda folder: np.savez(folder / "background.npz", rows=np.ones((1, 5)), sample=np.ones((3, 4))),
            "background.npz: sample must be float64.*got float64, shape .3, 4",
        ),
        (
            edit_json("reference.json", lambda reference: reference["columns"]["rooms"]["shares"].pop()),
            "the histogram of rooms lacks a share",
        ),
    ],
)
def test_invalid_content_with_valid_checksums_is_an_error(folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(folder)
    rewrite_checksums(folder)
    with pytest.raises(BundleError, match=message):
        Bundle.read(folder)


def test_writing_over_a_bundle_is_an_error_and_leaves_it_intact(bundle: Bundle, folder: Path) -> None:
    with pytest.raises(OSError, match="not empty"):
        bundle.write(folder)
    Bundle.read(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_the_pyfunc_model_predicts_frames_and_rejects_values_that_violate_the_schema(
    bundle: Bundle, folder: Path, rentals: Table
) -> None:
    model = pyfunc._load_pyfunc(str(folder))  # pylint: disable=protected-access  # the name that MLflow calls
    frame = rentals_frame().drop(columns="rent")
    np.testing.assert_array_equal(model.predict(frame), bundle.predict(rentals.matrix))
    with pytest.raises(TableError, match="row 3, quarter: Must be one of"):
        model.predict(frame.assign(quarter=["hills"] * 3 + ["moon"] * (len(frame) - 3)))


def test_a_bundle_contains_no_pickle(folder: Path) -> None:
    with np.load(io.BytesIO((folder / "features/0/arrays.npz").read_bytes()), allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiub" for name in arrays)
