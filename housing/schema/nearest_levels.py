"""The levels of a category that resemble a value, for messages."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence

N_NEAREST = 3
N_CANDIDATES = 100  # levels with the most pairs in common, of which the nearest are chosen


class NearestLevels:
    """An index of levels by their pairs of letters, so that a search among 100,000 levels takes milliseconds."""

    def __init__(self, levels: Sequence[str]) -> None:
        self._levels = levels
        self._codes_by_pair: dict[str, list[int]] = defaultdict(list)
        for code, level in enumerate(levels):
            for pair in _pairs(level):
                self._codes_by_pair[pair].append(code)

    def find(self, value: str) -> list[str]:
        """Return the levels with the highest Dice coefficients of letter pairs, the most similar first."""
        pairs = _pairs(value)
        shared: Counter[int] = Counter()
        for pair in pairs:
            shared.update(self._codes_by_pair.get(pair, ()))
        candidates = [code for code, _ in shared.most_common(N_CANDIDATES)]

        def similarity(code: int) -> float:
            return 2 * shared[code] / (len(pairs) + len(_pairs(self._levels[code])))

        return [self._levels[code] for code in heapq.nlargest(N_NEAREST, candidates, key=similarity)]


def _pairs(text: str) -> set[str]:
    padded = f" {text.casefold()} "
    return {padded[index : index + 2] for index in range(len(padded) - 1)}
