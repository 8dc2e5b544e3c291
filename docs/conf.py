"""How Sphinx builds the site out of these pages: `python3 dev.py site`. The order of the pages is that of the lists in index.md."""

from __future__ import annotations

import re

import sphinx.application

project = "Perdure"
author = "The Perdure authors"
extensions = ["myst_parser"]
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = "Perdure"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
nitpicky = True

LISTED = re.compile(r"^(?:-|\d+\.) \[[^\]]+\]\(([\w/-]+)\.md\)", re.MULTILINE)
"""One page in a list of an index page."""
SECTION = re.compile(r"^\*\*(.+)\*\*$", re.MULTILINE)


def add_contents(_: sphinx.application.Sphinx, docname: str, source: list[str]) -> None:
    """Give each index page a table of contents for the side bar, by its own lists: a section is a line in bold."""
    if docname.rpartition("/")[2] != "index":
        return
    parts = SECTION.split(source[0])
    for title, text in zip(["", *parts[1::2]], parts[::2], strict=True):
        if pages := LISTED.findall(text):
            caption = f":caption: {title}\n" if title else ""
            source[0] += "\n".join(["\n```{toctree}", f":hidden:\n{caption}", *pages, "```\n"])


def setup(app: sphinx.application.Sphinx) -> None:
    """Register the hook."""
    app.connect("source-read", add_contents)
