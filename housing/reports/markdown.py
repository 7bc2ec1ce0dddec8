"""A page as Markdown: its text and tables, without figures."""

from collections.abc import Iterator, Sequence

from housing.reports.page import HtmlTable, Page, Section

SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def to_markdown(page: Page) -> str:
    """Return a page as Markdown. Text is shown literally."""
    blocks = [f"# {_escaped(page.title)}", _escaped(page.intro), _table(("", ""), list(page.facts.items()))]
    for section in page.sections:
        blocks += _section(section)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"## {_escaped(section.title)}"
    yield _escaped(section.text)
    yield "\n".join(f"- {_escaped(bullet)}" for bullet in section.bullets)
    for table in section.tables:
        yield from _html_table(table)


def _html_table(table: HtmlTable) -> Iterator[str]:
    if table.rows:
        yield _table(table.header, table.rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header)]
    return "\n".join(
        "| " + " | ".join(cell if line is lines[1] else _escaped(cell) for cell in line) + " |" for line in [*lines, *rows]
    )


def _escaped(text: str) -> str:
    """Return a text whose characters mean nothing to Markdown, in one line."""
    return " ".join(text.split()).translate(SPECIAL)
