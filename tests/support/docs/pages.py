"""The pages of the documentation: where they lie, and the code blocks in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """One fenced block: its language and text, the line of the page where the text starts, and what stands before it."""

    language: str
    text: str
    line: int
    between: str


def name(page: Path) -> str:
    """A page as the tests call it: its path from the repository's root."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The page's fenced blocks, in order."""
    found: list[Block] = []
    fence, language, start, lines, between = "", "", 0, [], []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        opening = re.match(r"(```+)(\w*)", line)
        if not fence and opening:
            fence, language, start, lines = opening[1], opening[2], number + 1, []
        elif fence and line.strip() == fence:
            found.append(Block(language, "\n".join(lines) + "\n", start, "\n".join(between)))
            fence, between = "", []
        else:
            (lines if fence else between).append(line)
    assert not fence, f"{name(page)} has a block that does not end, from line {start}"
    return found
