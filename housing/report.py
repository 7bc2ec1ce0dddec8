"""Write an HTML page about one run, or about several runs side by side.

python -m housing.report run_id=ID
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("report")
def main(cfg: DictConfig) -> Result:
    """Write the page and print its path."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line import console
    from housing.reports.report import write_report

    page = write_report(cfg)
    console.show_file(page)
    return Result(console.WrittenFile(page))


if __name__ == "__main__":
    main()
