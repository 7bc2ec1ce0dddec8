"""The page as data: sections, tables and figures that the template shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from housing.plots.svg import SvgFigure

TEMPLATE = "report.html"
MAX_CELL_CHARS = 120  # of a value in a table
MISSING = "–"  # in place of a value that does not exist


@dataclass(frozen=True)
class HtmlTable:
    """A table; the first `n_text_columns` columns are text, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text_columns: int = 1
    summary: str = ""  # if set, the table is folded behind these words


@dataclass(frozen=True)
class Section:
    """A section of the page; its parts are shown in the order of these fields."""

    title: str
    text: str = ""
    bullets: Sequence[str] = ()
    tables: Sequence[HtmlTable] = ()
    figures: Sequence[SvgFigure] = ()
    code: str = ""


@dataclass(frozen=True)
class Page:
    """The content of the page."""

    title: str
    intro: str
    links: Mapping[str, str]
    facts: Mapping[str, str]
    sections: list[Section] = field(default_factory=list)
