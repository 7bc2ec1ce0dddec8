"""Program that fits decision trees in a bare joblib loop, without this project: TABLE N_JOBS N_PROCESSES."""

import sys

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeRegressor

if __name__ == "__main__":
    path, n_jobs, n_processes = sys.argv[1:]
    frame = pd.read_csv(path)
    X, y = frame.iloc[:, :-1].to_numpy(), frame.iloc[:, -1].to_numpy()
    rest, test = train_test_split(np.arange(len(y)), test_size=0.2, random_state=42)
    train, valid = train_test_split(rest, test_size=0.2, random_state=42)

    def fit(min_samples_leaf: int) -> tuple[int, float, float]:
        """Fit one tree; return its leaf size, RMSE and MAE on validation rows."""
        tree = DecisionTreeRegressor(max_depth=12, min_samples_leaf=min_samples_leaf, random_state=0).fit(X[train], y[train])
        error = tree.predict(X[valid]) - y[valid]
        return min_samples_leaf, float(np.sqrt(np.mean(error**2))), float(np.mean(np.abs(error)))

    print(Parallel(n_jobs=int(n_processes))(delayed(fit)(leaf) for leaf in range(1, 1 + int(n_jobs))))
