"""Plain appends that go together: one request, and each its own fate."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import perdure
from perdure.backends.conformance import behind, versions
from perdure.backends.spi import Appended, Head
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.ministack import MiniStack
from tests.servers.proxy import Proxy
from tests.support.backends.fake_dynamodb import ENGINE, Faults, chain
from tests.support.backends.scenarios import opened

MANY = [SessionKey("acme", f"s'\"{number}") for number in range(20)]


async def turn(backend: Any) -> list[Head]:
    """One append to each session at once."""
    outcomes = await backend.append([behind(session) for session in MANY])
    assert all(isinstance(outcome, Appended) for outcome in outcomes), outcomes
    return [outcome.head for outcome in outcomes]


async def chains(backend: Any) -> set[tuple[int, ...]]:
    """The versions that the sessions have, each list once."""
    return {tuple(await versions(backend, session)) for session in MANY}


class Sent:
    """Counts what leaves a client, by operation."""

    def __init__(self, backend: Any) -> None:
        self.operations: list[str] = []
        backend.driver.table.client.meta.events.register("before-send.dynamodb", self._sent)

    def _sent(self, request: Any, **_: Any) -> None:
        self.operations.append(request.headers["X-Amz-Target"].decode().partition(".")[2])


async def test_who_lost_a_race_does_not_hold_up_the_others(url: str) -> None:
    """In a batch some of whose sessions moved on, those are appended behind the true head, and the others as if nothing had been."""

    async with opened(url) as one, opened(url) as two:
        await turn(one)
        for session in MANY[:5]:
            await chain(two, session, 2, salt=b"two")
        sent = Sent(one)
        heads = await turn(one)
        assert [head.version for head in heads] == [4] * 5 + [2] * 15
        assert sent.operations[0] == "BatchExecuteStatement"
        assert "TransactWriteItems" not in sent.operations
        for session, head in zip(MANY, heads, strict=True):
            assert await versions(two, session) == list(range(1, head.version + 1))


async def test_a_truncation_in_between_changes_nothing(url: str) -> None:
    """A batch that was made on headers which another process has truncated since is made anew, and stored."""

    async with opened(url) as one, opened(url) as two:
        await turn(one)
        for session in MANY[:3]:
            (head,) = await chain(two, session, 1, kind=perdure.model.commit.Kind.anchor)
            await one.heads([session])
            await two.truncate(session, 2, (2, head.hash))
        assert [head.version for head in await turn(one)] == [3] * 3 + [2] * 17
        assert await versions(two, MANY[0]) == [2, 3]
        assert await versions(two, MANY[9]) == [1, 2]


async def test_statements_that_fail_alone(url: str) -> None:
    """Statements that were not done are sent alone, those of which nobody knows are looked up first; each is in its chain once."""
    certain = ["ThrottlingError", "TransactionConflict", "ProvisionedThroughputExceeded", "AccessDenied"]
    codes = ["InternalServerError", "Unheard", *certain]

    async with opened(url) as backend:
        await turn(backend)
        faults, sent = Faults(backend, "BatchExecuteStatement"), Sent(backend)
        for code in codes:
            faults.answer({"Responses": [{"Error": {"Code": code, "Message": "injected"}}] * len(MANY)})
            sent.operations.clear()
            await turn(backend)
            assert faults.left == 0
            assert (sent.operations == ["UpdateItem"] * len(MANY)) is (code in certain)
        sent.operations.clear()
        await turn(backend)
        assert sent.operations == ["UpdateItem"] * len(MANY)
        assert await chains(backend) == {tuple(range(1, len(codes) + 3))}


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnknownOperationException"])
async def test_a_batch_that_fails(url: str, code: str) -> None:
    """A batch is sent again, or looked up; where statements are not allowed or not known, it is given up for good: its appends go alone."""

    async with opened(url) as backend:
        await turn(backend)
        faults, sent = Faults(backend, "BatchExecuteStatement"), Sent(backend)
        for passing, status in (("ThrottlingException", 400), ("InternalServerError", 500)):
            faults.throw(passing, 2, status=status)
            await turn(backend)
            assert faults.left == 0
        await turn(backend)
        assert "BatchExecuteStatement" in sent.operations
        faults.throw(code, 2)
        await turn(backend)
        assert faults.left == 1
        sent.operations.clear()
        await turn(backend)
        assert sent.operations == ["UpdateItem"] * len(MANY)
        assert await chains(backend) == {(1, 2, 3, 4, 5, 6)}


async def test_an_answer_that_is_cut_off_is_looked_up_for_each(servers: Servers[MiniStack]) -> None:
    """A batch whose answer was lost after it was done goes out once; every append learns that it is stored."""
    server = servers(MiniStack)

    port = server.port("aws")
    async with Proxy(port) as proxy, opened(ENGINE.url(server).replace(f":{port}", f":{proxy.port}")) as backend:
        await turn(backend)
        sent = Sent(backend)
        proxy.cut()
        await turn(backend)
        assert proxy.cuts == 1
        assert sent.operations.count("BatchExecuteStatement") == 1
        assert "UpdateItem" not in sent.operations
        assert await chains(backend) == {(1, 2)}


async def test_a_caller_that_is_cancelled_leaves_the_others_theirs(url: str) -> None:
    """Of many appends at once, half of whose callers go away, the other half are stored, and the store closes."""

    async with perdure.open(url) as store:
        for number in range(20):
            await store.append(f"s{number}", perdure.Event("message", number))
        tasks = [asyncio.create_task(store.append(f"s{number}", perdure.Event("message", "again"))) for number in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(receipt, perdure.Receipt) for receipt in done[1::2]), done
    async with perdure.open(url) as store:
        for number in range(1, 20, 2):
            assert (await store.verify(f"s{number}")).version == 2
