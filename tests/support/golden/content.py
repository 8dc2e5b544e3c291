"""What every golden store holds: written by the public calls, the same commits with the same hashes on every engine.

Only an anchor and the truncation are made below the public calls, which have no words for them yet.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from unittest.mock import patch

import perdure
from perdure import Event, Store, op
from perdure.backends import registry
from perdure.backends.spi import Backend
from perdure.codec import compress
from perdure.engine import opening
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey

ACME, GLOBEX = "acme", "globex"
CHAT = "chat/7 · ä.b"
LARGE_BYTES, LARGE_STATE_BYTES = 4_300_000, 1_100_000
"""Above what any engine puts in one piece: 4 MiB on MongoDB, 960 KiB for a snapshot on Google."""
_START, _STEP = 1_700_000_000_000_000_000, 1_000_000_000


class StepClock:
    """Time stands still within a step, and each step has randomness of its own: how often anyone looks changes nothing."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._number = 0
        self.step()

    def step(self) -> None:
        """One second later."""
        self._number += 1
        self.bits = random.Random(self._number).getrandbits

    def now(self) -> int:
        """See `Clock`."""
        return _START + self._number * _STEP


class EngineClock:
    """An engine's: the time of the steps, and randomness beside theirs, of which each engine takes as much as it needs."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, steps: StepClock) -> None:
        self.now = steps.now
        self.bits = random.Random(0).getrandbits


class Writers:
    """The stores that write: JSON and MessagePack, each for two tenants, on one clock that goes on before each call."""

    def __init__(self, json: Store, msgpack: Store, clock: StepClock) -> None:
        self._json, self._msgpack, self._clock = json, msgpack, clock

    def rest(self) -> None:
        """Let a minute pass: what is told of the feed is certain then."""
        for _ in range(60):
            self._clock.step()

    def json(self, tenant: str = ACME) -> Store:
        """The store that writes JSON, a second later."""
        self._clock.step()
        return self._json.for_tenant(tenant)

    def msgpack(self, tenant: str = ACME) -> Store:
        """The store that writes MessagePack, a second later."""
        self._clock.step()
        return self._msgpack.for_tenant(tenant)


@asynccontextmanager
async def _writers(url: str) -> AsyncIterator[Writers]:
    clock = StepClock()
    engines = EngineClock(clock)

    async def open_backend(url: str, *, create: bool, **_: object) -> Backend:
        return await registry.open_backend(url, clock=engines, create=create)

    with patch.object(opening, "open_backend", open_backend):
        async with _opened(url, clock) as writers:
            yield writers


@asynccontextmanager
async def _opened(url: str, clock: StepClock) -> AsyncIterator[Writers]:
    async with (
        perdure.open(url, clock=clock, snapshot_bytes_min=2048) as json,
        perdure.open(url, clock=clock, snapshot_bytes_min=2048, format="msgpack") as msgpack,
    ):
        yield Writers(json, msgpack, clock)


async def write(url: str) -> None:
    """Write everything into an empty store."""
    async with _writers(url) as writers:
        await _plan(writers)
        await _chat(writers)
        await _sizes(writers)
        await _fork_and_merge(writers)
        await _read_the_feed(writers)
        await _ended_lives(writers)
        await _truncated(writers)
        await _listed(writers)


def noise(size: int) -> str:
    """Text that repeats itself only after 4 KiB."""
    block = "".join(hashlib.sha256(b"%d" % number).hexdigest() for number in range(64))
    return (block * (size // len(block) + 1))[:size]


@contextmanager
def _uncompressed() -> Iterator[None]:
    """Bodies are stored as they are, so that they fill pieces; a dump of them is small."""
    before = compress.COMPRESS_ABOVE
    compress.COMPRESS_ABOVE = 1 << 40
    try:
        yield
    finally:
        compress.COMPRESS_ABOVE = before


async def _plan(writers: Writers) -> None:
    """A state that is edited 40 times, with every operation, in both formats, and snapshots on the way."""
    first = [
        op.set("/goal", "Lisbon"), op.init("/budget", 900), op.append("/offers", [{"id": 1}, {"id": 2}, {"id": 3}]),
        op.add("/tokens", 12), op.union("/seen", ["a", "b"]), op.merge("/notes", {"a": {"b": None, "c": 1.5}}),
    ]  # fmt: skip
    await writers.json().append("plan", Event("started", {"by": "user"}, tuple(first)), expect=0, key="start", actor="planner")
    second = [op.test("/goal", "Lisbon"), op.splice("/offers", 1, 1, [{"id": 9}]), op.remove("/notes/a/c")]
    await writers.msgpack().append("plan", Event("changed", None, tuple(second)), Event("note", {"n": 2**53 + 1, "big": 2**70}), key="two")
    for number in range(38):
        store = writers.json() if number % 2 else writers.msgpack()
        async with store.edit("plan", key=f"edit-{number}" if number % 5 == 0 else None, actor="worker") as draft:
            draft.state.setdefault("log", []).append({"n": number, "text": noise(100 + number), "ok": number % 3 == 0})
            draft.state["status"] = f"at {number}"
            draft.add("/tokens", number)
    await writers.json().configure("plan", tags={"team": "ops", "stage": "búsqueda"}, actor="admin")
    async with writers.json(GLOBEX).edit("plan", key="start") as draft:
        draft.state["goal"] = "Oslo"


async def _chat(writers: Writers) -> None:
    """A transcript: events without operations, most with keys; its name needs escaping wherever one may have to."""
    for number in range(36):
        store = writers.json() if number < 20 else writers.msgpack()
        role = "user" if number % 2 == 0 else "assistant"
        message = Event("message", {"role": role, "content": f"{number}: what about «{noise(12 + 9 * number)}»?"})
        await store.append(CHAT, message, key=f"msg/{number}" if number % 3 else None)


async def _sizes(writers: Writers) -> None:
    """Bodies of all kinds of compression, one that lies in pieces, and a snapshot that does."""
    await writers.json().append("sizes", Event("with the dictionary", {"text": noise(200) * 10}))
    await writers.msgpack().append("sizes", Event("with the dictionary", {"text": noise(200) * 10}))
    await writers.json().append("sizes", Event("as a frame", {"text": noise(3000) * 10}), key="frame")
    await writers.msgpack().append("sizes", Event("as a frame", {"text": noise(3000) * 10}))
    with _uncompressed():
        await writers.json().append("sizes", Event("in pieces", {"text": noise(LARGE_BYTES)}), key="pieces")
        async with writers.msgpack().edit("sizes") as draft:
            draft.state["document"] = noise(LARGE_STATE_BYTES)
    await writers.json().append("sizes", Event("last"))


async def _fork_and_merge(writers: Writers) -> None:
    """A parent with a fork that was merged twice, one that stays open, and one of the fork; then a parent that is deleted."""
    for number in range(5):
        async with writers.json().edit("parent", key=f"p{number}") as draft:
            draft.state[f"step{number}"] = {"done": True, "cost": number}
    await writers.json().configure("parent", tags={"family": "yes"})
    await writers.json().fork("parent", at=3, id="branch")
    async with writers.msgpack().edit("branch", key="b0") as draft:
        draft.state["found"] = [1, 2, 3]
    async with writers.json().edit("parent") as draft:
        draft.state["step5"] = "beside"
    await writers.json().merge("branch", into="parent", key="merge-1", actor="merger")
    async with writers.json().edit("branch") as draft:
        draft.state["found"].append(4)
    await writers.msgpack().merge("branch", into="parent")
    await writers.json().fork("parent", id="open fork", actor="brancher")
    async with writers.json().edit("open fork") as draft:
        del draft.state["step0"]
    await writers.json().fork("branch", at=4, id="fork of a fork")
    await writers.json().append("fork of a fork", Event("note", {"deep": True}), key="deep")
    async with writers.json().edit("gone parent") as draft:
        draft.state["kept"] = "by the fork"
    await writers.json().fork("gone parent", id="orphan")
    await writers.json().delete("gone parent")


async def _read_the_feed(writers: Writers) -> None:
    """Some engines put down what their feed's readers saw: what is written later is not in it."""
    writers.rest()
    backend, cursor = writers.json()._core.backend, None
    while (page := await backend.feed(cursor)).items:
        cursor = page.cursor


async def _ended_lives(writers: Writers) -> None:
    """Sessions that were deleted, went on after that, were purged, and went on after that."""
    for name in ("deleted", "reborn", "purged", "purged, reborn"):
        for number in range(12):
            store = writers.json() if number % 2 else writers.msgpack()
            async with store.edit(name, key=f"k{number}") as draft:
                draft.state.setdefault("log", []).append(noise(600))
        await writers.json().configure(name, tags={"end": "near"})
        if "purged" in name:
            with _uncompressed():
                await writers.json().append(name, Event("large", {"text": noise(LARGE_BYTES // 4)}))
        await writers.json().delete(name, actor="admin")
        if "purged" in name:
            await writers.json().purge(name)
        if "reborn" in name:
            await writers.json().append(name, Event("again", None, (op.set("/life", 2),)), key="k0", recreate=True)
            await writers.msgpack().append(name, Event("again"), key="k1")
            await writers.json().configure(name, tags={"life": "second"})


async def _truncated(writers: Writers) -> None:
    """A session whose oldest records went, as the engines' own `truncate` does it: after an anchor and with a snapshot."""
    for number in range(24):
        async with writers.json().edit("truncated", key=f"t{number}") as draft:
            draft.state[f"part{number}"] = noise(300)
    store = writers.json()
    core, session = store._core, SessionKey(ACME, "truncated")
    anchor = await core.controls.write(session, Kind.anchor, Event("anchored"), durability=core.durability)
    loaded = await core.backend.load(session)
    assert loaded is not None
    assert loaded.snapshot is not None
    await core.backend.truncate(session, loaded.snapshot.version + 1, (anchor.version, anchor.hash))
    await writers.json().append("truncated", Event("after"), key="after")


async def _listed(writers: Writers) -> None:
    """Further sessions of both tenants, for pages and filters."""
    for number in range(12):
        name, tenant = f"job-{number:02}", (ACME, GLOBEX)[number % 2]
        await writers.json(tenant).append(name, Event("queued", {"n": number}))
        if number % 3 == 0:
            await writers.json(tenant).configure(name, tags={"team": "jobs", "lane": f"{number % 4}"})
    await writers.json(GLOBEX).delete("job-11")
