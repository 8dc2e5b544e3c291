"""Following commits where something is wrong: lost commits, outages, damage, cursors of others, bad input."""

from __future__ import annotations

import asyncio
import shutil
from base64 import urlsafe_b64decode
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Change, Event
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Change as FeedEntry
from perdure.backends.spi import Page
from perdure.clock import SystemClock
from perdure.engine.store import system_store
from perdure.model.ids import SessionKey
from tests.support.engine.following import changes, collect, followed, versions
from tests.support.engine.watchers import on, until


@pytest.mark.parametrize("after", ["nothing", "fewer", "as many", "more"])
async def test_a_store_that_was_restored_is_rewound(tmp_path: Path, after: str) -> None:
    """A cursor from before a backup was put back is `Rewound`, whatever was written since; one from within the backup goes on."""
    file, backup = tmp_path / "store.db", tmp_path / "backup.db"
    url = f"sqlite:///{file}"
    async with perdure.open(url) as store:
        for _ in range(3):
            await store.append("s", Event("n"))
    shutil.copy(file, backup)
    async with perdure.open(url) as store:
        kept = (await changes(store))[-1].cursor
        for _ in range(3):
            await store.append("s", Event("lost"))
        await store.append("t", Event("lost"))
        lost = [change.cursor for change in await changes(store, after=kept)]
    shutil.copy(backup, file)
    async with perdure.open(url) as store:
        for _ in range({"nothing": 0, "fewer": 1, "as many": 3, "more": 8}[after]):
            await store.append("s", Event("n"))
            await store.append("t", Event("n"))
        for cursor in lost:
            for follow in (True, False):
                with pytest.raises(perdure.Rewound):
                    [change async for change in store.changes(after=cursor, follow=follow)]
        await changes(store, after=kept)


async def test_a_failover_under_a_follower_is_rewound() -> None:
    """Where an engine's failover may lose commits, a follower that has seen some that are gone gets `Rewound` before the next ones."""

    class Loses(MemoryBackend):
        capabilities = perdure_capabilities(failover_loss=perdure.Durability.memory)

    backend = Loses(SystemClock())
    async with on(backend) as store:
        await store.append("other", Event("n"))
        async with aclosing(store.changes()) as given:  # type: ignore[type-var]
            await store.append("s", Event("lost"))
            assert [(await anext(given)).session for _ in range(2)] == ["other", "s"]
            del backend._chains[SessionKey("default", "s")]
            store._core.cache.drop(SessionKey("default", "s"))
            await store.append("other", Event("n"))
            with pytest.raises(perdure.Rewound):
                await anext(given)


def perdure_capabilities(**changed: Any) -> Any:
    return msgspec.structs.replace(MemoryBackend.capabilities, **changed)


async def test_an_outage_is_waited_for_and_has_an_end() -> None:
    """A follower goes on when the engine is back, and skips nothing; after `watch_outage` seconds, or without `follow`, it raises."""

    class Away(MemoryBackend):
        away = False

        async def feed(self, cursor: str | None = None, limit: int = 256) -> Page[FeedEntry]:
            if self.away:
                raise perdure.Unavailable("It is away.")
            return await super().feed(cursor, limit)

    backend = Away(SystemClock())
    async with on(backend) as store:
        await store.append("s", Event("n"))
        async with aclosing(store.changes()) as given:  # type: ignore[type-var]
            assert (await anext(given)).commit.version == 1
            backend.away = True
            waiting = asyncio.create_task(anext(given))
            for _ in range(2):
                await store.append("s", Event("n"))
            with pytest.raises(perdure.Unavailable):
                await changes(store)
            assert not waiting.done()
            backend.away = False
            assert (await waiting).commit.version == 2
            assert (await anext(given)).commit.version == 3
    backend = Away(SystemClock())
    backend.away = True
    async with on(backend, watch_outage=0.1) as store:
        with pytest.raises(perdure.Unavailable):
            await followed(store, 1)


async def test_damage_stops_it_after_what_came_before(url: str) -> None:
    """A record that is not what was written is `Corrupt`, after all changes before it were given; another tenant's stops nobody."""
    async with perdure.open(url) as store:
        await store.append("s", Event("n"))
        await store.append("damaged", Event("n"))
        await store.for_tenant("another").append("damaged", Event("n"))
        core = store._core
        feed = core.backend.feed

        async def damaged(cursor: str | None = None, limit: int = 256) -> Page[FeedEntry]:
            page = await feed(cursor, limit)
            replace = msgspec.structs.replace
            bad = [replace(one, record=replace(one.record, meta=b"\0" * 40)) if one.session.id == "damaged" else one for one in page.items]
            return Page(bad, page.cursor)

        core.backend.feed = damaged  # type: ignore[method-assign]
        found: list[Change] = []
        with pytest.raises(perdure.Corrupt, match="damaged"):
            await collect(found, store.changes(follow=False))
        assert versions(found) == {"s": [1]}
        assert [item async for item in store.for_tenant("a third").changes(follow=False)] == []


async def test_it_is_broken_off_and_closed() -> None:
    """A follower that is cancelled, or broken off, leaves nothing registered; one that waits while the store is closed gets `Closed`."""
    async with on(MemoryBackend(SystemClock())) as store:
        await store.append("s", Event("n"))
        assert len(await followed(store, 1)) == 1
        waiting = asyncio.create_task(followed(store, 2))
        await until(lambda: bool(store._core.watchers._followers))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert store._core.watchers._followers == {}
        left = asyncio.create_task(followed(store, 2))
        await until(lambda: bool(store._core.watchers._followers))
        await store.close()
        with pytest.raises(perdure.Closed):
            await left


BAD = [
    (lambda store: store.changes(after="nonsense"), "no cursor"),
    (lambda store: store.changes(after=""), "no cursor"),
    (lambda store: store.changes(after="\ud800"), "no cursor"),
    (lambda store: store.changes(after="ü" * 40), "no cursor"),
    (lambda store: store.changes(after="A" * 2_000_000), "cursor"),
    (lambda store: store.changes(after=7), "a string, not int"),
    (lambda store: store.changes(types="message"), "a collection of event types"),
    (lambda store: store.changes(prefix="a\nb"), "control characters"),
    (lambda store: store.changes(prefix=7), "must be a string"),
    (lambda store: store.changes(tags={"a": 1}), "must be a string"),
    (lambda store: store.changes(tags="a"), "must be a mapping"),
    (lambda store: store.watch(prefix="a", after=3), "a string, not int"),
    (lambda store: store.watch("s", prefix="a"), "not both"),
    (lambda store: store.watch(prefix="a", include_deleted=True), "for one session"),
    (lambda store: store.watch("s", after="cursor"), "whole number"),
    (lambda store: store.watch(), "must be a string, not NoneType"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
async def test_bad_input(number: int) -> None:
    """What cannot be is `Invalid` and says what is wrong, at the first item."""
    call, words = BAD[number]
    async with perdure.open("memory:") as store:
        await store.append("s", Event("n"))
        with pytest.raises(perdure.Invalid, match=words):
            [item async for item in call(store)]  # type: ignore[no-untyped-call]


async def test_a_cursor_belongs_to_its_store_and_tenant(url: str) -> None:
    """A cursor of another store, of another tenant, or with any character changed is `Invalid`; it names no other tenant's session."""
    async with perdure.open(url) as store, perdure.open("memory:") as other:
        await store.append("s", Event("n"))
        await store.for_tenant("another").append("secret-name", Event("n"))
        (change,) = await changes(store)
        assert b"secret" not in urlsafe_b64decode(change.cursor.removeprefix("c1.") + "==")
        for stranger in (other, store.for_tenant("another")):
            with pytest.raises(perdure.Invalid, match="another store or tenant"):
                await changes(stranger, after=change.cursor)
        for place in range(0, len(change.cursor), 5):
            letter = "A" if change.cursor[place] != "A" else "B"
            with pytest.raises(perdure.Invalid):
                await changes(store, after=change.cursor[:place] + letter + change.cursor[place + 1 :])


@pytest.mark.parametrize("tenant", ["~", "~acme", "a" * 255, "é" * 127 + "a"])
async def test_tenants_of_perdures_own(tenant: str) -> None:
    """A user's tenant does not begin with a tilde and has at most 254 bytes."""
    with pytest.raises(perdure.Invalid, match="A tenant m"):
        await perdure.open("memory:", tenant=tenant)
    async with perdure.open("memory:", tenant="a" * 254) as store:
        with pytest.raises(perdure.Invalid, match="A tenant m"):
            store.for_tenant(tenant)
        await system_store(store).append("s", Event("n"))
        assert [info async for info in store.list()] == []
