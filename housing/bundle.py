"""The bundle: a folder that holds all that prediction needs, and nothing that can run code.

    schema.json                 the columns (housing.schema)
    features/<n>/features.json  the blocks as declared, and the names of what they give
    features/<n>/arrays.npz     what the blocks learned
    members/<n>/model.onnx      an estimator
    combine.json, combine.npz   which features each member sees, and how the members become one prediction
    interval.npz, interval.onnx how far predictions are off, and the model of it; only where the run made intervals
    reference.json              training share of each bin of each column and of the prediction, and their ends
    card.json                   what the run knew when it made the bundle
    golden.json                 rows with the predictions that this bundle must give
    background.npz              training rows that stand for all: what a prediction is explained against
    SHA256SUMS                  the sum of every other file, as sha256sum writes them

The same folder lies in the run, in the registry, in batch prediction and in the server.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.ensemble import Ensemble, Estimator, restored
from housing.errors import BundleError
from housing.features import Features
from housing.files import sha256
from housing.graph import Graph
from housing.interval import Interval
from housing.schema import Matrix, Schema, Vector

FORMAT = 4
SUMS = "SHA256SUMS"
SHARED_FILES = ("schema.json", "combine.json", "reference.json", "card.json", "golden.json")
COMBINE, BACKGROUND, GRAPH = "combine.npz", "background.npz", "model.onnx"
INTERVAL = ("interval.npz", "interval.onnx")
FEATURES_FILES = ("features.json", "arrays.npz")
GOLDEN_COVERAGE = 0.9
# Engines round float32 sums differently on different processors; a wrong branch of a tree is a thousand times larger.
GOLDEN_TOLERANCE = 1e-4  # relative to the largest golden prediction


@dataclass
class Bundle:
    """A model that can predict, with what it says of itself."""

    ensemble: Ensemble
    reference: dict[str, Any]
    card: dict[str, Any]
    golden: dict[str, Any]
    background: Matrix
    interval: Interval | None = None

    @property
    def schema(self) -> Schema:
        """The columns of the table."""
        return self.ensemble.schema

    def predict(self, matrix: Matrix) -> Vector:
        """Predict each row of the schema's matrix, in the target's unit, within its bounds."""
        return self.ensemble.predict(matrix)

    def predict_interval(self, matrix: Matrix, coverage: float) -> tuple[Vector, Vector, Vector]:
        """Predict, and give the lower and upper ends between which that share of the targets is expected.

        Raises BundleError where the run made no intervals, ConfigError for a coverage that cannot be had.
        """
        if self.interval is None:
            raise BundleError("this model has no intervals: it was trained with interval=none")
        predicted, columns = self.ensemble.predict_with_columns(matrix)
        return predicted, *self.interval.ends(self.schema, columns, predicted, coverage)

    def pick_golden(self, matrix: Matrix, count: int) -> None:
        """Keep `count` of the rows, spread over the range of predictions, with what this bundle says of them."""
        order = np.argsort(self.predict(matrix), kind="stable")
        rows = matrix[order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]]
        said = {name: values.tolist() for name, values in self.answers(rows).items()}
        self.golden = {"rows": self.schema.decode(rows), **said}

    def answers(self, rows: Matrix) -> dict[str, Vector]:
        """Give predictions, and interval ends where there are any."""
        if self.interval is None:
            return {"predictions": self.predict(rows)}
        names = ("predictions", "lower", "upper")
        return dict(zip(names, self.predict_interval(rows, self._golden_coverage()), strict=True))

    def _golden_coverage(self) -> float:
        return min(GOLDEN_COVERAGE, self.interval.most) if self.interval else GOLDEN_COVERAGE

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
            "combine.json": self.ensemble.declared(),
            "reference.json": self.reference,
            "card.json": self.card,
            "golden.json": self.golden,
        }
        for name, content in shared.items():
            _write_json(folder / name, content)
        _write_arrays(folder / COMBINE, {} if self.ensemble.reach is None else self.ensemble.reach.arrays)
        _write_arrays(folder / BACKGROUND, {"rows": self.background})
        for home, features in _homes(folder / "features", self.ensemble.features):
            declared, arrays = features.state()
            _write_json(home / "features.json", declared)
            _write_arrays(home / "arrays.npz", arrays)
        for home, member in _homes(folder / "members", self.ensemble.members):
            (home / GRAPH).write_bytes(_graph(member.estimator))
        if self.interval is not None:
            _write_arrays(folder / INTERVAL[0], self.interval.arrays)
            (folder / INTERVAL[1]).write_bytes(_graph(self.interval.scale))

    @classmethod
    def read(cls, folder: Path, estimator: Callable[[bytes], Graph] = Graph) -> Self:
        """Read a bundle, and prove it: files, sums, then golden rows. `estimator` makes of each graph what runs it.

        Raises BundleError, which names the file and what is wrong with it.
        """
        try:
            check_files(folder)
            bundle = cls._assemble(folder, estimator)
            bundle.check_golden()
        except BundleError as error:
            raise BundleError(f"bundle {folder}: {error}") from error
        except Exception as error:  # a file can be wrong in any way, and onnxruntime's errors share no other base
            raise BundleError(f"bundle {folder}: {type(error).__name__}: {error}") from error
        return bundle

    @classmethod
    def _assemble(cls, folder: Path, estimator: Callable[[bytes], Graph]) -> Self:
        shared = {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in SHARED_FILES}
        if shared["schema.json"].get("format") != FORMAT:
            raise BundleError(f"format is {shared['schema.json'].get('format')!r}; this program reads {FORMAT}")
        schema = Schema.from_dict(shared["schema.json"])
        _check_reference(schema, shared["reference.json"])
        _check_card(shared["card.json"])
        features = [_read_features(schema, home) for home in _numbered(folder / "features")]
        graphs: list[Estimator] = [estimator((home / GRAPH).read_bytes()) for home in _numbered(folder / "members")]
        ensemble = restored(schema, features, graphs, shared["combine.json"], _read_arrays(folder / COMBINE))
        background = _read_background(schema, folder / BACKGROUND)
        interval = None
        if (folder / INTERVAL[0]).is_file():
            interval = Interval(_read_arrays(folder / INTERVAL[0]), estimator((folder / INTERVAL[1]).read_bytes()))
        return cls(ensemble, shared["reference.json"], shared["card.json"], shared["golden.json"], background, interval)

    def check_golden(self) -> None:
        """Predict the golden rows again. Raises BundleError where a prediction differs."""
        for name, got in self.answers(self.schema.encode_records(self.golden["rows"])).items():
            self._check_same(name, np.array(self.golden[name], dtype=np.float64), got)

    def check_predictions(self, got: Vector) -> None:
        """Compare what somebody else predicts for the golden rows. Raises BundleError where a prediction differs."""
        self._check_same("predictions", np.array(self.golden["predictions"], dtype=np.float64), got)

    def _check_same(self, name: str, expected: Vector, got: Vector) -> None:
        if got.shape != expected.shape or not expected.size:
            raise BundleError(f"golden.json has {len(got)} rows and {len(expected)} {name}; allowed: as many, and some")
        off = np.abs(got - expected)
        allowed = GOLDEN_TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-12)
        if not np.all(off <= allowed):
            row = int(np.argmax(off))
            raise BundleError(f"golden row {row}: expected {expected[row]:.6g}, got {got[row]:.6g}")

    def size(self) -> int:
        """Bytes of the estimators' graphs and the features' arrays."""
        arrays = (array for features in self.ensemble.features for array in features.state()[1].values())
        return sum(len(_graph(member.estimator)) for member in self.ensemble.members) + sum(array.nbytes for array in arrays)


def _graph(estimator: Estimator) -> bytes:
    assert isinstance(estimator, Graph)  # in a bundle it is
    return estimator.graph


def _homes(folder: Path, parts: Sequence[Any]) -> Iterator[tuple[Path, Any]]:
    """Make a numbered folder for each part."""
    for place, part in enumerate(parts):
        home = folder / str(place)
        home.mkdir(parents=True)
        yield home, part


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda home: int(home.name))


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _read_features(schema: Schema, home: Path) -> Features:
    declared = json.loads((home / "features.json").read_text(encoding="utf-8"))
    return Features.restore(schema, declared, _read_arrays(home / "arrays.npz"))


def _read_background(schema: Schema, path: Path) -> Matrix:
    """Give the background rows. Raises BundleError for rows that are none of this schema's matrix."""
    rows = _read_arrays(path).get("rows")
    if rows is None or rows.dtype != np.float64 or rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != len(schema.features):
        found = "no array rows" if rows is None else f"{rows.dtype} of shape {rows.shape}"
        raise BundleError(f"{path.name} has {found}; allowed: float64 of shape (at least 1, {len(schema.features)})")
    for row, record in enumerate(schema.decode(rows)):
        same = np.array_equal(schema.encode_records([record])[0], rows[row], equal_nan=True)
        if not same or any(column.reason(record[column.name]) for column in schema.features):
            raise BundleError(f"{path.name}: row {row} holds what the schema does not allow")
    return rows


def _check_reference(schema: Schema, reference: Mapping[str, Any]) -> None:
    """Raise BundleError where bins are not whole, and KeyError where a column has none."""
    bins = {column.name: reference["columns"][column.name] for column in schema.features}
    for name, found in {**bins, "the prediction": reference["prediction"]}.items():
        missing = {"edges", "shares", "missing", "lowest", "highest"} - found.keys()
        if missing or len(found["shares"]) != len(found["edges"]) + 1:
            raise BundleError(f"reference.json: the bins of {name} lack {', '.join(sorted(missing)) or 'a share'}")
        ends = [found["lowest"], found["highest"]]
        numbers = [*found["edges"], *found["shares"], found["missing"], *(ends if ends != [None, None] else ())]
        if not all(map(_is_number, numbers)):
            raise BundleError(f"reference.json: the bins of {name} hold what is no number; allowed: null for both ends, if none")


def _check_card(card: Mapping[str, Any]) -> None:
    """Raise BundleError, KeyError or ValueError where the card does not say what a server tells of its model."""
    names, rmse = (card["run_id"], card["data"]["fingerprint"]), card["metrics"]["rmse"]
    if not all(isinstance(name, str) for name in names) or not _is_number(rmse):
        raise BundleError(
            f"card.json: run_id, data.fingerprint and metrics.rmse are {(*names, rmse)}; allowed: two texts, a number"
        )
    datetime.fromisoformat(card["created"]).timestamp()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def check_files(folder: Path) -> None:
    """Compare the files that are there with those of the format and with their sums. Raises BundleError."""
    if not (folder / SUMS).is_file():
        raise BundleError(f"{SUMS} is missing")
    listed = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    present = _files(folder)
    expected = {
        *SHARED_FILES,
        COMBINE,
        BACKGROUND,
        *_parts(present, "features", FEATURES_FILES),
        *_parts(present, "members", (GRAPH,)),
    }
    expected |= set(INTERVAL) if set(INTERVAL) & set(present) else set()
    for what, names in (
        ("is missing", (expected | set(listed)) - set(present)),
        ("is not part of a bundle", set(present) - expected),
        (f"is not in {SUMS}", set(present) - set(listed)),
        ("does not have the sum that was written", {name for name in present if listed.get(name) != sha256(folder / name)}),
    ):
        if names:
            raise BundleError(f"{min(names)} {what}")


def _parts(present: Sequence[str], kind: str, names: Sequence[str]) -> set[str]:
    """Give the files that the numbered folders of a kind must have: as many as there are, and one at least."""
    count = max(len({name.split("/")[1] for name in present if name.startswith(f"{kind}/")}), 1)
    return {f"{kind}/{place}/{name}" for place in range(count) for name in names}


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


def _load_pyfunc(path: str) -> _Pyfunc:
    """Load for `mlflow.pyfunc`, which looks for this name."""
    return _Pyfunc(Bundle.read(Path(path)))
