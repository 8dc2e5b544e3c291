"""The TypeScript client in a browser: from a page of the service's own origin, behind one proxy, and from another one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import perdure
from tests.servers.browser import Browser
from tests.servers.node import Nodes
from tests.servers.process import Missing
from tests.servers.proxies import Nginx
from tests.support.needs import missing
from tests.support.service.programs import CLIENT
from tests.support.service.scenario import as_in_python

pytestmark = pytest.mark.slow("a browser is 300 MB, which CI does not install")
FOLDER = Path(__file__).parent
STEPS = json.loads((FOLDER / "scenario.json").read_text())


class Site(Nginx):
    """The example of deploy/ before a node, with a page of the same origin beside it, as docs/clients.md says."""

    page: ClassVar[str] = "app/index.html"

    def config(self) -> str:
        app = f"location /app/ {{ root {self.folder}; types {{ text/html html; text/javascript js mjs; }} }}"
        text = super().config()
        assert text.count("location / {") == 1
        return text.replace("location / {", f"{app}\n    location / {{")

    def start(self) -> None:
        shutil.copytree(CLIENT, self.folder / "app" / "perdure")
        shutil.copy(FOLDER / "scenario.mjs", self.folder / "app")
        (self.folder / self.page).write_text("<!doctype html><title>A page</title>")
        super().start()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """One node without credentials, which takes requests of its own origin only."""
    nodes = Nodes(tmp_path / "nodes")
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@pytest.fixture
def site(tmp_path: Path, nodes: Nodes) -> Iterator[Site]:
    """A site with a page and the service."""
    try:
        site = Site(tmp_path / "site", (nodes.port("node0"), nodes.port("node0")))
    except Missing as reason:
        missing(str(reason))
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser."""
    try:
        browser = Browser(tmp_path / "browser")
    except Missing as reason:
        missing(str(reason))
    try:
        browser.start()
        yield browser
    finally:
        browser.stop()


async def test_a_scenario_has_the_same_results_in_a_browser(nodes: Nodes, site: Site, browser: Browser, tmp_path: Path) -> None:
    """As in Python, step by step, from a page of the same origin: and the sessions that it leaves are the same."""
    async with browser.page(f"{site.url}/{site.page}") as page:
        theirs = await page.run(f"""(async () => {{
          const {{ results }} = await import("/app/scenario.mjs");
          const client = await import("/app/perdure/src/index.js");
          const found = [];
          for await (const result of results(client, location.origin, {json.dumps(STEPS)})) found.push(result);
          return found;
        }})()""")
    await as_in_python(theirs, STEPS, nodes, tmp_path)


async def test_a_page_of_another_origin_reaches_nothing(nodes: Nodes, site: Site, browser: Browser) -> None:
    """The browser keeps a node's answers from it, and sends no write: reads are `Unavailable`, writes `Unknown`, and nothing is stored."""
    async with browser.page(f"{site.url}/{site.page}") as page:
        found = await page.run(f"""(async () => {{
          const {{ Store }} = await import("/app/perdure/src/index.js");
          const store = new Store("{nodes.url}", {{ timeout: 0.5 }});
          const failed = (promise) => promise.then(() => "done", (error) => error.name);
          const write = await failed(store.append("s", {{ events: [{{ type: "note" }}] }}));
          return [write, await failed(store.read("s"))];
        }})()""")
    assert found == ["Unknown", "Unavailable"]
    async with perdure.open(nodes.url) as store:
        with pytest.raises(perdure.NotFound):
            await store.read("s")
