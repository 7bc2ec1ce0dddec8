"""An estimator as an ONNX graph: trees are walked where the walker can, everything else runs in ONNX Runtime."""

import numpy as np

from housing.bundle.trees import Trees
from housing.core.errors import BundleError
from housing.schema.column import Matrix, Vector


class OnnxRuntimeModel:
    """An estimator that ONNX Runtime runs."""

    def __init__(self, graph: bytes) -> None:
        # a worker whose model is all trees needs neither its memory nor its start
        import onnxruntime  # pylint: disable=import-outside-toplevel

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._dtype = np.float64 if "double" in self._session.get_inputs()[0].type else np.float32

    def predict(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of its columns."""
        return self._session.run(None, {self._input: columns.astype(self._dtype)})[0].reshape(-1).astype(np.float64)


class OnnxModel:
    """An estimator as ONNX."""

    def __init__(self, graph: bytes) -> None:
        self.graph = graph
        self._trees = Trees.read(graph)
        self._engine = self._trees or OnnxRuntimeModel(graph)

    @property
    def uses_tree_walker(self) -> bool:
        """Whether the walker computes it, and not ONNX Runtime."""
        return self._trees is not None

    def predict(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of its columns."""
        return self._engine.predict(columns)


class VerifiedOnnxModel(OnnxModel):
    """An estimator that ONNX Runtime runs too where it is walked, to prove that it says the same."""

    def __init__(self, graph: bytes) -> None:
        super().__init__(graph)
        self._session = OnnxRuntimeModel(graph) if self.uses_tree_walker else None

    def predict(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of its columns. Raises BundleError where the two differ in one bit."""
        walked = super().predict(columns)
        if self._session is not None:
            expected = self._session.predict(columns)
            if walked.tobytes() != expected.tobytes():
                row = int(np.argmax(walked.view(np.int64) != expected.view(np.int64)))
                raise BundleError(
                    f"walked trees give {walked[row]:.9g}, ONNX Runtime {expected[row]:.9g}; allowed: no difference"
                )
        return walked
