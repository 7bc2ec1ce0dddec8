"""The bundle: a folder that holds all that prediction needs, and nothing that can run code.

    schema.json                 the columns (housing.schema)
    features/<n>/features.json  the blocks as declared, and the names of what they give
    features/<n>/arrays.npz     what the blocks learned
    members/<n>/model.onnx      an estimator
    ensemble.json, ensemble.npz   which features each member sees, and how the members become one prediction
    interval.npz, interval.onnx how far predictions are off, and the model of it; only where the run made intervals
    reference.json              training share of each bin of each column and of the prediction, and their ends
    card.json                   what the run knew when it made the bundle
    golden.json                 rows with the predictions that this bundle must give
    background.npz              training rows that stand for all: what a prediction is explained against
    SHA256SUMS                  the sum of every other file, as sha256sum writes them

The same folder lies in the run, in the registry, in batch prediction and in the server.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from housing.bundle.conformal import Interval
from housing.bundle.ensemble import Ensemble, Estimator, restore_ensemble
from housing.bundle.file_format import (
    BACKGROUND_ARRAYS,
    CHECKSUMS,
    ENSEMBLE_ARRAYS,
    FORMAT,
    INTERVAL_FILES,
    MEMBER_MODEL,
    SHARED_FILES,
    check_files,
    is_number,
    list_files,
    list_numbered_dirs,
    make_numbered_dirs,
    read_arrays,
    validate_card,
    write_arrays,
    write_json,
)
from housing.bundle.onnx_model import OnnxModel
from housing.core.errors import BundleError
from housing.core.files import sha256
from housing.features.pipeline import Features
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

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
        return predicted, *self.interval.bounds(self.schema, columns, predicted, coverage)

    def select_golden_rows(self, matrix: Matrix, count: int) -> None:
        """Keep `count` of the rows, spread over the range of predictions, with what this bundle says of them."""
        order = np.argsort(self.predict(matrix), kind="stable")
        rows = matrix[order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]]
        said = {name: values.tolist() for name, values in self.predict_with_interval(rows).items()}
        self.golden = {"rows": self.schema.decode(rows), **said}

    def predict_with_interval(self, rows: Matrix) -> dict[str, Vector]:
        """Give predictions, and interval ends where there are any."""
        if self.interval is None:
            return {"predictions": self.predict(rows)}
        names = ("predictions", "lower", "upper")
        return dict(zip(names, self.predict_interval(rows, self._golden_coverage()), strict=True))

    def _golden_coverage(self) -> float:
        return min(GOLDEN_COVERAGE, self.interval.max_coverage) if self.interval else GOLDEN_COVERAGE

    def write(self, folder: Path) -> None:
        """Write the bundle as `folder`, whole or not at all."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            self._write_files(partial)
            (partial / CHECKSUMS).write_text(
                "".join(f"{sha256(partial / name)}  {name}\n" for name in list_files(partial)), encoding="utf-8"
            )
            partial.chmod(0o755)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def _write_files(self, folder: Path) -> None:
        shared = {
            "schema.json": {"format": FORMAT, **self.schema.to_dict()},
            "ensemble.json": self.ensemble.to_config(),
            "reference.json": self.reference,
            "card.json": self.card,
            "golden.json": self.golden,
        }
        for name, content in shared.items():
            write_json(folder / name, content)
        write_arrays(folder / ENSEMBLE_ARRAYS, {} if self.ensemble.applicability is None else self.ensemble.applicability.arrays)
        write_arrays(folder / BACKGROUND_ARRAYS, {"rows": self.background})
        for home, features in make_numbered_dirs(folder / "features", self.ensemble.features):
            declared, arrays = features.state()
            write_json(home / "features.json", declared)
            write_arrays(home / "arrays.npz", arrays)
        for home, member in make_numbered_dirs(folder / "members", self.ensemble.members):
            (home / MEMBER_MODEL).write_bytes(_onnx_bytes(member.estimator))
        if self.interval is not None:
            write_arrays(folder / INTERVAL_FILES[0], self.interval.arrays)
            (folder / INTERVAL_FILES[1]).write_bytes(_onnx_bytes(self.interval.error_model))

    @classmethod
    def read(cls, folder: Path, model_type: Callable[[bytes], OnnxModel] = OnnxModel) -> Self:
        """Read a bundle, and prove it: files, sums, then golden rows. `estimator` makes of each graph what runs it.

        Raises BundleError, which names the file and what is wrong with it.
        """
        try:
            check_files(folder)
            bundle = cls._assemble(folder, model_type)
            bundle.verify_golden()
        except BundleError as error:
            raise BundleError(f"bundle {folder}: {error}") from error
        except Exception as error:  # a file can be wrong in any way, and onnxruntime's errors share no other base
            raise BundleError(f"bundle {folder}: {type(error).__name__}: {error}") from error
        return bundle

    @classmethod
    def _assemble(cls, folder: Path, model_type: Callable[[bytes], OnnxModel]) -> Self:
        shared = {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in SHARED_FILES}
        if shared["schema.json"].get("format") != FORMAT:
            raise BundleError(f"format is {shared['schema.json'].get('format')!r}; this program reads {FORMAT}")
        schema = Schema.from_dict(shared["schema.json"])
        _validate_reference(schema, shared["reference.json"])
        validate_card(shared["card.json"])
        features = [_read_features(schema, home) for home in list_numbered_dirs(folder / "features")]
        graphs: list[Estimator] = [
            model_type((home / MEMBER_MODEL).read_bytes()) for home in list_numbered_dirs(folder / "members")
        ]
        ensemble = restore_ensemble(schema, features, graphs, shared["ensemble.json"], read_arrays(folder / ENSEMBLE_ARRAYS))
        background = _read_background(schema, folder / BACKGROUND_ARRAYS)
        interval = None
        if (folder / INTERVAL_FILES[0]).is_file():
            interval = Interval(read_arrays(folder / INTERVAL_FILES[0]), model_type((folder / INTERVAL_FILES[1]).read_bytes()))
        return cls(ensemble, shared["reference.json"], shared["card.json"], shared["golden.json"], background, interval)

    def verify_golden(self) -> None:
        """Predict the golden rows again. Raises BundleError where a prediction differs."""
        for name, got in self.predict_with_interval(self.schema.encode_records(self.golden["rows"])).items():
            self._assert_close(name, np.array(self.golden[name], dtype=np.float64), got)

    def verify_predictions(self, got: Vector) -> None:
        """Compare what somebody else predicts for the golden rows. Raises BundleError where a prediction differs."""
        self._assert_close("predictions", np.array(self.golden["predictions"], dtype=np.float64), got)

    def _assert_close(self, name: str, expected: Vector, got: Vector) -> None:
        if got.shape != expected.shape or not expected.size:
            raise BundleError(f"golden.json has {len(got)} rows and {len(expected)} {name}; allowed: as many, and some")
        off = np.abs(got - expected)
        allowed = GOLDEN_TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-12)
        if not np.all(off <= allowed):
            row = int(np.argmax(off))
            raise BundleError(f"golden row {row}: expected {expected[row]:.6g}, got {got[row]:.6g}")

    def size_bytes(self) -> int:
        """Bytes of the estimators' graphs and the features' arrays."""
        arrays = (array for features in self.ensemble.features for array in features.state()[1].values())
        return sum(len(_onnx_bytes(member.estimator)) for member in self.ensemble.members) + sum(array.nbytes for array in arrays)


def _onnx_bytes(estimator: Estimator) -> bytes:
    assert isinstance(estimator, OnnxModel)  # in a bundle it is
    return estimator.graph


def _read_features(schema: Schema, home: Path) -> Features:
    declared = json.loads((home / "features.json").read_text(encoding="utf-8"))
    return Features.restore(schema, declared, read_arrays(home / "arrays.npz"))


def _read_background(schema: Schema, path: Path) -> Matrix:
    """Give the background rows. Raises BundleError for rows that are none of this schema's matrix."""
    rows = read_arrays(path).get("rows")
    if rows is None or rows.dtype != np.float64 or rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != len(schema.features):
        found = "no array rows" if rows is None else f"{rows.dtype} of shape {rows.shape}"
        raise BundleError(f"{path.name} has {found}; allowed: float64 of shape (at least 1, {len(schema.features)})")
    for row, record in enumerate(schema.decode(rows)):
        same = np.array_equal(schema.encode_records([record])[0], rows[row], equal_nan=True)
        if not same or any(column.validate(record[column.name]) for column in schema.features):
            raise BundleError(f"{path.name}: row {row} holds what the schema does not allow")
    return rows


def _validate_reference(schema: Schema, reference: Mapping[str, Any]) -> None:
    """Raise BundleError where bins are not whole, and KeyError where a column has none."""
    bins = {column.name: reference["columns"][column.name] for column in schema.features}
    for name, found in {**bins, "the prediction": reference["prediction"]}.items():
        missing = {"edges", "shares", "missing", "lowest", "highest"} - found.keys()
        if missing or len(found["shares"]) != len(found["edges"]) + 1:
            raise BundleError(f"reference.json: the bins of {name} lack {', '.join(sorted(missing)) or 'a share'}")
        ends = [found["lowest"], found["highest"]]
        numbers = [*found["edges"], *found["shares"], found["missing"], *(ends if ends != [None, None] else ())]
        if not all(map(is_number, numbers)):
            raise BundleError(f"reference.json: the bins of {name} hold what is no number; allowed: null for both ends, if none")
