"""Model bundle: a directory with everything that prediction needs and nothing that can run code.

    schema.json                  the columns of the table, and the version of this format
    features/<n>/features.json   config of a feature pipeline, and the names of its columns
    features/<n>/arrays.npz      fitted state of its blocks
    members/<n>/model.onnx       an estimator of the ensemble
    ensemble.json, ensemble.npz  features, region and weight of each member, applicability domain, and transform of the target
    interval.npz, interval.onnx  conformal scores, model of the size of errors, factors of mean errors; if the run has intervals
    quantiles/<n>/model.onnx     models of the quantiles of the scores, if the run fitted them
    reference.json               histograms of the training rows and of the predictions
    card.json                    the model card: run, data, metrics, libraries
    golden.json                  rows with the predictions that this bundle must reproduce
    background.npz               representative training rows, the baseline of explanations, and a random sample of them
    text.npz                     what each text becomes, if a feature is a text
    SHA256SUMS                   checksums of all other files, as sha256sum prints them

Runs, the registry, batch prediction and servers all use the same directory.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.bundle.adaptation import Adaptation
from housing.bundle.array_files import read_arrays, write_arrays
from housing.bundle.conformal import ERROR_ESTIMATE, Calibration, Interval
from housing.bundle.ensemble import Ensemble, Estimator, in_chunks, restore_ensemble
from housing.bundle.error_estimate import ErrorEstimator
from housing.bundle.file_format import (
    BACKGROUND_ARRAYS,
    CHECKSUMS,
    ENSEMBLE_ARRAYS,
    FORMAT,
    INTERVAL_FILES,
    MEMBER_MODEL,
    QUANTILES,
    SHARED_FILES,
    TEXT_ARRAYS,
    check_files,
    check_format,
    is_number,
    list_files,
    list_numbered_dirs,
    make_numbered_dirs,
    reject_special_files,
    validate_card,
    write_json,
)
from housing.bundle.onnx_model import OnnxModel
from housing.core.errors import BundleError
from housing.core.files import sha256
from housing.features.pipeline import Features
from housing.schema.column import Column, Matrix, Vector
from housing.schema.table_schema import Schema
from housing.schema.text_columns import NO_TEXTS, Texts
from housing.schema.text_projection import TextProjection

GOLDEN_COVERAGE = 0.9  # of the golden intervals
# Engines round float32 sums differently on different processors. A wrong branch of a tree is an error a thousand times larger.
GOLDEN_TOLERANCE = 1e-4  # relative to the largest golden prediction
TEXT_TOLERANCE = 1e-6  # by which rounding moves a number of a text beyond 1


@dataclass
class Bundle:
    """A fitted model with its metadata.

    Attributes
    ----------
    ensemble
        The model.
    reference
        Histograms of the training rows and predictions, see `housing.schema.histogram`.
    card
        The model card.
    golden
        `rows` (records), `predictions` and, if there are intervals, `lower` and `upper`.
    background
        Representative training rows, shape (rows, features + components).
    interval
        Conformal intervals, or None if the run fitted none.
    sample
        A random sample of the training rows, shape (rows, features + components), or None if the run stored none. Monitoring
        compares the rows of requests with it.
    """

    ensemble: Ensemble
    reference: dict[str, Any]
    card: dict[str, Any]
    golden: dict[str, Any]
    background: Matrix
    interval: Interval | None = None
    sample: Matrix | None = None

    @property
    def schema(self) -> Schema:
        """The columns of the table."""
        return self.ensemble.schema

    def predict(self, matrix: Matrix) -> Vector:
        """Predict rows, shape (rows, features). The result, shape (rows,), is in the target's unit and within its bounds."""
        return self.ensemble.predict(matrix)

    def predict_interval(self, matrix: Matrix, coverage: float) -> tuple[Vector, Vector, Vector]:
        """Predict rows with intervals.

        Parameters
        ----------
        matrix
            Rows, shape (rows, features).
        coverage
            Expected share of targets within their intervals, between 0 and `interval.max_coverage`.

        Returns
        -------
        predictions, lower, upper
            Each of shape (rows,), in the target's unit.

        Raises
        ------
        BundleError
            If the run fitted no intervals.
        ConfigError
            If the coverage is out of range.
        """
        interval = self._require_interval()

        def predict(part: Matrix) -> tuple[Vector, ...]:
            predictions, columns = self.ensemble.predict_with_columns(part)
            return predictions, *interval.bounds(self.schema, columns, predictions, coverage)

        predictions, lower, upper = in_chunks(predict, matrix)
        return predictions, lower, upper

    def predict_quantiles(self, matrix: Matrix, levels: Sequence[float]) -> tuple[Vector, ...]:
        """Predict rows with quantiles of the target.

        Parameters
        ----------
        matrix
            Rows, shape (rows, features).
        levels
            Expected shares of targets below the quantiles, ascending.

        Returns
        -------
        predictions, *quantiles
            Each of shape (rows,), in the target's unit; one array of quantiles for each level.

        Raises
        ------
        BundleError
            If the run fitted no intervals.
        ConfigError
            If the levels do not ascend, or if the calibration rows do not support one of them.
        """
        interval = self._require_interval()

        def predict(part: Matrix) -> tuple[Vector, ...]:
            predictions, columns = self.ensemble.predict_with_columns(part)
            return predictions, *interval.quantiles(self.schema, columns, predictions, levels)

        return in_chunks(predict, matrix)

    def predict_error_sizes(self, matrix: Matrix) -> tuple[Vector, Vector]:
        """Predict rows, and the sizes of their errors for `Interval.error_estimator`; both of shape (rows,).

        Raises BundleError if the run fitted no intervals.
        """
        interval = self._require_interval()

        def predict(part: Matrix) -> tuple[Vector, ...]:
            predictions, columns = self.ensemble.predict_with_columns(part)
            return predictions, interval.error_sizes(columns, predictions)

        predictions, sizes = in_chunks(predict, matrix)
        return predictions, sizes

    def score_residuals(self, matrix: Matrix, actual: Vector, levels: Sequence[float]) -> Matrix:
        """Return how far the scores of rows with known targets are above their quantiles, see `Interval.residuals`.

        Raises BundleError if the run fitted no intervals.
        """
        interval = self._require_interval()

        def predict(part: Matrix) -> tuple[Vector, ...]:
            predictions, columns = self.ensemble.predict_with_columns(np.ascontiguousarray(part[:, :-1]))
            return tuple(interval.residuals(columns, predictions, part[:, -1], levels).T)

        return np.column_stack(in_chunks(predict, np.column_stack([matrix, actual])))

    def adapted(self, adaptation: Adaptation) -> Self:
        """Return the same model, whose intervals follow feedback. Raises BundleError if the run fitted none."""
        return replace(self, interval=self._require_interval().adapted(adaptation))

    def _require_interval(self) -> Interval:
        if self.interval is None:
            raise BundleError("The model has no intervals. Train it with interval=scaled.")
        return self.interval

    def select_golden_rows(self, matrix: Matrix, count: int, texts: Texts = NO_TEXTS) -> None:
        """Set `golden` to `count` of the rows, spread evenly over the sorted predictions. `texts` are those of the rows."""
        order = np.argsort(self.predict(matrix), kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
        predictions = {name: values.tolist() for name, values in self.predict_with_interval(matrix[chosen]).items()}
        chosen_texts = {name: [values[row] for row in chosen] for name, values in texts.items()}
        self.golden = {"rows": self.schema.decode(matrix[chosen], chosen_texts), **predictions}

    def predict_with_interval(self, rows: Matrix) -> dict[str, Vector]:
        """Return `predictions` and, if there are intervals, `lower` and `upper`; each of shape (rows,)."""
        if self.interval is None:
            return {"predictions": self.predict(rows)}
        names = ("predictions", "lower", "upper")
        return dict(zip(names, self.predict_interval(rows, self._golden_coverage()), strict=True))

    def _golden_coverage(self) -> float:
        return min(GOLDEN_COVERAGE, self.interval.max_coverage) if self.interval else GOLDEN_COVERAGE

    def write(self, folder: Path) -> None:
        """Write the bundle as a new directory, atomically. Raises OSError if `folder` exists and is not empty."""
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
        sample = {} if self.sample is None else {"sample": self.sample}
        write_arrays(folder / BACKGROUND_ARRAYS, {"rows": self.background, **sample})
        if self.schema.texts:
            write_arrays(folder / TEXT_ARRAYS, _projection_arrays(self.schema))
        for directory, features in make_numbered_dirs(folder / "features", self.ensemble.features):
            config, arrays = features.state()
            write_json(directory / "features.json", config)
            write_arrays(directory / "arrays.npz", arrays)
        for directory, member in make_numbered_dirs(folder / "members", self.ensemble.members):
            (directory / MEMBER_MODEL).write_bytes(_onnx_bytes(member.estimator))
        if self.interval is not None:
            write_arrays(folder / INTERVAL_FILES[0], self.interval.to_arrays())
            (folder / INTERVAL_FILES[1]).write_bytes(_onnx_bytes(self.interval.error_model))
            for directory, model in make_numbered_dirs(folder / QUANTILES, self.interval.quantile_models):
                (directory / MEMBER_MODEL).write_bytes(_onnx_bytes(model))

    @classmethod
    def read(cls, folder: Path, model_type: Callable[[bytes], OnnxModel] = OnnxModel) -> Self:
        """Read a bundle and verify its format, files, checksums, ONNX graphs and golden predictions.

        Every program that loads a bundle from a store does it here, so no engine reads a graph that the ONNX policy forbids.

        Parameters
        ----------
        folder
            The directory of the bundle.
        model_type
            Class that runs an ONNX graph.

        Raises
        ------
        BundleError
            With the file and what is wrong with it.
        """
        try:
            reject_special_files(folder)
            check_format(folder)
            check_files(folder)
            bundle = cls._assemble(folder, model_type)
            bundle.verify_golden()
        except BundleError as error:
            raise BundleError(f"Bundle {folder}: {error}") from error
        except Exception as error:  # damage has many forms, and onnxruntime's exceptions have no common base class
            raise BundleError(f"Bundle {folder}: {type(error).__name__}: {error}") from error
        return bundle

    @classmethod
    def _assemble(cls, folder: Path, model_type: Callable[[bytes], OnnxModel]) -> Self:
        shared = {name: json.loads((folder / name).read_text(encoding="utf-8")) for name in SHARED_FILES}
        schema = _read_projections(Schema.from_dict(shared["schema.json"]), folder / TEXT_ARRAYS)
        _validate_reference(schema, shared["reference.json"])
        validate_card(shared["card.json"])
        features = [_read_features(schema, directory) for directory in list_numbered_dirs(folder / "features")]
        members = list_numbered_dirs(folder / "members")
        models: list[Estimator] = [_read_model(folder, directory / MEMBER_MODEL, model_type) for directory in members]
        ensemble = restore_ensemble(schema, features, models, shared["ensemble.json"], read_arrays(folder / ENSEMBLE_ARRAYS))
        background, sample = _read_background(schema, folder / BACKGROUND_ARRAYS)
        interval = _read_interval(folder, model_type, is_relative=ensemble.transform is not None)
        return cls(ensemble, shared["reference.json"], shared["card.json"], shared["golden.json"], background, interval, sample)

    def verify_golden(self) -> None:
        """Predict the golden rows. Raises BundleError if a prediction differs from the stored one."""
        for name, actual in self.predict_with_interval(self.schema.encode_records(self.golden["rows"])).items():
            self._assert_close(name, np.array(self.golden[name], dtype=np.float64), actual)

    def verify_predictions(self, actual: Vector) -> None:
        """Compare predictions of the golden rows from another program. Raises BundleError if one differs from the stored one."""
        self._assert_close("predictions", np.array(self.golden["predictions"], dtype=np.float64), actual)

    @staticmethod
    def _assert_close(name: str, expected: Vector, actual: Vector) -> None:
        if actual.shape != expected.shape or not expected.size:
            raise BundleError(
                f"golden.json must have as many {name} as rows, at least 1 (got {len(expected)} and {len(actual)})."
            )
        difference = np.abs(actual - expected)
        tolerance = GOLDEN_TOLERANCE * max(float(np.abs(expected).max(initial=0.0)), 1e-12)
        if not np.all(difference <= tolerance):
            row = int(np.argmax(difference))
            raise BundleError(
                f"Golden row {row}: {name} must be {expected[row]:.6g} as at training time (got {actual[row]:.6g})."
            )

    def size_bytes(self) -> int:
        """Return the size in bytes of the members' graphs, the fitted feature arrays and the projections of texts."""
        states = [_projection_arrays(self.schema), *(features.state()[1] for features in self.ensemble.features)]
        arrays = sum(array.nbytes for state in states for array in state.values())
        return arrays + sum(len(_onnx_bytes(member.estimator)) for member in self.ensemble.members)


def _onnx_bytes(estimator: Estimator) -> bytes:
    assert isinstance(estimator, OnnxModel)  # only estimators during training are of another class
    return estimator.graph


def _read_model(folder: Path, path: Path, model_type: Callable[[bytes], OnnxModel]) -> OnnxModel:
    try:
        return model_type(path.read_bytes())
    except BundleError as error:
        raise BundleError(f"{path.relative_to(folder)}: {error}") from error


def _read_interval(folder: Path, model_type: Callable[[bytes], OnnxModel], *, is_relative: bool) -> Interval | None:
    """Return the intervals, or None if the run fitted none. Raises BundleError if levels and models do not match."""
    if not (folder / INTERVAL_FILES[0]).is_file():
        return None
    arrays = read_arrays(folder / INTERVAL_FILES[0])
    calibration = Calibration.from_arrays(arrays)
    paths = [directory / MEMBER_MODEL for directory in list_numbered_dirs(folder / QUANTILES)]
    if calibration.quantiles.shape != (len(calibration) if paths else 0, len(paths)) or len(calibration.levels) != len(paths):
        raise BundleError(
            f"{INTERVAL_FILES[0]} must have a level and a quantile of each row for each quantile model"
            f" (got {len(calibration.levels)} levels, quantiles of shape {calibration.quantiles.shape} and {len(paths)} models)."
        )
    error_model, *quantile_models = (_read_model(folder, path, model_type) for path in (folder / INTERVAL_FILES[1], *paths))
    estimator = ErrorEstimator.from_array(arrays[ERROR_ESTIMATE]) if ERROR_ESTIMATE in arrays else None
    return Interval(calibration, error_model, quantile_models, is_relative=is_relative, error_estimator=estimator)


def _read_features(schema: Schema, directory: Path) -> Features:
    state = json.loads((directory / "features.json").read_text(encoding="utf-8"))
    return Features.restore(schema, state, read_arrays(directory / "arrays.npz"))


def _projection_arrays(schema: Schema) -> dict[str, NDArray[Any]]:
    parts = [schema.projections[name].to_arrays(str(index)) for index, name in schema.texts.names.items()]
    return {name: array for part in parts for name, array in part.items()}


def _read_projections(schema: Schema, path: Path) -> Schema:
    """Return a schema with its stored projections of texts. Raises BundleError unless each text has a valid one."""
    if path.is_file() != bool(schema.texts):
        raise BundleError(f"{path.name} must be there if and only if a feature is a text (got {len(schema.texts)} texts).")
    if not schema.texts:
        return schema
    arrays = read_arrays(path)
    try:
        projections = {
            name: TextProjection.from_arrays(str(index), arrays, len(schema.texts.components[index]))
            for index, name in schema.texts.names.items()
        }
    except BundleError as error:
        raise BundleError(f"{path.name}: {error}") from error
    return replace(schema, projections=projections)


def _read_background(schema: Schema, path: Path) -> tuple[Matrix, Matrix | None]:
    """Return the background rows, shape (rows, features), and the sample of training rows if there is one.

    Raises BundleError if the background rows violate the schema, or if the sample has another shape.
    """
    arrays, owners = read_arrays(path), schema.texts.owners
    rows, sample = arrays.get("rows"), arrays.get("sample")
    for name, array in {"rows": rows, **({} if sample is None else {"sample": sample})}.items():
        if array is None or array.dtype != np.float64 or array.ndim != 2 or len(array) == 0 or array.shape[1] != len(owners):
            actual = "no array of that name" if array is None else f"{array.dtype}, shape {array.shape}"
            raise BundleError(f"{path.name}: {name} must be float64, shape (at least 1, {len(owners)}) (got {actual}).")
    assert rows is not None
    others = [column for column in schema.features if not column.is_free_text]
    is_text = np.isin(owners, list(schema.texts.names))
    for row, record in enumerate(schema.decode(rows)):
        is_same = np.array_equal(schema.encode_records([record])[0, ~is_text], rows[row, ~is_text], equal_nan=True)
        if not is_same or any(column.validate(record[column.name]) for column in others):
            raise BundleError(f"{path.name}: row {row} violates the schema (got {record}).")
    for index in schema.texts.names:
        _validate_text_numbers(schema.features[index], rows[:, owners == index], path.name)
    return rows, sample


def _validate_text_numbers(column: Column, numbers: Matrix, file: str) -> None:
    """Raise BundleError unless numbers of texts, shape (rows, 1 + components), are those of a present or a missing text."""
    is_missing = np.isnan(numbers).all(axis=1)
    is_present = np.isfinite(numbers).all(axis=1) & (np.abs(numbers) <= 1 + TEXT_TOLERANCE).all(axis=1)
    if not (is_present | (is_missing & column.nullable)).all():
        raise BundleError(f"{file}: column {column.name} must have numbers from -1 to 1, or only NaN if it is nullable.")


def _validate_reference(schema: Schema, reference: Mapping[str, Any]) -> None:
    """Raise BundleError if a histogram or a contribution is invalid, and KeyError if a column has no histogram."""
    histograms = {column.name: reference["columns"][column.name] for column in schema.features}
    for name, histogram in {**histograms, "the prediction": reference["prediction"]}.items():
        missing = {"edges", "shares", "missing", "lowest", "highest"} - histogram.keys()
        if missing or len(histogram["shares"]) != len(histogram["edges"]) + 1:
            raise BundleError(f"reference.json: the histogram of {name} lacks {', '.join(sorted(missing)) or 'a share'}.")
        extremes = [histogram["lowest"], histogram["highest"]]
        numbers = [*histogram["edges"], *histogram["shares"], histogram["missing"]]
        numbers += [] if extremes == [None, None] else extremes
        if not all(map(is_number, numbers)):
            raise BundleError(
                f"reference.json: the histogram of {name} must hold finite numbers; only lowest and highest may both be null."
            )
    contributions = reference.get("contributions", {})
    if contributions and (contributions.keys() != reference["columns"].keys() or not all(map(is_number, contributions.values()))):
        raise BundleError("reference.json: contributions must have a finite number for each column.")
