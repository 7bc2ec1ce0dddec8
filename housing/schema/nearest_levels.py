"""The levels of a category that resemble a value, for messages."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence

N_NEAREST = 3
N_CANDIDATES = 100  # levels with the most rare pairs in common, of which the nearest are chosen
MAX_COUNTED = 50_000  # levels that are counted, a pair shared by many of them last: about 2 ms


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

        def similarity(code: int) -> float:
            others = _pairs(self._levels[code])
            return 2 * len(pairs & others) / (len(pairs) + len(others))

        return [self._levels[code] for code in heapq.nlargest(N_NEAREST, self._candidates(pairs), key=similarity)]

    def _candidates(self, pairs: set[str]) -> list[int]:
        """Return the levels that share the most pairs, the rare ones first."""
        shared: Counter[int] = Counter()
        n_left = MAX_COUNTED
        for codes in sorted((self._codes_by_pair.get(pair, []) for pair in sorted(pairs)), key=len):
            shared.update(codes[:n_left])
            n_left = max(n_left - len(codes), 0)
        return [code for code, _ in shared.most_common(N_CANDIDATES)]


def _pairs(text: str) -> set[str]:
    padded = f" {text.casefold()} "
    return {padded[index : index + 2] for index in range(len(padded) - 1)}
