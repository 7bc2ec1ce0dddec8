"""Describe a file: guess the type and role of its columns, and write the YAML of its table and a page to look at.

python -m housing.describe file=houses.csv target=price
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result
from housing.core.printable import show


@command("describe")
def main(cfg: DictConfig) -> Result:
    """Describe the file, and print what misleads and the next command."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line.next_command import config_folder, next_command
    from housing.description.description import DescriptionSettings, describe

    described = describe(DescriptionSettings.from_config(cfg, config_folder()), next_command)
    show(described.text)
    return Result(described)


if __name__ == "__main__":
    main()
