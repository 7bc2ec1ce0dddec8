"""Experiments on tables: Hydra composes them, MLflow tracks them, the best is promoted and served."""

import gc
import os

# ONNX Runtime tells its makers what is used, unless this is said before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# New objects until Python looks for circles among them, where its own 700 are few: a fifth of what a command's start takes went
# into looking while MLflow was imported, and a third of a request of 1000 rows, which are lists and make no circle.
gc.set_threshold(50_000)
