"""Self-contained HTML pages from templates."""

from pathlib import Path
from typing import Any

from housing.core.files import atomic_write


def render_page(template: str, **values: Any) -> str:
    """Return the HTML of a template of this package."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # pylint: disable=import-outside-toplevel  # 0.1 s that only pages need

    environment = Environment(
        loader=PackageLoader("housing.plots"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Render a template of this package, write it atomically, and return its path."""
    page = render_page(template, **values)
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path
