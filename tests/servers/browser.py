"""Chromium without a window, asked over its DevTools protocol."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import aiohttp

from tests.servers.process import HOST, Server


class Browser(Server):
    """One browser with a profile of its own."""

    name: ClassVar[str] = "chromium"
    install: ClassVar[str] = "apt install chromium (or chromium-headless-shell)"

    @classmethod
    def program(cls) -> str:
        return cls.found("", "chromium", "chromium-headless-shell", "google-chrome")

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://{HOST}:{self.port('devtools')}"

    def start(self) -> None:
        options = ["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # It refuses to run as root with it.
        places = [f"--remote-debugging-port={self.port('devtools')}", f"--user-data-dir={self.folder / 'profile'}"]
        self.spawn("node", [self.program(), *options, *places, "about:blank"])
        self.wait("it answers", lambda: urlopen(f"{self.url}/json/version", timeout=5).status == 200)

    @asynccontextmanager
    async def page(self, url: str) -> AsyncIterator[Page]:
        """A page, once it is loaded."""
        with urlopen(Request(f"{self.url}/json/new?about:blank", method="PUT"), timeout=30) as answer:
            target = json.load(answer)
        async with aiohttp.ClientSession() as session, session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            await page.ask("Page.enable")
            await page.ask("Page.navigate", url=url)
            await page.event("Page.loadEventFired")
            yield page


class Page:
    """A page that is open."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    async def ask(self, method: str, **parameters: Any) -> Any:
        """What the browser answers. What it says meanwhile is passed over, but for errors."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while (said := await self._socket.receive_json()).get("id") != number:
            pass
        assert "error" not in said, said
        return said["result"]

    async def event(self, method: str) -> None:
        """Return when this has happened."""
        while (await self._socket.receive_json()).get("method") != method:
            pass

    async def run(self, source: str) -> Any:
        """What an expression of JavaScript gives, awaited. What it raises fails the test, with what it says."""
        found = await self.ask("Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"].get("exception", found)
        return found["result"].get("value")
