"""Pages that need nothing but themselves."""

from pathlib import Path
from typing import Any

from housing.core.files import atomic_write


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Fill a template of this folder and write it whole; give where it is."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # pylint: disable=import-outside-toplevel  # pages come last

    environment = Environment(
        loader=PackageLoader("housing.plots"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(template).render(**values)
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path
