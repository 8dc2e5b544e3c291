"""The pages about HTTP: what they show is what a node does, and what is generated is up to date."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from perdure.service.routes import ROUTES
from scripts import openapi
from tests.servers.node import Nodes
from tests.support.docs.pages import ROOT, blocks

PAGES = ["docs/serve.md", "docs/http-api.md"]


@pytest.mark.parametrize("file", openapi.made(), ids=str)
def test_a_file_of_the_routes_is_up_to_date(file: str) -> None:
    """The document and the page in the repository are those that the table of routes gives."""
    assert (ROOT / file).read_text() == openapi.made()[file], f"{file} is old: run python3 scripts/openapi.py"


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_each_curl_of_a_page_works(page: str, tmp_path: Path) -> None:
    """The blocks run in order against a node: each is answered, and with no problem document."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    nodes = Nodes(tmp_path / "nodes", options=("--archive", f"file://{tmp_path}/archive"))
    try:
        nodes.start()
        lease, shell = "", [f"URL={nodes.url_of('node0')}"]
        shown = [block for block in blocks(ROOT / page) if block.language == "sh"]
        assert shown
        for block in shown:
            text = block.text.replace("URL=http://localhost:8420\n", "")
            script = "\n".join(["set -eu", *shell, f"LEASE={lease}", text])
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ, timeout=60, check=False)
            assert done.returncode == 0, (block.text, done.stderr)
            assert "urn:perdure:error" not in done.stdout, (block.text, done.stdout)
            if '"lease":"' in done.stdout:
                lease = msgspec.json.decode(done.stdout)["lease"]
    finally:
        nodes.stop()


def test_every_route_is_on_the_page_with_a_request() -> None:
    """Each has its curl."""
    assert [route.name for route in ROUTES if not route.example] == []
    assert len({route.name for route in ROUTES}) == len(ROUTES)
