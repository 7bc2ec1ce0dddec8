"""Entry: add the rows of a file to the table, once each, after a look at what they are.

python -m housing.ingest file=new.csv
"""

from omegaconf import DictConfig

from housing.core.command import command
from housing.data.ingestion import ingest
from server.prediction_log.reader import read_joined_rows


@command("ingest")
def main(cfg: DictConfig) -> None:
    """Add the rows."""
    ingest(cfg, read_joined_rows)


if __name__ == "__main__":
    main()
