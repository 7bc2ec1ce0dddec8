"""Command that writes an HTML page about one run, or about several runs side by side.

python -m housing.report run_id=ID
"""

from omegaconf import DictConfig

from housing.core import console
from housing.core.command import command
from housing.reports.report import write_report


@command("report")
def main(cfg: DictConfig) -> None:
    """Write the page and print its path."""
    console.show_file(write_report(cfg))


if __name__ == "__main__":
    main()
