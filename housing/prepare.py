"""Write the validated table with its split as a Parquet file.

python -m housing.prepare out=outputs/california.parquet
"""

from pathlib import Path

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result
from housing.core.printable import show


@command("prepare")
def main(cfg: DictConfig) -> Result:
    """Prepare the table, and print the number of rows by part."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.data.preparation import prepare
    from housing.data.settings import TableSettings
    from housing.data.split import SplitSettings

    prepared = prepare(TableSettings.from_config(cfg.data), SplitSettings.from_config(cfg.split), Path(cfg.out))
    show(f"{prepared}; written to {prepared.out}")
    return Result(prepared)


if __name__ == "__main__":
    main()
