"""Words that a reader with little English stumbles over do not come back to the pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.docs.pages import PAGES, name

INSTEAD = {
    r"anew": "again",
    r"mend(?:s|ed|ing)?": "fix",
    r"whoever|whosoever": "a subject and a verb",
    r"told|tells|tell": "notify, say, show",
    r"thereby|whereof|wherein": "a sentence of its own",
    r"not to be had|could not be had": "a subject and a verb",
    r"behind(?! (?:a |an |one |the |three |which |its |PgBouncer|Sentinels|a pooler|one no))": "after",
}
"""A word to look for, and what to write in its place. One may stand behind a proxy."""
HISTORY = ("docs/adr/", "CHANGELOG.md")
"""Pages that record what was said at their time."""


@pytest.mark.parametrize("page", [page for page in PAGES if not name(page).startswith(HISTORY)], ids=name)
def test_a_page_is_plain_english(page: Path) -> None:
    """None of the words stands on the page outside of code."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for word, better in INSTEAD.items():
        found = re.search(rf"\b(?:{word})\b.{{0,30}}", text, re.IGNORECASE)
        assert not found, f"{name(page)}: write {better} in place of {found[0]!r}"
