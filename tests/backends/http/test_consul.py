"""Nodes that Consul lists: what is asked, by which index, and clients that follow.

What answers here is a server of the test with answers in Consul's form. It shows what the client asks and how it takes an answer, not how
Consul behaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import web

import perdure
from perdure import Event
from perdure.backends.http.consul import PAUSE, WAIT, Consul, next_index
from perdure.backends.http.discovery import LOOK_MAX, Found
from perdure.service.options import ServeOptions
from tests.servers.process import HOST
from tests.servers.tls import Authority
from tests.support.backends.scenarios import until
from tests.support.service.leaving import one_leaves_and_one_joins, port
from tests.support.service.nodes import serving


class Answers:
    """What is answered, and what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.nodes: list[tuple[str, str, int]] = []
        """Addresses of machine and service, and the port."""
        self.index: int | None = 1
        """`None`: an answer without one."""
        self.status = 200
        self.body: str | None = None
        self.waits = False
        """Hold a question with an index until `change`."""
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str | None] = []
        self._changed = asyncio.Event()

    def change(self, *nodes: tuple[str, str, int]) -> None:
        assert self.index is not None
        self.nodes, self.index = [*nodes], self.index + 1
        self._changed.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append({"path": request.path, **request.query})
        self.tokens.append(request.headers.get("X-Consul-Token"))
        while self.waits and request.query.get("index") == str(self.index):
            self._changed.clear()
            await self._changed.wait()
        headers = {} if self.index is None else {"X-Consul-Index": str(self.index)}
        if self.body is not None:
            return web.Response(status=self.status, text=self.body, headers=headers)
        return web.json_response([_entry(*node) for node in self.nodes], status=self.status, headers=headers)


def _entry(machine: str, address: str, port: int) -> dict[str, Any]:
    service = {"ID": f"perdure-{port}", "Service": "perdure", "Tags": [], "Address": address, "Meta": {}, "Port": port}
    check = {"Node": "m", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"}
    return {"Node": {"ID": "", "Node": "m", "Address": machine, "Datacenter": "dc1"}, "Service": service, "Checks": [check]}


@asynccontextmanager
async def answering() -> AsyncIterator[Answers]:
    answers, app = Answers(), web.Application()
    app.router.add_get("/v1/health/service/{name}", answers.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    answers.url = f"http://{HOST}:{runner.addresses[0][1]}"
    try:
        yield answers
    finally:
        await runner.cleanup()


@asynccontextmanager
async def finding(answers: Answers, dc: str = "", token: str | None = None) -> AsyncIterator[Consul]:
    finder = Consul(answers.url, "perdure", "http", dc=dc, token=token, trust=True, timeout=5)
    try:
        yield finder
    finally:
        await finder.close()


async def test_services_are_nodes() -> None:
    """Only what passes is asked for, in the data centre of the URL. A service without an address is at that of its machine."""
    async with answering() as answers, finding(answers, "east", "secret") as finder:
        answers.nodes = [("10.0.0.1", "", 8420), ("10.0.0.2", "node.test", 8421), ("::1", "", 1)]
        assert await finder.find() == Found(["http://10.0.0.1:8420", "http://[::1]:1", "http://node.test:8421"], PAUSE)
        assert answers.asked == [{"path": "/v1/health/service/perdure", "passing": "true", "dc": "east"}]
        assert answers.tokens == ["secret"]


async def test_the_second_question_waits_for_a_change() -> None:
    """It names the index of the answer before. An index that goes back, and a failure, are followed by a question that does not wait."""
    async with answering() as answers, finding(answers) as finder:
        for index in (7, 7, 9, 3, 4):
            answers.index = index
            await finder.find()
        answers.status = 500
        with pytest.raises(perdure.Unavailable, match="500"):
            await finder.find()
        answers.status = 200
        await finder.find()
        assert [asked.get("index") for asked in answers.asked] == [None, "7", "7", "9", None, "4", None]
        assert {asked.get("wait") for asked in answers.asked if "index" in asked} == {f"{WAIT}s"}


async def test_an_answer_without_an_index_is_asked_for_after_a_while() -> None:
    """Without an index a question cannot wait, so the client does."""
    async with answering() as answers, finding(answers) as finder:
        answers.index = None
        assert (await finder.find()).again == LOOK_MAX
        assert (await finder.find()).again == LOOK_MAX
        assert all("index" not in asked for asked in answers.asked)


@pytest.mark.parametrize(
    ("before", "said", "index"),
    [(None, "5", 5), (5, "5", 5), (5, "6", 6), (5, "4", None), (None, "0", 1), (1, "0", None), (5, None, None), (5, "x", None)],
)
def test_the_index_for_the_next_question(before: int | None, said: str | None, index: int | None) -> None:
    """It begins again when it goes back, and is never 0."""
    assert next_index(before, said) == index


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (403, "Permission denied", perdure.Unauthorized, "CONSUL_HTTP_TOKEN"),
        (500, "No cluster leader", perdure.Unavailable, "500"),
        (301, "", perdure.Unavailable, "301"),
        (200, "<html>Log in, please</html>", perdure.Unavailable, "not Consul"),
        (200, '[{"Node": {}}]', perdure.Unavailable, "not Consul"),
        (200, "[]", perdure.Unavailable, "No node is listed"),
    ],
)
async def test_what_is_no_list_of_nodes_opens_nothing(status: int, body: str, kind: type[perdure.Error], says: str) -> None:
    """The error says what to do."""
    async with answering() as answers:
        answers.status, answers.body = status, body
        with pytest.raises(kind, match=says):
            await perdure.open(f"consul+{answers.url}/perdure")


async def test_the_token_of_consul_is_in_a_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`CONSUL_HTTP_TOKEN` goes to Consul, `PERDURE_TOKEN` does not."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "sesame-1234")
    monkeypatch.setenv("PERDURE_TOKEN", "other-5678")
    async with answering() as answers:
        answers.status = 403
        with pytest.raises(perdure.Unauthorized) as caught:
            await perdure.open(f"consul+{answers.url}/perdure")
        assert answers.tokens == ["sesame-1234"]
        assert "sesame" not in f"{caught.value!r} {answers.asked}"


async def test_clients_follow_the_list(tmp_path: Path) -> None:
    """A node leaves the list and ends while another one joins. An empty list changes nothing."""
    engine = f"sqlite:///{tmp_path}/store.db"
    async with answering() as answers:
        answers.waits = True

        def show(*ports: int) -> None:
            answers.change(*[(HOST, "", port) for port in ports])

        async def empty() -> None:
            seen = len(answers.asked)
            answers.change()
            await until(lambda: len(answers.asked) > seen)

        with serving(engine) as first, serving(engine) as second:
            answers.nodes = [(HOST, "", port(first.url)), (HOST, "", port(second.url))]
            async with perdure.open(f"consul+{answers.url}/perdure") as store:
                await one_leaves_and_one_joins(store, (first, second), serving(engine), show, (empty,))


async def test_a_certificate_is_checked_by_a_name_and_never_by_an_address(tmp_path: Path) -> None:
    """It is that of the service in Consul's DNS, or of the option `name`; what Consul lists counts for nothing."""
    ours = Authority(tmp_path, "ours")
    for certified, option, trusted in (
        ("perdure.service.consul", "", True),
        ("agents.test", "&name=agents.test", True),
        (HOST, "", False),
    ):
        file = str(ours.file(certified))
        options = ServeOptions(port=0, drain_delay=0, drain_timeout=1)
        options = msgspec.structs.replace(options, ssl_certfile=file, ssl_keyfile=file)
        async with answering() as answers:
            with serving("memory:", options=options) as node:
                answers.nodes = [(HOST, "", port(node.url))]
                opening = perdure.open(f"consul+{answers.url}/perdure?nodes=https&ca={quote(str(ours.ca))}{option}")
                if trusted:
                    async with opening as store:
                        assert (await store.append("s", Event("note"))).version == 1
                else:
                    with pytest.raises(perdure.Unavailable, match="certificate"):
                        await opening


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("consul+http://a.test:8500", "names no service"),
        ("consul+http://a.test:8500/a/b", "names no service"),
        ("consul+http://a.test,b.test/perdure", "names no service"),
        ("consul+http://a.test/perdure?dc=a/b", "option dc is a name"),
        ("consul+http://a.test/perdure?nodes=ftp", "one of http, https"),
        ("consul+http://secret@a.test/perdure", "PERDURE_TOKEN"),
        ("consul+http://a.test/perdure?ca=/x.pem", "https"),
    ],
)
async def test_urls_that_are_refused(url: str, says: str) -> None:
    """A URL names one service, at one host."""
    with pytest.raises(perdure.Invalid, match=says) as caught:
        await perdure.open(url)
    assert "secret" not in str(caught.value)
