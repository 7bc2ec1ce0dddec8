"""The bundle: a folder that holds all that prediction needs, and nothing that can run code.

    schema.json                the columns (housing.schema)
    members/<n>/features.json  the blocks as declared, and the names of what they give
    members/<n>/arrays.npz     what the blocks learned
    members/<n>/model.onnx     the estimator
    combine.json               how the members become one prediction
    reference.json             training share of each bin of each column and of the prediction
    card.json                  what the run knew when it made the bundle
    golden.json                rows with the predictions that this bundle must give
    SHA256SUMS                 the sum of every other file, as sha256sum writes them

The same folder lies in the run, in the registry, in batch prediction and in the server.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime

from housing.errors import BundleError
from housing.features import Features
from housing.files import sha256
from housing.schema import Matrix, Schema, Vector

FORMAT = 1
SUMS = "SHA256SUMS"
SHARED_FILES = ("schema.json", "combine.json", "reference.json", "card.json", "golden.json")
MEMBER_FILES = ("features.json", "arrays.npz", "model.onnx")
COMBINE = {"method": "mean"}
# Engines round float32 sums differently on different processors; a wrong branch of a tree is a thousand times larger.
GOLDEN_TOLERANCE = 1e-4  # relative to the largest golden prediction


@dataclass
class Member:
    """Features and an estimator in a row."""

    features: Features
    graph: bytes

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._dtype = np.float64 if "double" in self._session.get_inputs()[0].type else np.float32

    def predict(self, matrix: Matrix) -> Vector:
        """Give one number for each row of the schema's matrix."""
        return self.estimate(self.features.transform(matrix))

    def estimate(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of what the features gave."""
        return self._session.run(None, {self._input: columns.astype(self._dtype)})[0].reshape(-1).astype(np.float64)


@dataclass
class Bundle:
    """A model that can predict: the mean of its members, held within the target's bounds."""

    schema: Schema
    members: list[Member]
    reference: dict[str, Any]
    card: dict[str, Any]
    golden: dict[str, Any]

    def predict(self, matrix: Matrix) -> Vector:
        """Predict each row of the schema's matrix, in the target's unit."""
        return within(self.schema, np.mean([member.predict(matrix) for member in self.members], axis=0))

    def pick_golden(self, matrix: Matrix, count: int) -> None:
        """Keep `count` of the rows, spread over the range of predictions, with what this bundle predicts for them."""
        order = np.argsort(self.predict(matrix), kind="stable")
        rows = matrix[order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]]
        self.golden = {"rows": self.schema.decode(rows), "predictions": self.predict(rows).tolist()}

    def write(self, folder: Path) -> None:
        """Write the bundle as `folder`, whole or not at all."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            self._write_files(partial)
            (partial / SUMS).write_text(
                "".join(f"{sha256(partial / name)}  {name}\n" for name in _files(partial)), encoding="utf-8"
            )
            partial.chmod(0o755)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _write_files(self, folder: Path) -> None:
        shared = {
            "schema.json": {"format": FORMAT, **self.schema.to_dict()},
            "combine.json": COMBINE,
            "reference.json": self.reference,
            "card.json": self.card,
            "golden.json": self.golden,
        }
        for name, content in shared.items():
            _write_json(folder / name, content)
        for place, member in enumerate(self.members):
            home = folder / "members" / str(place)
            home.mkdir(parents=True)
            declared, arrays = member.features.state()
            _write_json(home / "features.json", declared)
            np.savez(home / "arrays.npz", **arrays)  # type: ignore[arg-type]
            (home / "model.onnx").write_bytes(member.graph)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a bundle, and prove it: files, sums, then golden rows.

        Raises BundleError, which names the file and what is wrong with it.
        """
        try:
            _check_files(folder)
            bundle = cls._assemble(folder)
            bundle.check_golden()
        except BundleError as error:
            raise BundleError(f"bundle {folder}: {error}") from error
        except Exception as error:  # a file can be wrong in any way, and onnxruntime's errors share no other base
            raise BundleError(f"bundle {folder}: {type(error).__name__}: {error}") from error
        return bundle

    @classmethod
    def _assemble(cls, folder: Path) -> Self:
        shared = {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in SHARED_FILES}
        if shared["schema.json"].get("format") != FORMAT:
            raise BundleError(f"format is {shared['schema.json'].get('format')!r}; this program reads {FORMAT}")
        if shared["combine.json"] != COMBINE:
            raise BundleError(f"combine.json says {shared['combine.json']}; allowed: {COMBINE}")
        schema = Schema.from_dict(shared["schema.json"])
        homes = sorted((folder / "members").iterdir(), key=lambda home: int(home.name))
        members = [_read_member(schema, home) for home in homes]
        return cls(schema, members, shared["reference.json"], shared["card.json"], shared["golden.json"])

    def check_golden(self) -> None:
        """Predict the golden rows again. Raises BundleError where a prediction differs."""
        expected = np.array(self.golden["predictions"], dtype=np.float64)
        got = self.predict(self.schema.encode_records(self.golden["rows"]))
        if got.shape != expected.shape or not expected.size:
            raise BundleError(f"golden.json has {len(got)} rows and {len(expected)} predictions; allowed: as many, and some")
        off = np.abs(got - expected)
        allowed = GOLDEN_TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-12)
        if not np.all(off <= allowed):
            row = int(np.argmax(off))
            raise BundleError(f"golden row {row}: expected {expected[row]:.6g}, got {got[row]:.6g}")

    def size(self) -> int:
        """Bytes of the estimators' graphs and the features' arrays."""
        arrays = (array for member in self.members for array in member.features.state()[1].values())
        return sum(len(member.graph) for member in self.members) + sum(array.nbytes for array in arrays)


def _read_member(schema: Schema, home: Path) -> Member:
    with np.load(home / "arrays.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    features = Features.restore(schema, json.loads((home / "features.json").read_text(encoding="utf-8")), arrays)
    return Member(features, (home / "model.onnx").read_bytes())


def _check_files(folder: Path) -> None:
    if not (folder / SUMS).is_file():
        raise BundleError(f"{SUMS} is missing")
    listed = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    present = _files(folder)
    members = sorted({name.split("/")[1] for name in present if name.startswith("members/")})
    expected = {*SHARED_FILES, *(f"members/{place}/{name}" for place in range(max(len(members), 1)) for name in MEMBER_FILES)}
    for what, names in (
        ("is missing", (expected | set(listed)) - set(present)),
        ("is not part of a bundle", set(present) - expected),
        (f"is not in {SUMS}", set(present) - set(listed)),
        ("does not have the sum that was written", {name for name in present if listed.get(name) != sha256(folder / name)}),
    ):
        if names:
            raise BundleError(f"{min(names)} {what}")


def _files(folder: Path) -> list[str]:
    """Names of all files below the folder but the sums, sorted. A link is refused: it may point anywhere."""
    names = []
    for home, folders, files in os.walk(folder):
        for name in folders + files:
            if (Path(home) / name).is_symlink():
                raise BundleError(f"{name} is a link")
        names += [(Path(home) / name).relative_to(folder).as_posix() for name in files]
    return sorted(set(names) - {SUMS})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


class _Pyfunc:
    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def predict(self, frame: Any, _params: Mapping[str, Any] | None = None) -> Vector:
        """Predict each row of a frame. Raises TableError for a frame that does not fit the schema."""
        return self._bundle.predict(self._bundle.schema.encode_frame(frame))


def within(schema: Schema, raw: Vector) -> Vector:
    """Hold predictions within the bounds of the target, where it has any."""
    target = schema.target
    return np.clip(raw, target.min, target.max) if (target.min, target.max) != (None, None) else raw


def _load_pyfunc(path: str) -> _Pyfunc:
    """Load for `mlflow.pyfunc`, which looks for this name."""
    return _Pyfunc(Bundle.read(Path(path)))
