"""Resources that a piece of work uses, in a process that did other work before."""

import time
from pathlib import Path

import numpy as np
import pytest

from housing.core import resource_usage
from housing.core.resource_usage import ResourceMeter


def use_memory(megabytes: int) -> None:
    """Hold this much memory for a moment."""
    assert np.ones(megabytes * 125_000).any()


@pytest.mark.skipif(not resource_usage.CLEAR_REFS.exists(), reason="the peak can be reset on Linux alone")
def test_memory_of_earlier_work_is_not_counted() -> None:
    use_memory(400)
    before = ResourceMeter()
    small = before.read()["peak_memory_megabytes"]
    use_memory(400)
    assert before.read()["peak_memory_megabytes"] > small + 300


@pytest.mark.parametrize("status", [None, "Name:\tpython\nVmRSS:\t1 kB\n"])
def test_where_the_system_hides_it_the_peak_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: str | None
) -> None:
    if status is not None:
        (tmp_path / "STATUS").write_text(status, encoding="utf-8")
    for name in ("CLEAR_REFS", "STATUS"):
        monkeypatch.setattr(resource_usage, name, tmp_path / name)
    assert ResourceMeter().read()["peak_memory_megabytes"] > 20


def test_only_time_after_the_start_is_counted() -> None:
    meter = ResourceMeter()
    start = time.process_time()
    while time.process_time() < start + 0.2:
        use_memory(1)
    used = meter.read()
    assert 0.1 < used["cpu_seconds"] < time.process_time()
    assert used["wall_seconds"] > 0.1
