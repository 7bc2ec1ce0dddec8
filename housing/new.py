"""Make a project of one's own: a folder for tables, config, models and modules.

python -m housing.new my-project
"""

import argparse
import sys
from pathlib import Path

from housing.core.errors import HousingError
from housing.core.files import short_path
from housing.core.printable import show
from housing.new_project.project import create_project, template_differences


def main() -> None:
    """Write the project, or with --update print what the present template would change in it."""
    parser = argparse.ArgumentParser(prog="housing new", description=(__doc__ or "").partition("\n")[0])
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="the folder to make, such as my-project")
    group.add_argument(
        "--update", action="store_true", help="in a project: show what the present template would change, write nothing"
    )
    arguments = parser.parse_args()
    try:
        if arguments.update:
            show(template_differences() or "This project is as the template.")
        else:
            create_project(arguments.folder.absolute())
            show(
                f"Wrote {short_path(arguments.folder.absolute())}/. Next: put a table into its folder data/, then in this folder:"
            )
            show("  housing describe file=data/TABLE.csv target=COLUMN")
    except HousingError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
