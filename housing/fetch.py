"""Download a table and check it.

python -m housing.fetch data=california
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result, exit_with
from housing.core.errors import DownloadError
from housing.core.printable import show


@command("fetch")
def main(cfg: DictConfig) -> Result:
    """Download the table. The exit code is 69 if its source is unavailable, so that scripts can fall back to synthetic data."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.data.download import EX_UNAVAILABLE, fetch_table
    from housing.data.settings import TableSettings

    try:
        fetched = fetch_table(TableSettings.from_config(cfg.data))
    except DownloadError as error:
        exit_with(error, EX_UNAVAILABLE)
    show(str(fetched))
    return Result(fetched)


if __name__ == "__main__":
    main()
