"""One fit over two nodes, each with a network of its own and less memory than the table."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import network_nodes

pytestmark = [pytest.mark.cluster, *network_nodes.NEEDED]

ROWS, COLUMNS = 2_900_000, 40
MEMORY_GB = 0.9  # of each node; the table has 0.928 GB


def test_a_table_larger_than_the_memory_of_each_node_is_fitted(tmp_path: Path) -> None:
    assert ROWS * COLUMNS * 8 > MEMORY_GB * 1e9
    with network_nodes.network() as network, network_nodes.DaskCluster(network, tmp_path, memory_gb=MEMORY_GB) as cluster:
        program = [sys.executable, "-m", "tests.support.large_fit", cluster.address, str(ROWS), str(COLUMNS)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rmse, deviation = map(float, done.stdout.split())
    assert rmse < deviation / 2
