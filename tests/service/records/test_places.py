"""Bodies out of line, archives, policies and snapshots are the node's: clients read and write as if there were none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.backends.spi import Query
from perdure.model.ids import SessionKey
from perdure.service.hooks import Credential, RequestHead, Scope
from tests.support.service.nodes import Serving, serving

LARGE = "says what agents say " + "é".join(str(number) for number in range(20_000))


def at_the_node(node: Serving, work: Coroutine[Any, Any, Any]) -> Any:
    """Run it on the node's loop."""
    return asyncio.run_coroutine_threadsafe(work, node.loop).result(60)


async def test_large_bodies_lie_where_the_node_puts_them(tmp_path: Path) -> None:
    """A commit above the node's `blob_bytes` is stored out of line by the node, and reads whole for every client: state, history, changes,
    a retry and a proof."""
    blobs = tmp_path / "blobs"
    url = f"sqlite:///{tmp_path}/store.db"
    with serving(url, blobs=f"file://{blobs}", blob_bytes=4096) as node:
        async with perdure.open(node.url) as store, perdure.open(node.url) as other:
            await store.append("s", Event("small"))
            await store.append("s", Event("large", LARGE, (op.set("/text", LARGE),)), key="k")
            again = await store.append("s", Event("large", LARGE, (op.set("/text", LARGE),)), key="k")
            assert again.duplicate
            assert any(path.is_file() and path.stat().st_size > 4096 for path in blobs.rglob("*"))
            assert (await other.read("s")).state == {"text": LARGE}
            assert [commit.events[0].data for commit in [each async for each in other.history("s")]] == [None, LARGE]
            async for change in other.changes():
                if change.commit.version == 2:
                    assert change.commit.events[0].data == LARGE
                    break
            assert (await other.verify("s")).commits == 2
            async with store.edit("s") as draft:
                draft.state["more"] = 1
            assert (await store.read("s")).state["more"] == 1


async def test_pages_of_large_bodies_are_short(tmp_path: Path) -> None:
    """An answer holds about 4 MiB of bodies that lie elsewhere, however many records were asked for: history and changes are whole all the
    same, and a state is loaded without the bodies that do not change it."""
    from perdure.service.records.face import BODIES_BYTES

    large = [random.Random(number).randbytes(900_000).hex() for number in range(8)]
    with serving(f"sqlite:///{tmp_path}/store.db", blobs=f"file://{tmp_path}/blobs", blob_bytes=4096) as node:
        async with perdure.open(node.url) as store:
            for text in large:
                await store.append("s", Event("large", text))
            await store.append("s", Event("small", None, (op.set("/n", 1),)))
            driver = store._context.core.backend.driver  # type: ignore[attr-defined]
            page = await store._context.core.backend.run(driver.read(SessionKey("default", "s"), 0, None, 256, reverse=False))  # type: ignore[attr-defined]
            assert 1 <= len(page) < 9
            assert sum(len(record.body) for record in page) <= BODIES_BYTES + 2_000_000
            assert [commit.events[0].data async for commit in store.history("s")] == [*large, None]
            found = []
            async for change in store.changes():
                found.append(change.commit.events[0].data)
                if len(found) == 9:
                    break
            assert found == [*large, None]
        async with perdure.open(node.url) as store:
            loaded = await store._context.core.backend.load(SessionKey("default", "s"))
            assert loaded is not None
            assert all(len(record.body) < 4096 for record in loaded.records)
            assert (await store.read("s")).state == {"n": 1}


async def test_where_the_bytes_are(tmp_path: Path) -> None:
    """A client is told where they are in the engine of the node: bodies out of line, and nothing of what lies in the archive."""
    url, places = f"sqlite:///{tmp_path}/store.db", {"blobs": f"file://{tmp_path}/blobs", "archive": f"file://{tmp_path}/archive"}
    with serving(url, blob_bytes=4096, **places) as node:
        async with perdure.open(node.url) as store, perdure.open(url, blob_bytes=4096, **places) as direct:
            await store.append("s", Event("large", LARGE, (op.set("/text", LARGE),)))
            for session in ("s", "t"):
                for number in range(9):
                    await store.append(session, Event("note", number, (op.add("/n", 1),)))
            await store.archive("t")
            await store.delete("t")
            for session in ("s", "t"):
                assert await store.sizes(session, parts=3, include_deleted=True) == await direct.sizes(
                    session, parts=3, include_deleted=True
                )
            found = await store.sizes("s")
            assert found.blob_commits == 1 and found.parts[1].path == "/text"
            for wrong in (-1, 2_000_000):
                with pytest.raises(perdure.Invalid, match="parts"):
                    await store.sizes("s", parts=wrong)
            with pytest.raises(perdure.Deleted):
                await store.sizes("t")


async def test_an_archived_session_is_read_and_woken_by_clients(tmp_path: Path) -> None:
    """A session that the node has archived reads as before, and the first write of a client makes it live again."""
    with serving(f"sqlite:///{tmp_path}/store.db", archive=f"file://{tmp_path}/archive") as node:
        async with perdure.open(node.url) as store:
            for number in range(5):
                await store.append("s", Event("note", number, (op.add("/n", 1),)))
            await asyncio.to_thread(at_the_node, node, node.node.store.archive("s"))
        async with perdure.open(node.url) as store:
            view = await store.read("s")
            assert (view.state, view.status.name) == ({"n": 5}, "archived")
            assert [commit.events[0].data async for commit in store.history("s", types=["note"])] == [0, 1, 2, 3, 4]
            assert (await store.read("s", at=3)).state == {"n": 3}
            await store.append("s", Event("note", 5, (op.add("/n", 1),)))
            view = await store.read("s")
            assert (view.state, view.status.name) == ({"n": 6}, "active")
        assert (await asyncio.to_thread(at_the_node, node, node.node.store.verify("s"))).version == view.version


async def test_who_follows_with_a_cursor_alone_misses_nothing_that_was_archived(tmp_path: Path) -> None:
    """Sessions go to the archive before a follower comes to them: it gets all their commits, each session's in order and without a gap."""
    with serving(f"sqlite:///{tmp_path}/store.db", archive=f"file://{tmp_path}/archive") as node:
        async with perdure.open(node.url) as store:
            for name, count in (("s", 9), ("t", 3), ("u", 5)):
                for number in range(count):
                    await store.append(name, Event("note", number, (op.add("/n", 1),)))
            cursor, got = None, dict[str, list[int]]()
            async for change in store.changes(follow=False):
                got.setdefault(change.session, []).append(change.commit.version)
                if got == {"s": [1, 2, 3, 4]}:
                    cursor = change.cursor
                    break
            for name in ("s", "t", "u"):
                await store.archive(name)
            await store.append("t", Event("woken"))
            await store.compact("u", keep=timedelta(0))
        async with perdure.open(node.url) as store:
            async for change in store.changes(after=cursor, follow=False):
                got.setdefault(change.session, []).append(change.commit.version)
            assert got == {name: list(range(1, (await store.read(name)).version + 1)) for name in ("s", "t", "u")}


class Scoped:
    """Credentials with these scopes, for everyone."""

    def __init__(self, *scopes: Scope) -> None:
        self._scopes = frozenset(scopes)

    async def credential(self, head: RequestHead) -> Credential:
        return Credential("default", self._scopes)


async def test_sessions_begin_with_the_policy_of_their_prefix(tmp_path: Path) -> None:
    """A client that may append and nothing else starts a session, and a fork, under a prefix policy; it sets none of its own."""
    with serving(f"sqlite:///{tmp_path}/store.db", node={"authenticator": Scoped(Scope.read, Scope.append)}) as node:
        await asyncio.to_thread(at_the_node, node, node.node.store.configure(prefix="trip-", expire_after=timedelta(days=30)))
        async with perdure.open(node.url) as store:
            await store.append("trip-1", Event("note", None, (op.set("/a", 1),)))
            assert (await store.policy("trip-1")).expire_after == timedelta(days=30)
            await store.append("other", Event("note"))
            assert (await store.policy("other")).expire_after is None
            fork = await store.fork("trip-1", id="trip-2")
            assert (await store.policy(fork)).expire_after == timedelta(days=30)
            rows = [info.session async for info in store.list()]
            assert rows == ["other", "trip-1", "trip-2"]
            for call in (store.configure("other", tags={"a": "b"}), store.delete("other")):
                with pytest.raises(perdure.Unauthorized, match="admin"):
                    await call
        due = await asyncio.to_thread(at_the_node, node, _due(node))
        assert due == {"trip-1", "trip-2"}


async def _due(node: Serving) -> set[str]:
    page = await node.backend.scan(Query("default", order="due"))
    return {row.session.id for row in page.items}


async def test_nodes_make_the_snapshots(tmp_path: Path) -> None:
    """Clients store none; when the log outweighs the last one, the node does, so that a cold client reads little."""
    with serving(f"sqlite:///{tmp_path}/store.db", snapshot_bytes_min=2_000) as node:
        async with perdure.open(node.url, snapshot_bytes_min=2_000) as store:
            for number in range(60):
                async with store.edit("s") as draft:
                    draft.state[f"k{number}"] = "x" * 60
        loaded = await asyncio.to_thread(at_the_node, node, node.backend.load(SessionKey("default", "s")))
        assert loaded.snapshot is not None
        assert loaded.snapshot.version > 20
        async with perdure.open(node.url) as store:
            assert len((await store.read("s")).state) == 60


async def test_alarms_are_claimed_through_a_node(tmp_path: Path) -> None:
    """A worker claims what is due, with the scopes read, append and lease."""
    with serving(f"sqlite:///{tmp_path}/store.db", node={"authenticator": Scoped(Scope.read, Scope.append, Scope.lease)}) as node:
        home = node.node.store
        await asyncio.to_thread(at_the_node, node, home.append("job", Event("note")))
        wake = home.configure("job", wake_at=datetime.now(UTC) - timedelta(seconds=5), wake="claim")
        await asyncio.to_thread(at_the_node, node, wake)
        async with perdure.open(node.url) as store:
            claimed = []
            async for lease in store.claim(owner="w", ttl=30):
                await store.append(lease.session, Event("worked"), lease=lease)
                claimed.append(lease.session)
            assert claimed == ["job"]
            assert [lease.session async for lease in store.claim(owner="w", ttl=30)] == []
            types = [event.type async for commit in store.history("job") for event in commit.events]
            assert types == ["note", "configured", "woken", "worked", "handled"]
