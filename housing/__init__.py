"""Experiments on tables: Hydra composes them, MLflow tracks them, the best is promoted and served."""

import os

# ONNX Runtime tells its makers what is used, unless this is said before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
