from typing import Any

from numpy.typing import NDArray

def check(nodes: bytes, trees: bytes, width: int, /) -> None: ...
def walk(
    nodes: bytes, trees: bytes, width: int, base: float, columns: NDArray[Any], sums: NDArray[Any], /
) -> None: ...
