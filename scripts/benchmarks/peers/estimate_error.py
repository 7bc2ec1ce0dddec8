"""Program of NannyML's direct loss estimation: FOLDER ROWS reads FOLDER/reference.csv and estimates FOLDER/windows.csv.

It runs in an environment of its own, without this project. Both files have the prediction as `predicted`, and
the first has the target as `actual`. ROWS is the number of rows of a window.
"""

# pylint: disable=import-error  # the library is installed in its own environment only

import json
import os
import sys
import time
from pathlib import Path

import pandas as pd

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"  # read at the import: nothing is sent

import nannyml  # pylint: disable=wrong-import-position

METRICS = ["mae", "rmse"]


def main() -> None:
    """Print the estimates of each window, and the seconds that they took."""
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    reference, windows = (pd.read_csv(folder / f"{name}.csv") for name in ("reference", "windows"))
    features = [name for name in windows if name != "predicted"]
    estimator = nannyml.DLE(
        feature_column_names=features,
        y_pred="predicted",
        y_true="actual",
        metrics=METRICS,
        chunk_size=rows,
        tune_hyperparameters=False,
    )
    estimator.fit(reference)
    start = time.process_time()
    result = estimator.estimate(windows).filter(period="analysis").to_df()
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, **{metric: result[metric, "value"].tolist() for metric in METRICS}}))


if __name__ == "__main__":
    main()
