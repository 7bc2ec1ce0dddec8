"""Write a monitoring report about a period of a server: traffic, latency, errors, drift, refused values and decisions.

python -m housing.monitor since=7d
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("monitor")
def main(cfg: DictConfig) -> Result:
    """Write the page, print the summary, and name what is unknown."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line import console
    from housing.monitoring_report import printing
    from housing.monitoring_report.report import write_report

    report = write_report(cfg)
    printing.show_report(report)
    console.show_file(report.page)
    return Result(report)


if __name__ == "__main__":
    main()
