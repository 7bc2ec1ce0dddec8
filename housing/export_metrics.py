"""Write metrics about runs, table and aliases into a file that Prometheus reads through node exporter.

python -m housing.export_metrics metrics_file=/var/lib/prometheus/node-exporter/housing.prom
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("export_metrics")
def main(cfg: DictConfig) -> Result:
    """Write the file and print its path."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line import console
    from housing.operations.training_metrics import export_metrics

    exported = export_metrics(cfg)
    console.show_file(exported.path)
    return Result(exported)


if __name__ == "__main__":
    main()
