"""Fitting of text projections: a truncated singular value decomposition of the n-grams of training texts."""

from collections.abc import Iterable

import numpy as np

from housing.schema.text_projection import N_BUCKETS, TextProjection, weigh

MAX_ROWS = 20_000  # that the decomposition is computed from, spread evenly over the table; more take longer and change little
SEED = 0  # of the randomised decomposition


def fit_projection(texts: Iterable[str | None], n_components: int) -> TextProjection:
    """Return the projection on the directions that explain most of the texts. Missing texts do not count.

    Directions that the texts do not span are 0. Halko, Martinsson and Tropp, "Finding Structure with Randomness", SIAM Review 53
    (2011) 217-288.
    """
    from scipy.sparse import csr_array  # pylint: disable=import-outside-toplevel  # tables without texts do not need them
    from sklearn.utils.extmath import randomized_svd  # pylint: disable=import-outside-toplevel

    present = [text for text in texts if text is not None]
    fitted = present[:: -(-len(present) // MAX_ROWS) or 1]
    buckets = [weigh(text, np.ones(N_BUCKETS))[0] for text in fitted]
    n_texts = np.bincount(np.concatenate([*buckets, np.empty(0, dtype=np.intp)]), minlength=N_BUCKETS)
    idf = np.log((1 + len(fitted)) / (1 + n_texts)) + 1
    components = np.zeros((N_BUCKETS, n_components))
    rank = min(n_components, len(fitted))
    if n_texts.any():
        weights = np.concatenate([weigh(text, idf)[1] for text in fitted])
        ends = np.cumsum([0, *map(len, buckets)])
        matrix = csr_array((weights, np.concatenate(buckets), ends), shape=(len(fitted), N_BUCKETS))
        components[:, :rank] = randomized_svd(matrix, rank, random_state=SEED)[2].T
    return TextProjection(idf, components)
