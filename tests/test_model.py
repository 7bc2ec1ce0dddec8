"""The model in use of a worker, and what is published beside it."""

from functools import partial
from pathlib import Path

import pytest

from conftest import wait_for
from housing.bundle import Bundle
from server import published
from server.counts import Counts
from server.model import InUse


def test_a_version_that_fails_in_any_way_leaves_the_model_in_use_and_the_next_one_is_loaded(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def counts_of(folder: Path, bundle_: Bundle, version: str) -> Counts:
        if version == "2":
            raise TypeError("only numbers are counted")
        return Counts(tmp_path, 0, folder, bundle_, version)

    publish = partial(_publish, bundle, tmp_path)
    publish("1")
    in_use = InUse(tmp_path / "published", 0.05, counts_of)
    publish("2")
    wait_for(lambda: "TypeError: only numbers are counted" in caplog.text, "version 2 fails")
    assert in_use.get().served["version"] == "1"
    publish("3")
    wait_for(lambda: in_use.get().served["version"] == "3", "version 3 is loaded")


def _publish(bundle: Bundle, place: Path, version: str) -> None:
    bundle.write(place / version)
    published.publish(place / "published", version, place / version, {"model": "m", "version": version})
