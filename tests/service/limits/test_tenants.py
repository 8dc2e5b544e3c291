"""Limits of tenants on a node: what is refused, how it is said, and that one tenant's load is no other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import perdure
from perdure.service.answers import Answer, Stream, json_answer
from perdure.service.app import App
from perdure.service.call import Call
from perdure.service.hooks import Credential, RequestHead, Scope
from perdure.service.limits.options import LimitOptions
from perdure.service.limits.tenants import TenantLimits
from perdure.service.node import Node
from perdure.service.table import Route
from tests.support.backends.scenarios import until
from tests.support.service.asking import Asker
from tests.support.service.clocks import HandClock


class Named:
    """The header names the tenant: for these tests alone."""

    async def credential(self, head: RequestHead) -> Credential:
        return Credential(head.headers["tenant"])


class Engine:
    """Handlers that work until the test lets them."""

    def __init__(self) -> None:
        self.gate, self.at_work, self.most, self.order = asyncio.Event(), 0, 0, []
        self.gate.set()

    async def work(self, call: Call) -> Answer:
        await call.body()
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            self.order.append(call.credential.tenant)
        finally:
            self.at_work -= 1
        return json_answer({})

    async def many(self, call: Call) -> Answer:
        call.admission.charge(commits=int(await call.body()))
        return json_answer({})

    async def large(self, call: Call) -> Answer:
        return Answer(200, b"x" * 1_000, "text/plain")

    async def watch(self, call: Call) -> Stream:
        ended = asyncio.Event()

        async def pieces() -> Any:
            yield b":\n"
            await ended.wait()

        return Stream(pieces(), "text/event-stream", stop=ended.set)

    def routes(self) -> list[Route]:
        said: dict[str, Any] = {"summary": ""}
        return [
            Route(method="POST", path="/work", scope=Scope.append, handle=self.work, name="work", **said),
            Route(method="POST", path="/many", scope=Scope.append, handle=self.many, name="many", charges=True, **said),
            Route(method="GET", path="/large", scope=Scope.read, handle=self.large, name="large", **said),
            Route(method="GET", path="/watch", scope=Scope.read, handle=self.watch, name="watch", watches=True, **said),
            Route(method="GET", path="/free", scope=None, handle=self.large, name="free", **said),
        ]


@asynccontextmanager
async def limited(engine: Engine, clock: HandClock | None = None, **options: Any) -> AsyncIterator[Asker]:
    """An application with these limits, a tenant a header."""
    async with perdure.open("memory:") as store:
        limits = TenantLimits(LimitOptions(**options), (clock or HandClock()).monotonic)
        yield Asker(App(Node(store, authenticator=Named(), limits=limits), engine.routes()))


def by(tenant: str) -> list[tuple[str, str]]:
    """The header that names it."""
    return [("tenant", tenant)]


async def test_a_rate_is_refused_with_when_to_come_back() -> None:
    """429, Retry-After, the RateLimit fields, facts; after the time it passes, and another tenant was never refused."""
    clock = HandClock()
    async with limited(Engine(), clock, requests=2) as ask:
        assert [(await ask("POST", "/work", headers=by("a"))).status for _ in range(2)] == [200, 200]
        refused = await ask("POST", "/work", headers=by("a"))
        said = refused.json()
        assert (refused.status, said["code"], said["retryable"]) == (429, "quota_exceeded", True)
        facts = {"tenant": "a", "quota": "requests", "retry_after": 0.5, "limit": 2, "window": 1.0}
        assert {name: said["facts"][name] for name in facts} == facts
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["ratelimit-policy"] == '"requests";q=2;w=1' and refused.headers["ratelimit"] == '"requests";r=0;t=1'
        assert (await ask("POST", "/work", headers=by("b"))).status == 200
        assert (await ask("GET", "/free")).status == 200
        clock.seconds += 0.5
        assert (await ask("POST", "/work", headers=by("a"))).status == 200


async def test_commits_and_bytes_have_rates_too() -> None:
    """A batch counts with the commits that it asks for; bodies count in both directions, chunked ones as well."""
    clock = HandClock()
    async with limited(Engine(), clock, commits=10, bytes=1_500) as ask:
        assert (await ask("POST", "/many", b"9", headers=by("a"))).status == 200
        refused = await ask("POST", "/many", b"9", headers=by("a"))
        assert (refused.status, refused.json()["facts"]["quota"]) == (429, "commits")
        assert (await ask("POST", "/work", headers=by("a"))).status == 200
        assert (await ask("POST", "/work", headers=by("a"))).status == 429
        assert (await ask("GET", "/large", headers=by("a"))).status == 200
        assert (await ask("GET", "/large", headers=by("a"))).status == 200
        refused = await ask("POST", "/many", b"0" * 10, headers=by("a"))
        assert (refused.status, refused.json()["facts"]["quota"]) == (429, "bytes")
        assert (await ask("POST", "/work", pieces=[b"x" * 1_000, b"x" * 400], headers=by("b"))).status == 200
        assert (await ask("POST", "/work", pieces=[b"x" * 1_000, b"x" * 400], headers=by("b"))).status == 429


async def test_open_requests_and_watchers_are_counted_apart_and_given_back() -> None:
    """Two of each at once; one that ends, fails or is cancelled makes room."""
    engine = Engine()
    engine.gate.clear()
    async with limited(engine, open=2, watchers=1) as ask:
        tasks = [asyncio.ensure_future(ask("POST", "/work", headers=by("a"))) for _ in range(2)]
        await until(lambda: engine.at_work == 2)
        refused = await ask("POST", "/work", headers=by("a"))
        assert (refused.status, refused.json()["facts"]["quota"]) == (429, "open")
        assert refused.headers["ratelimit-policy"] == '"open";q=2'
        async with ask.stream("/watch", headers=by("a")) as streamed:
            await streamed.until(":")
            second = await ask("GET", "/watch", headers=by("a"))
            assert (second.status, second.json()["facts"]["quota"]) == (429, "watchers")
        tasks[0].cancel()
        engine.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await ask("POST", "/work", headers=by("a"))).status == 200
        limits = ask.app.node.limits
        assert not limits._open["open"] and not limits._open["watchers"] and limits.queue.free == limits.options.turns


async def test_one_greedy_tenant_does_not_slow_another() -> None:
    """With 500 requests of one tenant before an engine that takes four at a time, the next one of another is among the first done."""
    engine = Engine()
    engine.gate.clear()
    async with limited(engine, turns=4, turn_seconds=3_600) as ask:
        greedy = [asyncio.ensure_future(ask("POST", "/work", headers=by("greedy"))) for _ in range(500)]
        queue = ask.app.node.limits.queue
        await until(lambda: queue.waiting == 496)
        small = asyncio.ensure_future(ask("POST", "/work", headers=by("small")))
        await until(lambda: queue.waiting == 497)
        engine.gate.set()
        assert (await small).status == 200
        await asyncio.gather(*greedy)
        assert engine.order.index("small") <= 8 and engine.most == 4


async def test_who_sends_slowly_holds_no_turn() -> None:
    """Bodies that never end take no turn before the engine: others are served past them."""
    engine = Engine()
    async with limited(engine, turns=1) as ask:
        stuck = asyncio.Event()

        async def receive() -> Any:
            await stuck.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            """Nobody reads it."""

        scope, _ = ask._scope("POST", "/work", None, [("tenant", "slow"), ("content-length", "5")], None, None)
        slow = [asyncio.ensure_future(ask.app(dict(scope), receive, send)) for _ in range(5)]
        await until(lambda: ask.app.node.limits._open["open"]["slow"] == 5)
        assert (await ask("POST", "/work", b"x", headers=by("quick"))).status == 200
        stuck.set()
        await asyncio.gather(*slow)


async def test_who_waits_too_long_for_a_turn_is_answered() -> None:
    """503 and Retry-After: nothing was done, so it may be sent again."""
    engine = Engine()
    engine.gate.clear()
    async with limited(engine, turns=1, turn_seconds=0.01) as ask:
        first = asyncio.ensure_future(ask("POST", "/work", headers=by("a")))
        await until(lambda: engine.at_work == 1)
        late = await ask("POST", "/work", headers=by("b"))
        assert (late.status, late.json()["code"]) == (503, "unavailable") and late.headers["retry-after"]
        engine.gate.set()
        assert (await first).status == 200 and ask.app.node.limits.queue.free == 1


@pytest.mark.parametrize("wrong", [{"requests": -1}, {"bytes": float("nan")}, {"watchers": -1}, {"turns": 0}, {"turn_seconds": 0}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """`Invalid`; zero means no limit."""
    with pytest.raises(perdure.Invalid):
        LimitOptions(**wrong)
    TenantLimits(LimitOptions(requests=0, commits=0, bytes=0), lambda: 0.0).take("a", requests=1e9, commits=1e9, bytes=1e12)


def test_a_quota_that_refuses_leaves_the_others_as_they_were() -> None:
    """All units are taken, or none: nine requests whose bytes are refused cost no request."""
    limits = TenantLimits(LimitOptions(requests=2, bytes=100), lambda: 50.0)
    limits.take("a", requests=1, bytes=100)
    for _ in range(9):
        with pytest.raises(perdure.QuotaExceeded) as refused:
            limits.take("a", requests=1, bytes=1)
        assert refused.value.facts["quota"] == "bytes"
    limits.take("a", requests=1)
    with pytest.raises(perdure.QuotaExceeded) as refused:
        limits.take("a", requests=1)
    assert refused.value.facts["quota"] == "requests"
