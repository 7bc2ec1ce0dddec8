"""Entry: write the dashboards' files from their description, or say which are stale.   scripts/dashboards [--check]"""

import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.dashboards import all_dashboards
from housing.core.environment import PROJECT
from housing.core.files import atomic_write

DASHBOARD_DIR = PROJECT / "grafana" / "dashboards"


def render() -> dict[Path, str]:
    """Give the text of each dashboard's file."""
    encoder = JSONEncoder(indent=2, sort_keys=True)
    return {DASHBOARD_DIR / f"{name}.json": encoder.encode(board.build()) + "\n" for name, board in all_dashboards().items()}


def outdated() -> list[Path]:
    """Give the files that are not as they would be written now, and those that nobody writes."""
    wanted = render()
    found = {path: path.read_text(encoding="utf-8") for path in DASHBOARD_DIR.glob("*.json")}
    return sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))


def write_dashboards() -> None:
    """Write all of them."""
    for path, text in render().items():
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")


def main() -> None:
    """Write the dashboards, or with --check end with an error where one is stale."""
    match sys.argv[1:]:
        case []:
            write_dashboards()
        case ["--check"]:
            found = ", ".join(str(path.relative_to(PROJECT)) for path in outdated())
            if found:
                sys.exit(f"error: stale: {found}. Write them again: scripts/dashboards")
        case other:
            sys.exit(f"error: {' '.join(other)} is not known. Allowed: nothing (write), --check, draw URL")


if __name__ == "__main__":
    main()
