"""TODO docstring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from housing.plots.svg import SvgFigure

TEMPLATE = "report.html"


MAX_CELL_CHARS, MISSING = 120, "–"  # letters of a value in a table of configs; what stands where there is none


@dataclass(frozen=True)
class HtmlTable:
    """A table of the page; the first `text` columns are words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text_columns: int = 1
    summary: str = ""  # the words to click on, for a table that only some will read


@dataclass(frozen=True)
class Section:
    """A part of the page, in the order in which its parts are shown."""

    title: str
    text: str = ""
    figures: Sequence[SvgFigure] = ()
    bullets: Sequence[str] = ()
    tables: Sequence[HtmlTable] = ()
    code: str = ""


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    intro: str
    links: Mapping[str, str]
    facts: Mapping[str, str]
    sections: list[Section] = field(default_factory=list)
