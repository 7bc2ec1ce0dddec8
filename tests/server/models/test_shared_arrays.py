"""The arrays of a bundle are in memory once, however many workers serve it."""

import re
from pathlib import Path

from housing.tracking import store as tracking
from tests.support.server import serving
from tests.support.tables import SMALL_GEO, config, towns_frame, train
from tests.support.waiting import wait_for

N_ROWS = 60_000
TOWN = {"north": 45.5, "east": 6.5, "area": 60, "rooms": 3, "garden": True, "kind": "flat"}
ROW_BYTES = 40  # at least, of each fitted row: its location, its columns and its target


def mapped_kilobytes(pid: int, file: str) -> dict[str, int]:
    """Return the memory of a process that maps files of a name, by the fields of /proc/<pid>/smaps."""
    sizes: dict[str, int] = {}
    is_file = False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_file = line.endswith(f"/{file}")
        elif is_file and line.endswith(" kB"):
            name, size, _ = line.split()
            sizes[name.rstrip(":")] = sizes.get(name.rstrip(":"), 0) + int(size)
    return sizes


def test_workers_share_the_arrays_of_their_bundle(home: Path) -> None:
    towns_frame(N_ROWS).to_csv(home / "data" / "towns.csv", index=False)
    options = ("features=geo", *SMALL_GEO, "interval=none", "figures=false", "model.estimator.n_estimators=5")
    run_id = str(train(home, "data=towns", *options).run_id)
    store = tracking.connect(config("train", "data=towns").mlflow)
    store.registry.register("housing-towns", run_id)
    store.registry.set_alias("housing-towns", "staging", "1")
    with serving(home, "data=towns", "serve.workers=2") as server:
        wait_for(lambda: server.answers("/readyz"), "the model is served")
        workers = server.workers()
        wait_for(lambda: all(mapped_kilobytes(pid, "arrays.npz") for pid in workers), "each worker has mapped the arrays")
        assert server.predict(TOWN).status == 200
        for pid in workers:
            sizes = mapped_kilobytes(pid, "arrays.npz")
            assert sizes["Size"] > 0.6 * N_ROWS * ROW_BYTES / 1024
            assert sizes["Anonymous"] == 0  # no page is a copy
            assert sizes["Shared_Clean"] + sizes["Shared_Dirty"] > 0.6 * N_ROWS * ROW_BYTES / 1024  # both have read all of it
