"""Entry: get the table that a config names, check it, and say what it is.

python -m housing.fetch data=california
"""

import sys
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from housing.core.command import command
from housing.core.errors import DownloadError

if TYPE_CHECKING:
    pass
from housing.data.download import EX_UNAVAILABLE, fetch_table


@command("fetch")
def main(cfg: DictConfig) -> None:
    """Fetch, and tell a source that cannot be had (exit code 69) from all other errors."""
    try:
        print(fetch_table(cfg.data))
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EX_UNAVAILABLE)


if __name__ == "__main__":
    main()
