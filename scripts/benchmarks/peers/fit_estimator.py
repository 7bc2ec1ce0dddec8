"""Program that fits the estimator of a config alone and pickles it: FILE [OVERRIDE ...]."""

import pickle
import sys

from hydra import compose, initialize_config_dir

from housing.core.config import CONF, instantiate
from housing.data import table as data
from housing.data.split import split


def main() -> None:
    """Fit on the training rows and write the pickle."""
    file, *overrides = sys.argv[1:]
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", overrides)
    table = data.load(cfg.data)
    train = split(table, cfg.split).train
    with open(file, "wb") as stream:
        pickle.dump(instantiate(cfg.model.estimator).fit(table.matrix[train], table.target[train]), stream)


if __name__ == "__main__":
    main()
