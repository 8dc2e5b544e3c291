"""The types that users see: read by the type checker, never run. Each asynchronous line stands beside its blocking twin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, assert_type

import perdure
import perdure.sync
from perdure import Change, Clash, Commit, Durability, Event, Info, Op, Policy, Receipt, Sizes, Status, Verified, View, op, ops


async def opening() -> None:
    async with perdure.open("sqlite:///agents.db", tenant="acme", durability="local", cache_bytes=1 << 20) as store:
        assert_type(store, perdure.Store)
        assert_type(store.for_tenant("other"), perdure.Store)
        assert_type(store.id, str)
        assert_type(store.capabilities, perdure.Capabilities)
    assert_type(await perdure.open(), perdure.Store)

    with perdure.sync.open("sqlite:///agents.db", tenant="acme", durability=Durability.local) as blocking:
        assert_type(blocking, perdure.sync.Store)
        assert_type(blocking.for_tenant("other"), perdure.sync.Store)
        assert_type(blocking.asynchronous, perdure.Store)


async def writing(store: perdure.Store, blocking: perdure.sync.Store) -> None:
    message = Event("message", {"role": "user"}, ops=(op.add("/turns", 1),))
    assert_type(await store.append("s", message, expect=0, key="k", actor="a", on_conflict="raise"), Receipt)
    assert_type(blocking.append("s", message, expect=0, key="k", actor="a", on_conflict="raise"), Receipt)

    async with store.edit("s", actor="a", create=False) as draft:
        assert_type(draft, perdure.Draft)
        draft.state["anything"] = [1, {"goes": None}]
        assert_type(draft.version, int)
    assert_type(draft.receipt, Receipt | None)
    with blocking.edit("s", actor="a", create=False) as draft:
        assert_type(draft, perdure.Draft)

    def book(draft: perdure.Draft) -> str:
        draft.add("/seats", -1)
        draft.require("/budget")
        draft.event("booked", {"seat": 4})
        return "4A"

    receipt, _ = await store.update("s", book)
    assert_type(receipt, Receipt | None)
    receipt, _ = blocking.update("s", book)
    assert_type(receipt, Receipt | None)

    assert_type(await store.configure("s", tags={"team": "ops"}), Receipt)
    assert_type(blocking.configure("s", tags={"team": "ops"}), Receipt)
    assert_type(await store.configure("s", expire_after=60, keep=100, drop=True, wake_every=None), Receipt)
    assert_type(await store.policy("s"), Policy)
    assert_type(blocking.policy(prefix="trip-"), Policy)
    assert_type(await store.delete("s"), Receipt)
    assert_type(blocking.delete("s"), Receipt)


async def following(store: perdure.Store, blocking: perdure.sync.Store) -> None:
    assert_type(store.watch("s", after=3), AsyncIterator[Commit])
    assert_type(store.watch(prefix="s", after="cursor"), AsyncIterator[Change])
    assert_type(store.watch(tags={"team": "ops"}), AsyncIterator[Change])
    assert_type(store.changes(after="cursor", types={"a"}, prefix="s", tags={"a": "b"}, control=True, follow=False), AsyncIterator[Change])
    assert_type(blocking.watch("s", after=3), Iterator[Commit])
    assert_type(blocking.watch(prefix="s"), Iterator[Change])
    assert_type(blocking.changes(), Iterator[Change])
    async for change in store.changes():
        assert_type(change.session, str)
        assert_type(change.commit, Commit)
        assert_type(change.cursor, str)
        assert_type(change.key("indexer"), str)

    async def handle(changes: list[Change]) -> None: ...

    def handle_now(changes: list[Change]) -> None: ...

    assert_type(await ops.consume(store, "indexer", handle, batch=10), ops.Consumed)
    assert_type(ops.consume(blocking, "indexer", handle_now, batch=10), ops.Consumed)
    assert_type(await ops.consumers(store), list[ops.ConsumerInfo])
    assert_type(ops.retry(blocking, "indexer", "s"), int)


async def reading(store: perdure.Store, blocking: perdure.sync.Store) -> None:
    view = await store.read("s", consistency="eventual", max_staleness=0.5, at_least="token")
    assert_type(view.token, str)
    assert_type(blocking.read("s", consistency="eventual", max_staleness=5, at_least=view.token), View)
    assert_type(store.cache_info(), perdure.CacheInfo)
    assert_type(blocking.cache_info().shared, perdure.SharedCacheInfo | None)
    assert_type(await store.read("s"), View)
    assert_type(blocking.read("s"), View)
    view = await store.read("s", at=datetime.now(UTC), consistency="eventual")
    assert_type(view.version, int)
    assert_type(view.hash, bytes)
    assert_type(view.status, Status)
    assert_type(view.tags, Mapping[str, str])
    assert_type(view.created_at, datetime)

    assert_type(store.history("s", types=["message"], newest_first=True, limit=3), AsyncIterator[Commit])
    assert_type(blocking.history("s", types=["message"], newest_first=True, limit=3), Iterator[Commit])
    assert_type(store.watch("s", after=3, types={"message"}), AsyncIterator[Commit])
    assert_type(blocking.watch("s"), Iterator[Commit])
    async for commit in store.history("s", after=1, before=9):
        assert_type(commit.version, int)
        assert_type(commit.actor, str | None)
        assert_type(commit.events, tuple[Event, ...])

    assert_type(store.list(prefix="trip-", tags={"team": "ops"}, status="active"), AsyncIterator[Info])
    assert_type(blocking.list(prefix="trip-", tags={"team": "ops"}, status=Status.active), Iterator[Info])
    assert_type(await store.verify("s"), Verified)
    assert_type(blocking.verify("s"), Verified)
    assert_type(await store.sizes("s"), Sizes)
    assert_type(blocking.sizes("s"), Sizes)


async def branching(store: perdure.Store, blocking: perdure.sync.Store) -> None:
    def theirs_first(clash: Clash) -> Sequence[Op]:
        assert_type(clash.paths, Sequence[str])
        return clash.mine[:1]

    assert_type(await store.fork("s", at=3, id="child"), str)
    assert_type(blocking.fork("s", at=3, id="child"), str)
    assert_type(await store.merge("child", into="s", on_conflict=theirs_first), Receipt | None)
    assert_type(blocking.merge("child", into="s", on_conflict=theirs_first), Receipt | None)


def results(receipt: Receipt, info: Info, error: perdure.Conflict) -> None:
    assert_type(receipt.version, int)
    assert_type(receipt.durability, Durability)
    assert_type(receipt.duplicate, bool)
    assert_type(info.session, str)
    assert_type(info.updated_at, datetime)
    assert_type(error.code, str)
    assert_type(error.retryable, bool)
    assert_type(error.http_status, int)


def answers(receipt: Receipt, info: Info, view: View, commit: Commit) -> None:
    for answer in (receipt, info, view, commit):
        assert_type(answer.to_dict(), dict[str, Any])
        assert_type(answer.time, datetime)


def annotated(policy: perdure.OnConflict, upcaster: perdure.Upcaster) -> perdure.Opening:
    opening: perdure.Opening = perdure.open("memory:", upcasters={"old": upcaster})
    return opening


async def editing(store: perdure.Store, policy: perdure.OnConflict) -> perdure.Edit:
    return store.edit("s", on_conflict=policy)


def operations() -> None:
    made: list[Op] = [
        op.set("/a", 1),
        op.remove("/a"),
        op.init("/a", {}),
        op.append("/l", [1, "two"]),
        op.splice("/l", 0, 1, ["x"]),
        op.add("/n", 0.5),
        op.union("/l", ("a",)),
        op.merge("/o", {"a": None}),
        op.test("/a", None),
    ]
    assert_type(made[0].path, str)
    assert_type(made[0].value, Any)


async def refused(store: perdure.Store, blocking: perdure.sync.Store) -> None:
    # What must not type-check: mypy reports an ignore that is not needed.
    await store.append("s", {"type": "message"})  # type: ignore[arg-type]
    await store.read("s", consistency="sometimes")  # type: ignore[arg-type]
    store.append("s", Event("forgotten await"))  # type: ignore[unused-coroutine]
    store.edit("s", on_conflict="overwrite")  # type: ignore[arg-type]
    blocking.history("s", limit="3")  # type: ignore[arg-type]
    Event(type=3)  # type: ignore[arg-type]
