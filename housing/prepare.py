"""Entry: the table as one file of typed columns, every value checked, each row with the part that it is in.

python -m housing.prepare out=outputs/california.parquet
"""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from housing.core.command import command
from housing.core.files import atomic_write
from housing.data import table as data
from housing.data.split import split


def prepare(cfg: DictConfig) -> str:
    """Write the prepared table, whole or not at all; give a line that says how many rows are in each part.

    `housing.data.table.load` reads it as the very table that it was made of. Raises TableError for a value that the schema does
    not allow.
    """
    table = data.load(cfg.data)
    parts = {"train": (found := split(table, cfg.split)).train, "valid": found.valid, "test": found.test}
    frame = data.read_csv(Path(cfg.data.path), table.schema)
    frame[data.SPLIT_COLUMN] = ""
    for name, rows in parts.items():
        frame.loc[np.sort(rows), data.SPLIT_COLUMN] = name
    frame.attrs[data.FINGERPRINT_ATTRIBUTE] = table.fingerprint
    with atomic_write(Path(cfg.out)) as partial:
        frame.to_parquet(partial, index=False)
    return f"table {cfg.data.name}: " + ", ".join(f"{len(rows):,} rows {name}" for name, rows in parts.items())


@command("prepare")
def main(cfg: DictConfig) -> None:
    """Prepare, and say what is where."""
    print(f"{prepare(cfg)}; written to {cfg.out}")


if __name__ == "__main__":
    main()
