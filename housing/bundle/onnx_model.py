"""ONNX models: the tree walker runs plain tree ensembles, ONNX Runtime runs all other graphs."""

import numpy as np

from housing.bundle import onnx_policy, onnx_reader
from housing.bundle.trees import Trees
from housing.core.errors import BundleError
from housing.schema.column import Matrix, Vector

BLOCK_ROWS = 512  # a model of nearest neighbours compares each of them with all training rows at once


class OnnxRuntimeModel:
    """A graph that ONNX Runtime runs on one thread."""

    def __init__(self, graph: bytes) -> None:
        # saves memory and start-up time in a worker whose graphs are all tree ensembles
        import onnxruntime  # pylint: disable=import-outside-toplevel

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._dtype = np.float64 if "double" in self._session.get_inputs()[0].type else np.float32

    def predict(self, columns: Matrix) -> Vector:
        """Predict rows, shape (rows, columns). The result has the shape (rows,)."""
        if len(columns) <= BLOCK_ROWS:
            return self._predict_block(columns)
        starts = range(0, len(columns), BLOCK_ROWS)
        return np.concatenate([self._predict_block(columns[start : start + BLOCK_ROWS]) for start in starts])

    def _predict_block(self, columns: Matrix) -> Vector:
        return self._session.run(None, {self._input: columns.astype(self._dtype)})[0].reshape(-1).astype(np.float64)


class OnnxModel:
    """A graph with the fastest engine that can run it.

    Attributes
    ----------
    graph
        The serialized ONNX model.

    Raises
    ------
    BundleError
        If the graph breaks the ONNX policy. No engine reads it then.
    """

    def __init__(self, graph: bytes) -> None:
        self.graph = graph
        model = onnx_reader.read_model(graph)
        onnx_policy.check_model(model, len(graph))
        self._trees = Trees.from_model(model)
        self._engine = self._trees or OnnxRuntimeModel(graph)

    @property
    def uses_tree_walker(self) -> bool:
        """Whether the tree walker runs the graph."""
        return self._trees is not None

    def predict(self, columns: Matrix) -> Vector:
        """Predict rows, shape (rows, columns). The result has the shape (rows,)."""
        return self._engine.predict(columns)


class ServedOnnxModel(OnnxModel):
    """A graph that only predicts. Its bytes are dropped once an engine has read them: more than half of the memory of a model."""

    def __init__(self, graph: bytes) -> None:
        super().__init__(graph)
        del self.graph


class VerifiedOnnxModel(OnnxModel):
    """A graph that runs in ONNX Runtime too if the tree walker runs it, to verify that both agree."""

    def __init__(self, graph: bytes) -> None:
        super().__init__(graph)
        self._session = OnnxRuntimeModel(graph) if self.uses_tree_walker else None

    def predict(self, columns: Matrix) -> Vector:
        """Predict rows as `OnnxModel` does. Raises BundleError if the engines differ in any bit."""
        predictions = super().predict(columns)
        if self._session is not None:
            require_equal(predictions, self._session.predict(columns))
        return predictions


def require_equal(walked: Vector, expected: Vector) -> None:
    """Raise BundleError if predictions of the tree walker differ in any bit from those of ONNX Runtime."""
    if walked.tobytes() != expected.tobytes():
        row = int(np.argmax(walked.view(np.int64) != expected.view(np.int64)))
        raise BundleError(
            f"The tree walker must agree with ONNX Runtime in every bit (got {walked[row]:.9g} instead of {expected[row]:.9g})."
        )
