"""Greedy ensemble selection with replacement.

Caruana, Niculescu-Mizil, Crew, Ksikes, "Ensemble Selection from Libraries of Models", Proceedings of the 21st International
Conference on Machine Learning (2004).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Matrix, Vector

N_STEPS = 40
MIN_GAIN = 1e-6  # relative: a smaller gain does not justify one more member

Loss = Callable[[Vector], float]  # of predictions, shape (rows,)


def select_ensemble(predictions: Matrix, loss: Loss, costs: Matrix, limits: Vector) -> NDArray[np.intp]:
    """Return how often each candidate is in the ensemble whose mean prediction has the lowest loss.

    Each step adds the candidate that lowers the loss of the mean most, also if it is in the ensemble already. The result is the
    best ensemble among those of all steps, so it is never worse than the best candidate.

    Parameters
    ----------
    predictions
        Out-of-fold predictions of the candidates, shape (candidates, rows).
    loss
        Lower is better.
    costs
        What each candidate costs if it is in the ensemble, shape (candidates, limits).
    limits
        The largest sums of the costs of an ensemble's members.

    Returns
    -------
    counts
        Shape (candidates,). All are 0 if the costs of each candidate exceed a limit.
    """
    counts = np.zeros(len(predictions), dtype=np.intp)
    best, best_loss, total = counts.copy(), np.inf, np.zeros(predictions.shape[1])
    for step in range(1, N_STEPS + 1):
        losses = [
            loss((total + prediction) / step) if _is_affordable(counts, index, costs, limits) else np.inf
            for index, prediction in enumerate(predictions)
        ]
        added = int(np.argmin(losses))
        if not np.isfinite(losses[added]):
            break
        counts[added] += 1
        total += predictions[added]
        if not best.any() or losses[added] < best_loss - MIN_GAIN * abs(best_loss):
            best, best_loss = counts.copy(), losses[added]
    return best


def _is_affordable(counts: NDArray[np.intp], index: int, costs: Matrix, limits: Vector) -> bool:
    members = counts > 0
    members[index] = True
    return bool((costs[members].sum(axis=0) <= limits).all())
