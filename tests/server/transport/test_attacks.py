"""Thousands of slow and silent clients: others notice nothing."""

import time
from pathlib import Path

import pytest

from tests.support.attacks import UsualClients, attacking, peak_memory
from tests.support.server import serving
from tests.support.waiting import wait_for


@pytest.mark.long
def test_usual_clients_notice_nothing_of_thousands_of_slow_and_silent_ones(served_home: Path) -> None:
    with serving(served_home) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        with UsualClients(running).running() as undisturbed:
            time.sleep(20)
        memory = peak_memory(running)
        with attacking("5,000 silent and 200 dribbling", running), UsualClients(running).running() as attacked:
            time.sleep(50)  # beyond the deadline of a request
        assert (undisturbed.failed, attacked.failed) == ([], [])
        assert attacked.quantile(0.99) < max(2 * undisturbed.quantile(0.99), 50.0)  # ms; a busy machine has outliers
        assert peak_memory(running) - memory < 30  # MB
