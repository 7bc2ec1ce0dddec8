"""Contributions of columns: the mean absolute Shapley value of each, by which monitoring weights the drift of a column."""

import numpy as np

from housing.bundle.bundle import Bundle
from housing.explanation.shapley import shapley_values
from housing.schema.column import Matrix

MAX_PREDICTIONS = 10_000  # some tenths of a second; a table of more than 600 columns takes more
MIN_ROWS, MAX_ROWS = 8, 64  # rows that are explained
ONE_PAIR = 0  # samples: an order of the columns and its reverse for each background row


def mean_contributions(bundle: Bundle, rows: Matrix) -> dict[str, float]:
    """Return the mean absolute Shapley value of each column over the first of some random rows, in the target's unit.

    The baseline are the first background rows, which represent the training rows best. A table with many columns gets fewer
    explained rows and fewer background rows, so that the number of predictions stays about the same.
    """
    columns, owners = bundle.schema.features, bundle.schema.texts.owners
    evaluations = 2 * (len(columns) + 1)  # of one row against one background row
    background = bundle.background[: max(MAX_PREDICTIONS // (MIN_ROWS * evaluations), 1)]
    count = int(np.clip(MAX_PREDICTIONS // (len(background) * evaluations), MIN_ROWS, MAX_ROWS))
    explained = [shapley_values(bundle.predict, row, background, owners, 0, ONE_PAIR).values for row in rows[:count]]
    return dict(zip((column.name for column in columns), np.abs(explained).mean(axis=0).tolist(), strict=True))
