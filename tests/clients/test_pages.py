"""The programs on the pages of the TypeScript client run, and print what is shown."""

from __future__ import annotations

import re

import pytest

from tests.servers.node import Nodes
from tests.support.docs.pages import ROOT, blocks
from tests.support.service.programs import Programs

PAGES = ["docs/clients.md", "clients/typescript/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_program_on_a_page_runs(page: str, programs: Programs, nodes: Nodes) -> None:
    """As it stands, with this node in place of the one at port 8420; the text block after it is its output."""
    text = (ROOT / page).read_text()
    found = blocks(ROOT / page)
    (number,) = [number for number, block in enumerate(found) if block.language == "js"]
    source, count = re.subn(r"http://localhost:8420", nodes.url, found[number].text)
    assert count == 1
    (programs.folder / "first.mjs").write_text(source)
    printed = programs.run('await import("./first.mjs");')
    if found[number + 1 :]:
        assert printed == found[number + 1].text
    else:
        assert f"prints `{printed.strip()}`" in text
