"""Command that writes the dashboards' files, or names the outdated ones.

scripts/dashboards [--check]
"""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.dashboards import all_dashboards
from housing.core.environment import PROJECT
from housing.core.files import atomic_write

DASHBOARD_DIR = PROJECT / "grafana" / "dashboards"


def render() -> dict[Path, str]:
    """Return the text of each dashboard's file."""
    encoder = JSONEncoder(indent=2, sort_keys=True)
    return {DASHBOARD_DIR / f"{name}.json": encoder.encode(board.build()) + "\n" for name, board in all_dashboards().items()}


def outdated() -> list[Path]:
    """Return the files that differ from what would be written, and those that no dashboard writes."""
    rendered = render()
    current = {path: path.read_text(encoding="utf-8") for path in DASHBOARD_DIR.glob("*.json")}
    return sorted(path for path in {*rendered, *current} if rendered.get(path) != current.get(path))


def write_dashboards() -> None:
    """Write the files of all dashboards."""
    for path, text in render().items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")


def main() -> None:
    """Write the dashboards, or with --check exit with an error if a file is outdated."""
    match sys.argv[1:]:
        case []:
            write_dashboards()
        case ["--check"]:
            names = ", ".join(str(path.relative_to(PROJECT)) for path in outdated())
            if names:
                sys.exit(f"error: outdated: {names}. Write them again: scripts/dashboards")
        case other:
            sys.exit(f"error: {' '.join(other)} is unknown. Use: scripts/dashboards [--check]")


if __name__ == "__main__":
    main()
