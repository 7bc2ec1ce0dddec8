"""The bundle: written whole, proven when read, refused when anything in it is not as it was written."""

import hashlib
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import rentals_frame
from housing import bundle as bundle_module
from housing.bundle import Bundle
from housing.data import Table
from housing.errors import BundleError, TableError

FILES = [
    "card.json",
    "combine.json",
    "golden.json",
    "members/0/arrays.npz",
    "members/0/features.json",
    "members/0/model.onnx",
    "reference.json",
    "schema.json",
]


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """A written bundle."""
    bundle.write(tmp_path / "bundle")
    return tmp_path / "bundle"


def sum_again(folder: Path) -> None:
    """Write the sums of a folder that was changed, as one who knows the format would."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"
    )
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_it_holds_exactly_the_files_of_the_format_and_sha256sum_agrees(folder: Path) -> None:
    present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert present == sorted([*FILES, "SHA256SUMS"])
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_what_is_read_predicts_as_what_was_written(bundle: Bundle, folder: Path, rentals: Table) -> None:
    np.testing.assert_array_equal(Bundle.read(folder).predict(rentals.matrix), bundle.predict(rentals.matrix))


def test_rows_predict_the_same_alone_and_together(bundle: Bundle, rentals: Table) -> None:
    together = bundle.predict(rentals.matrix[:50])
    alone = [bundle.predict(row[None])[0] for row in rentals.matrix[:50]]
    np.testing.assert_array_equal(alone, together)


def test_members_are_averaged_and_held_within_the_targets_bounds(bundle: Bundle, rentals: Table) -> None:
    member = bundle.members[0]
    pair = Bundle(bundle.schema, [member, member], {}, {}, {})
    np.testing.assert_allclose(pair.predict(rentals.matrix), bundle.predict(rentals.matrix))
    low = json.loads(json.dumps(bundle.schema.to_dict()))
    low["columns"]["rent"]["max"] = 300.0
    capped = Bundle(type(bundle.schema).from_dict(low), [member], {}, {}, {})
    assert bundle.predict(rentals.matrix).max() > 300.0
    assert capped.predict(rentals.matrix).max() == 300.0


def test_two_members_survive_writing(bundle: Bundle, rentals: Table, tmp_path: Path) -> None:
    pair = Bundle(bundle.schema, [bundle.members[0]] * 2, bundle.reference, bundle.card, bundle.golden)
    pair.write(tmp_path / "pair")
    read = Bundle.read(tmp_path / "pair")
    assert len(read.members) == 2
    np.testing.assert_array_equal(read.predict(rentals.matrix), pair.predict(rentals.matrix))


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_in_any_file_is_refused_by_name(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} does not have the sum that was written"):
        Bundle.read(folder)


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_missing_file_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.read(folder)


def pickled(folder: Path) -> None:
    """Put an array in that only a pickle can hold."""
    with (folder / "members/0/arrays.npz").open("wb") as file:
        np.savez(file, np.array([print], dtype=object))


def edit(name: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Make a change of a JSON file."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "extra.py").write_text("import os"), "extra.py is not part of a bundle"),
        (lambda folder: (folder / "members/0/deep").symlink_to("/etc/passwd"), "deep is a link"),
        (edit("golden.json", lambda golden: golden.update(predictions=[0.0] * 16)), "golden row .*: expected 0, got"),
        (edit("golden.json", lambda golden: golden.update(predictions=[1.0])), "golden.json has 16 rows and 1 predictions"),
        (edit("golden.json", lambda golden: golden.clear()), "KeyError"),
        (lambda folder: (folder / "members/0/arrays.npz").write_bytes(b"no archive"), "arrays.npz|ValueError"),
        (edit("schema.json", lambda schema: schema.update(format=99)), "format is 99; this program reads 1"),
        (edit("combine.json", lambda combine: combine.update(method="vote")), "combine.json says .*vote"),
        (edit("members/0/features.json", lambda state: state.update(blocks=[{"block": "magic"}])), "block 'magic' is not known"),
        (pickled, "pickle"),
        (lambda folder: (folder / "members/0/model.onnx").write_bytes(b"no graph"), "[Pp]rotobuf"),
        (lambda folder: (folder / "card.json").write_text("{"), "JSONDecodeError"),
    ],
)
def test_what_is_wrong_is_refused_though_its_sums_are_right(folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(folder)
    sum_again(folder)
    with pytest.raises(BundleError, match=message):
        Bundle.read(folder)


def test_writing_over_a_bundle_fails_and_leaves_it_whole(bundle: Bundle, folder: Path) -> None:
    with pytest.raises(OSError):
        bundle.write(folder)
    Bundle.read(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_the_pyfunc_loader_takes_frames_and_refuses_what_the_schema_refuses(bundle: Bundle, folder: Path, rentals: Table) -> None:
    model = bundle_module._load_pyfunc(str(folder))  # pylint: disable=protected-access  # MLflow's name for it
    frame = rentals_frame().drop(columns="rent")
    np.testing.assert_array_equal(model.predict(frame), bundle.predict(rentals.matrix))
    with pytest.raises(TableError, match="row 3, quarter: 'moon' is not a category"):
        model.predict(frame.assign(quarter=["hills"] * 3 + ["moon"] * (len(frame) - 3)))


def test_nothing_in_a_bundle_is_a_pickle(folder: Path) -> None:
    with np.load(io.BytesIO((folder / "members/0/arrays.npz").read_bytes()), allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiub" for name in arrays)
