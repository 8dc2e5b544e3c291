"""What wears a service out, if anything does: all kinds of calls, by clients that come and go, over names that come again."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from urllib.parse import urlsplit

import perdure
from perdure import Event
from tests.support.backends.scenarios import retrying
from tests.support.service.listening import request

SESSIONS = 60
SHORT_LIVED = 200
TAIL = 20
"""Notes that a session keeps in its state."""


async def writes(store: perdure.Store, chance: random.Random) -> None:
    """An update, or an append with a key that is sent twice."""
    session = f"s{chance.randrange(SESSIONS)}"
    if chance.random() < 0.5:
        await store.update(session, lambda draft: draft.state.update(tail=[*draft.state.get("tail", []), chance.random()][-TAIL:]))
    else:
        key = f"k{chance.getrandbits(60)}"
        first = await store.append(session, Event("note", "x" * 300), key=key)
        assert (await store.append(session, Event("note", "x" * 300), key=key)).version == first.version


async def reads(store: perdure.Store, chance: random.Random) -> None:
    """A read, and the newest commits."""
    session = f"s{chance.randrange(SESSIONS)}"
    with suppress(perdure.NotFound):
        await store.read(session)
        assert len([commit async for commit in store.history(session, newest_first=True, limit=5)]) <= 5


async def lives(store: perdure.Store, chance: random.Random) -> None:
    """A session begins, ends and leaves nothing. One caller at a time."""
    session = f"t{chance.randrange(SHORT_LIVED)}"
    await store.append(session, Event("note", {"text": "y" * 1000}), recreate=True)
    await store.delete(session)
    await store.purge(session)


async def leases(store: perdure.Store, chance: random.Random) -> None:
    """A lease is taken, used and released."""
    with suppress(perdure.Held, perdure.Fenced):
        async with store.lease(f"l{chance.randrange(8)}", owner="w", ttl=5, wait=1) as lease:
            await store.append(lease.session, Event("note"), lease=lease)


async def holders(url: str, chance: random.Random) -> None:
    """A lease is taken at a node, used, and released or left alone."""
    session = f"h{chance.randrange(SESSIONS)}"
    head, _ = await asked(url, request("POST", f"/v1/sessions/{session}/lease", b'{"owner": "w", "ttl": 5}', close=True))
    if " 201 " in head:
        named = next(line for line in head.splitlines() if line.lower().startswith("perdure-lease:"))
        body = b'{"events": [{"type": "note"}]}'
        await asked(url, request("POST", f"/v1/sessions/{session}/commits", body, named, close=True))
        if chance.random() < 0.7:
            await asked(url, request("DELETE", f"/v1/sessions/{session}/lease", None, named, close=True))
    else:  # It was left alone: whoever asks for it gets it in the end.
        assert " 423 " in head, head
        await asked(url, request("POST", f"/v1/sessions/{session}/lease", b'{"owner": "w", "ttl": 5, "wait": 0.1}', close=True))


async def asked(url: str, data: bytes) -> tuple[str, bytes]:
    """The head and the body of an answer, on a connection of its own."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, family=socket.AF_INET)
    writer.write(data)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return head.decode(), body


async def watches(store: perdure.Store, chance: random.Random) -> None:
    """A watcher waits for a commit or two."""
    session = f"s{chance.randrange(SESSIONS)}"
    with suppress(TimeoutError, perdure.NotFound):
        async with asyncio.timeout(5), aclosing(store.watch(session)) as commits:  # type: ignore[type-var]
            seen = 0
            async for _ in commits:
                seen += 1
                if seen > 50:
                    return


async def strangers(url: str, chance: random.Random) -> None:
    """A connection of its own: a whole request, half of one, or a stream that is left."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, family=socket.AF_INET)
    session = f"s{chance.randrange(SESSIONS)}"
    writer.write(
        chance.choice([
            request("GET", f"/v1/sessions/{session}", close=True),
            request("POST", f"/v1/sessions/{session}/commits", b'{"events": [{"type": "note"}]}', close=True),
            request("POST", f"/v1/sessions/{session}/commits", b'{"events": [{"type": "note"}]}')[:-7],
            request("GET", f"/v1/sessions/{session}/watch"),
            request("GET", "/v1/changes"),
            b"nonsense\r\n\r\n",
        ])
    )  # fmt: skip
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(1):
            await reader.read(1 << 16)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def wear(url: str, urls: list[str], seconds: float, seed: int) -> Counter[str]:
    """All of it for so long, by clients that are closed in the end. How many calls of each kind there were."""
    made = Counter[str]()
    until = asyncio.get_running_loop().time() + seconds

    async def again(name: str, call: Callable[[random.Random], Awaitable[None]], chance: random.Random) -> None:
        while asyncio.get_running_loop().time() < until:
            await retrying(lambda: call(chance))
            made[name] += 1

    async with perdure.open(url) as one, perdure.open(url) as other, asyncio.TaskGroup() as group:
        for call, count in ((writes, 8), (reads, 8), (lives, 1), (leases, 2), (watches, 6)):
            for number in range(count):
                store, chance = (one, other)[number % 2], random.Random(f"{seed}/{call.__name__}/{number}")
                group.create_task(again(call.__name__, lambda chance, call=call, store=store: call(store, chance), chance))  # type: ignore[misc]
        for number, each in enumerate(urls):
            chance = random.Random(f"{seed}/{number}")
            group.create_task(again("strangers", lambda chance, each=each: strangers(each, chance), chance))  # type: ignore[misc]
            group.create_task(again("holders", lambda chance, each=each: holders(each, chance), chance))  # type: ignore[misc]
    return made
