"""Validate new rows and append them to the table.

python -m housing.ingest file=new.csv
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("ingest")
def main(cfg: DictConfig) -> Result:
    """Append the rows of a file, or of the server's feedback."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.feedback.log_reader import read_joined_rows
    from housing.ingestion.ingestion import IngestionSettings, ingest

    return Result(ingest(IngestionSettings.from_config(cfg), read_joined_rows))


if __name__ == "__main__":
    main()
