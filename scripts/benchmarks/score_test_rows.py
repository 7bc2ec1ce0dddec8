"""Program that scores a run on the test rows of a split: RUN_ID [OVERRIDE ...]. It runs in a process and store of its own."""

import json
import sys

import numpy as np
from hydra import compose, initialize_config_dir

from housing.bundle.bundle import Bundle
from housing.core.config import CONF
from housing.data import table as data
from housing.data.split import split
from housing.scoring.metrics import score
from housing.tracking import store as tracking
from housing.tracking import tags


def main() -> None:
    """Print the scores as JSON."""
    run_id, *overrides = sys.argv[1:]
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("promote", overrides)
    store, table = tracking.connect(cfg.mlflow), data.load(cfg.data)
    test = split(table, cfg.split).test
    matrix, actual = table.matrix[test], table.target[test]
    with store.artifacts.bundle("models:/" + store.runs.get(run_id).tags[tags.MODEL_ID]) as directory:
        bundle = Bundle.read(directory)
    scores = score(bundle.predict(matrix), actual, None)
    if bundle.interval is not None:
        _, lower, upper = bundle.predict_interval(matrix, 0.9)
        inside = (lower <= actual) & (actual <= upper)
        quintiles = np.array_split(np.argsort(matrix[:, table.schema.index("MedInc")]), 5)
        scores |= {
            "coverage": float(inside.mean()),
            "least": float(min(inside[rows].mean() for rows in quintiles)),
            "width": float((upper - lower).mean()),
        }
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
