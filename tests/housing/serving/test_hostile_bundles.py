"""Hostile bundles, which verification rejects before anything in them is used."""

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from housing.bundle.bundle import Bundle
from housing.bundle.ensemble import Ensemble, Member
from housing.bundle.onnx_model import OnnxModel
from housing.core.errors import BundleError
from housing.data.table import Table
from housing.promotion.promotion import promote
from housing.serving.verification import verify
from housing.tracking import store as tracking_store
from housing.tracking import tags
from tests.housing.bundle.test_bundle import rewrite_checksums
from tests.support.hostile_graphs import GRAPH, endless, graph
from tests.support.server import scraped, serving
from tests.support.tables import FLAT, config, train
from tests.support.waiting import wait_for


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """Return a written bundle."""
    bundle.write(tmp_path / "bundle")
    return tmp_path / "bundle"


def tensor(dims: Sequence[int], **more: Any) -> TensorProto:
    """Return a tensor with arbitrary metadata."""
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, **more)


def outside() -> TensorProto:
    """Return a tensor with its numbers in an external file."""
    external = tensor([9, 1], data_location=TensorProto.EXTERNAL)
    external.external_data.add(key="location", value="../../../../../etc/passwd")
    return external


def product(weights: TensorProto) -> Callable[[Path], object]:
    """Replace the graph by a product with the weights."""
    return graph([helper.make_node("MatMul", ["columns", "w"], ["y"])], [weights])


def tree(last: int, ids: Sequence[int] = range(7), mode: str = "BRANCH_LEQ") -> onnx.NodeProto:
    """Return a tree. Nodes 0 and 1 have the next node and a leaf as children, node 2 has `last` (correctly 6) and a leaf."""
    leaves = ids[3:]
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["columns"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0] * 7,
        nodes_nodeids=ids,
        nodes_featureids=[0] * 7,
        nodes_modes=[mode] * 3 + ["LEAF"] * 4,
        nodes_values=[-1e9] + [0.0] * 6,  # only a number that low leads from node 0 to node 1
        nodes_truenodeids=[1, 2, last, 0, 0, 0, 0],
        nodes_falsenodeids=[3, 4, 5, 0, 0, 0, 0],
        target_ids=[0] * 4,
        target_nodeids=leaves,
        target_treeids=[0] * 4,
        target_weights=[1.0] * 4,
    )


def function() -> onnx.FunctionProto:
    """Return a custom function."""
    return helper.make_function(
        "own", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 20)]
    )


def archive(name: str, content: bytes) -> Callable[[Path], object]:
    """Add a compressed array to the background rows."""

    def apply(directory: Path) -> None:
        with zipfile.ZipFile(directory / "background.npz", "a", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, content)

    return apply


def claims(shape: str) -> bytes:
    """Return the header of an array with this shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def replaced(content: bytes) -> Callable[[Path], object]:
    """Replace the background rows by raw array bytes."""

    def apply(directory: Path) -> None:
        with zipfile.ZipFile(directory / "background.npz", "w") as file:
            file.writestr("rows.npy", content)

    return apply


def json_value(name: str, *keys: str, value: object) -> Callable[[Path], object]:
    """Change a value in a JSON file."""

    def apply(directory: Path) -> None:
        content = json.loads((directory / name).read_text(encoding="utf-8"))
        within = content
        for key in keys[:-1]:
            within = within[key]
        within[keys[-1]] = value
        (directory / name).write_text(json.dumps(content), encoding="utf-8")

    return apply


def pickled(directory: Path) -> None:
    """Write an array that needs pickle."""
    with (directory / "features/0/arrays.npz").open("wb") as file:
        np.savez(file, np.array([print], dtype=object))


def named(name: str) -> Callable[[Path], object]:
    """Add a file name to the checksums."""

    def apply(directory: Path) -> None:
        with (directory / "SHA256SUMS").open("a", encoding="utf-8") as file:
            file.write(f"{'0' * 64}  {name}\n")

    return apply


def link(directory: Path) -> None:
    """Replace a file by a symbolic link."""
    (directory / "card.json").unlink()
    (directory / "card.json").symlink_to("/etc/passwd")


def pipe(directory: Path) -> None:
    """Replace a file by a pipe, which blocks its reader forever."""
    (directory / "card.json").unlink()
    os.mkfifo(directory / "card.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            graph([endless()]),
            "members/0/model.onnx: The ONNX graph has the operator 'Loop' of 'ai.onnx'; allowed operators: Add, Cast",
        ),
        (graph([helper.make_node("System", ["columns"], ["y"], domain="com.evil")]), "the operator 'System' of 'com.evil'"),
        (
            graph([helper.make_node("F", ["columns"], ["y"], domain="own")], functions=[function()]),
            "The ONNX graph has functions, training steps",
        ),
        (product(outside()), "has numbers in an external file"),
        (product(tensor([2**40, 2**20])), "a tensor of shape .*, which a file of .* bytes cannot hold"),
        (product(tensor([-1, 9])), r"a tensor of shape \(-1, 9\)"),
        (graph([helper.make_node("ConstantOfShape", ["columns"], ["y"])]), "the operator 'ConstantOfShape'"),
        (graph([tree(last=1)]), "a node with two parents"),
        (graph([tree(last=0)]), "a root with a parent"),
        (graph([tree(last=1, mode="BRANCH_GT")]), "a node with two parents"),
        (graph([tree(last=0, mode="BRANCH_GTE"), helper.make_node("Identity", ["y"], ["z"])]), "a root with a parent"),
        (graph([tree(last=6, ids=(0, 1, 2, 3, 4, 5, 5))]), "has a tree with a duplicate node"),
        (graph([helper.make_node("TreeEnsemble", ["columns"], ["y"], domain="ai.onnx.ml")]), "has the operator 'TreeEnsemble'"),
        (lambda directory: (directory / GRAPH).write_bytes(b"\xff" * 100), "is not an ONNX model"),
        (archive("bomb.npy", b"\0" * 600_000_000), "at most 500000000 bytes"),
        (replaced(claims("(1000000000000, 8)")), "MemoryError|Unable to allocate"),
        (pickled, "pickle"),
        (json_value("card.json", "metrics", "rmse", value="0.5"), "metrics.rmse a finite number .*'0.5'"),
        (json_value("card.json", "run_id", value=["x"]), "card.json: run_id and data.fingerprint must be strings"),
        (
            json_value("reference.json", "prediction", "missing", value="a"),
            "histogram of the prediction must hold finite numbers",
        ),
        (json_value("reference.json", "columns", "area", "lowest", value=None), "histogram of area must hold finite numbers"),
        (json_value("card.json", "run_id", value="\ud800"), "exited with code 1 .*surrogates"),
        (link, "card.json is not a regular file"),
        (pipe, "card.json is not a regular file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_bundle_with_valid_checksums_is_rejected(folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(folder)
    if change not in (link, pipe):
        rewrite_checksums(folder)
    with pytest.raises(BundleError, match=message):
        verify(folder, None, memory_mb=1000, seconds=60, n_rows=10_000)


def test_a_bundle_that_needs_too_much_memory_for_the_largest_request_is_rejected(
    bundle: Bundle, rentals: Table, tmp_path: Path
) -> None:
    wide, narrow = np.ones((7, 600_000), np.float32), np.full((600_000, 1), 1e-6, np.float32)
    weights = [numpy_helper.from_array(wide, "wide"), numpy_helper.from_array(narrow, "narrow")]
    nodes = [
        helper.make_node("MatMul", ["columns", "wide"], ["between"]),
        helper.make_node("MatMul", ["between", "narrow"], ["y"]),
    ]
    (tmp_path / GRAPH).parent.mkdir(parents=True)
    graph(nodes, weights)(tmp_path)
    members = [Member(OnnxModel((tmp_path / GRAPH).read_bytes()), 0)]
    greedy = dataclasses.replace(bundle, ensemble=Ensemble(bundle.schema, bundle.ensemble.features, members), interval=None)
    greedy.select_golden_rows(rentals.matrix[~np.isnan(rentals.matrix).any(axis=1)], 16)
    greedy.write(tmp_path / "bundle")
    verify(tmp_path / "bundle", None, memory_mb=1000, seconds=60, n_rows=100)
    with pytest.raises(BundleError, match="memory limit 1000 MB.*allocate"):
        verify(tmp_path / "bundle", None, memory_mb=1000, seconds=60, n_rows=10_000)


def test_a_path_outside_the_bundle_is_rejected(folder: Path) -> None:
    named("../../../etc/passwd")(folder)
    with pytest.raises(BundleError, match=r"\.\./\.\./\.\./etc/passwd is missing"):
        verify(folder, None, memory_mb=1000, seconds=60, n_rows=10_000)


def test_every_model_of_this_project_passes(folder: Path) -> None:
    verify(folder, None, memory_mb=1000, seconds=60, n_rows=10_000)


@pytest.mark.long
def test_workers_never_see_a_rejected_version(home: Path) -> None:
    good = train(home, "model=linear", "figures=false")
    promote(config("promote", "data=rentals"))
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    model = store.client.api.get_logged_model(store.runs.get(str(good.run_id)).tags[tags.MODEL_ID])
    with serving(home) as running:
        wait_for(lambda: running.answers("/readyz"), "version 1 is served")
        directory = Path(model.artifact_location.removeprefix("file://")) / "data" / "bundle"
        graph([endless()])(directory)
        rewrite_checksums(directory)
        store.registry.set_alias("housing-rentals", "staging", store.registry.register("housing-rentals", str(good.run_id)))
        wait_for(lambda: scraped(running).get("housing_versions_rejected_total") == 1, "the puller refuses version 2")
        assert "has the operator 'Loop'" in running.log.read_text(encoding="utf-8")
        assert running.predict(FLAT).json["version"] == "1"
        assert len(list((home / "serving" / "rentals-staging").glob("2-*"))) == 0
        store.client.api.set_registered_model_alias("housing-rentals", "staging", _version_of(store, "../../../../tmp/out"))
        wait_for(
            lambda: "not an MLflow run ID" in running.log.read_text(encoding="utf-8"),
            "a run's name that is a path is refused",
        )
        assert running.predict(FLAT).json["version"] == "1"


def _version_of(store: tracking_store.Store, run_id: str) -> str:
    """Register a version that names a run of one's own invention, as whoever may write the registry can."""
    source = store.client.api.get_model_version("housing-rentals", "1").source
    assert source
    return str(store.client.api.create_model_version("housing-rentals", source, run_id=run_id).version)
