"""What a store says of itself, through the public calls, as JSON: two stores that say the same hold the same."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from typing import Any

import msgspec

import perdure
from perdure import Commit, Receipt, Store
from perdure.model.commit import Status
from tests.support.golden.content import ACME, CHAT, GLOBEX

SESSIONS = {
    ACME: (
        "plan", CHAT, "sizes", "parent", "branch", "open fork", "fork of a fork", "gone parent", "orphan",
        "deleted", "reborn", "purged", "purged, reborn", "truncated", *(f"job-{number:02}" for number in range(0, 12, 2)), "nobody",
    ),
    GLOBEX: ("plan", *(f"job-{number:02}" for number in range(1, 12, 2))),
}  # fmt: skip
KEYS = (
    "start",
    "two",
    "edit-0",
    "edit-35",
    "msg/1",
    "msg/35",
    "frame",
    "pieces",
    "p0",
    "b0",
    "merge-1",
    "deep",
    "k0",
    "k1",
    "k11",
    "t0",
    "t23",
    "after",
)
"""Some of the idempotency keys that were used, each in one session or several."""
SHOWN = 600
"""Characters up to which a value is in the expectation as it is; a larger one is a digest."""


async def observed(store: Store) -> dict[str, Any]:
    """Everything that can be read."""
    return {
        "sessions": {tenant: {name: await session(store.for_tenant(tenant), name) for name in names} for tenant, names in SESSIONS.items()},
        "lists": {tenant: await lists(store.for_tenant(tenant)) for tenant in SESSIONS},
        "feed": await _feed(store),
    }


async def session(store: Store, name: str) -> dict[str, Any]:
    """Everything that can be read of a session."""
    found: dict[str, Any] = {}
    found["read"] = await _or_code(_read(store, name))
    found["read, ended or not"] = await _or_code(_read(store, name, include_deleted=True))
    found["history"] = await _or_code(_history(store, name))
    found["history, ended or not"] = await _or_code(_history(store, name, include_deleted=True))
    found["verified"] = await _or_code(_verified(store, name))
    found["keys"] = {key: held for key in KEYS if (held := await _or_code(_key(store, name, key))) is not None}
    found["states"] = {version: await _or_code(_state(store, name, version)) for version in (1, 2, 3, 7, 12, 14, 20, 33)}
    return found


async def _or_code(call: Awaitable[Any]) -> Any:
    """What a call gives, or the code of its error, with its facts."""
    try:
        return await call
    except perdure.Error as error:
        facts = {name: value for name in ("first", "version") if (value := getattr(error, name, None)) is not None}
        return {"error": error.code, **facts}


async def _read(store: Store, name: str, *, include_deleted: bool = False) -> dict[str, Any]:
    view = await store.read(name, include_deleted=include_deleted)
    return {**view.to_dict(), "state": shown(view.state)}


async def _state(store: Store, name: str, version: int) -> Any:
    view = await store.read(name, at=version, include_deleted=True)
    return {"hash": view.hash.hex(), "state": shown(view.state)}


async def _history(store: Store, name: str, *, include_deleted: bool = False) -> Any:
    after = 0
    try:
        return [_commit(commit) async for commit in store.history(name, include_deleted=include_deleted)]
    except perdure.Truncated as error:
        after = error.first - 1
    kept = [_commit(commit) async for commit in store.history(name, after=after, include_deleted=include_deleted)]
    return {"truncated below": after + 1, "kept": kept}


def _commit(commit: Commit) -> list[Any]:
    """A commit in a line: its hash covers all of it, its events are shown decoded."""
    events = [event.type for event in commit.events]
    told = commit.to_dict()
    return [commit.version, told["kind"], told["actor"], told["key"], told["at"], told["hash"], events, shown(told["events"], upto=0)]


async def _verified(store: Store, name: str) -> Any:
    found = await store.verify(name)
    return {"version": found.version, "hash": found.hash.hex(), "commits": found.commits, "snapshots": found.snapshots}


async def _key(store: Store, name: str, key: str) -> Any:
    now, ever = await _or_none(store.find(name, key)), await store.find(name, key, include_deleted=True)
    if ever is None:
        return None
    return {"now": _receipt(now), "ever": _receipt(ever)}


async def _or_none(call: Awaitable[Receipt | None]) -> Receipt | None:
    try:
        return await call
    except (perdure.Deleted, perdure.NotFound):
        return None


def _receipt(receipt: Receipt | None) -> Any:
    return None if receipt is None else [receipt.version, receipt.hash.hex(), receipt.duplicate]


async def lists(store: Store) -> dict[str, Any]:
    """A tenant's listings."""
    return {
        "all": [info.to_dict() async for info in store.list()],
        "deleted": [info.session async for info in store.list(status=Status.deleted)],
        "jobs": [info.session async for info in store.list(prefix="job-")],
        "tagged": [info.session async for info in store.list(tags={"team": "jobs"})],
        "tagged twice": [info.session async for info in store.list(tags={"team": "jobs", "lane": "2"})],
        "after": [info.session async for info in store.list(cursor="job-04", limit=3)],
    }


async def _feed(store: Store) -> list[list[Any]]:
    """Every record that the feed tells of; in which order, and how often, is each engine's own."""
    cursor, found = None, set()
    while True:
        page = await store._core.backend.feed(cursor)
        found |= {(*change.session, change.record.head.version, change.record.head.hash.hex()) for change in page.items}
        if not page.items:
            return [list(one) for one in sorted(found)]
        cursor = page.cursor


def shown(value: Any, upto: int = SHOWN) -> Any:
    """A value as it is, or its size and digest."""
    text = msgspec.json.encode(value, order="deterministic")
    return value if len(text) <= upto else f"{len(text)} bytes, {hashlib.sha256(text).hexdigest()[:32]}"
