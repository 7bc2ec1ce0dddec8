"""Code blocks of the documentation: commands to run, and files to write before them."""

import re
from pathlib import Path

from housing.core.environment import PROJECT

BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')


def pages() -> list[Path]:
    """Return the README and the pages with commands, in the order in which a newcomer reads them."""
    return [
        PROJECT / "README.md",
        *(page for part in ("tutorials", "how-to") for page in sorted((PROJECT / "docs" / part).glob("*.md"))),
    ]


def commands(page: Path, *languages: str) -> list[str]:
    """Return the lines of the code blocks in some languages; a line that ends with a backslash continues."""
    blocks = [dedent(block) for block in BLOCK.findall(page.read_text(encoding="utf-8")) if block[1] in languages]
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if line]


def files(page: Path) -> dict[str, str]:
    """Return the content of the blocks with a title, by the path that the title names."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return {title[1]: dedent(block) for block in blocks if (title := TITLE.search(block[1]))}


def dedent(block: tuple[str, str, str]) -> str:
    """Return the content of a block without the indentation of its fence."""
    indent, _, content = block
    return re.sub(f"^{indent}", "", content, flags=re.MULTILINE)
