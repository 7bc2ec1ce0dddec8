"""All commands behind one name: `housing train model=linear` does what `python -m housing.train model=linear` does."""

import difflib
import runpy
import sys

from housing.command_line import help as help_text
from housing.core.printable import show

NEW = "new"  # the only command without a config file


def main() -> None:
    """Run the command that the first argument names. Without one, list the commands."""
    names = sorted([*help_text.command_names(), NEW])
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in help_text.FLAGS:
        show("Usage: housing COMMAND [ARGUMENTS]      housing COMMAND --help describes one command\n")
        for command in names:
            show(f"  {command:<14} {help_text.purpose(command)}")
        return
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {nearest[0]}?" if nearest else f"Expected one of {', '.join(names)}."
        sys.exit(f"error: There is no command {name}. {hint}")
    del sys.argv[1]
    runpy.run_module(f"housing.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
