"""TODO docstring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from housing.plots.svg import Drawn

PAGE = "report.html"


CELL, ABSENT = 120, "–"  # letters of a value in a table of configs; what stands where there is none


@dataclass(frozen=True)
class Grid:
    """A table of the page; the first `text` columns are words, the others numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: int = 1
    folded: str = ""  # the words to click on, for a table that only some will read


@dataclass(frozen=True)
class Section:
    """A part of the page, in the order in which its parts are shown."""

    title: str
    said: str = ""
    figures: Sequence[Drawn] = ()
    points: Sequence[str] = ()
    tables: Sequence[Grid] = ()
    raw: str = ""


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    lead: str
    links: Mapping[str, str]
    facts: Mapping[str, str]
    sections: list[Section] = field(default_factory=list)
