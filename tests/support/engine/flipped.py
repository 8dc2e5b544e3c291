"""A store whose cells are changed one by one, and what is then asked of it. Right are the true answer and `Corrupt`."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import perdure
from perdure import Event, op

SESSIONS = ("s", "tagged", "dead", "again", "child", "bare")
STEP = Event("step", None, (op.add("/n", 1),))


async def fill(url: str) -> None:
    """Sessions of each kind: with keys and a snapshot, a control commit at the head, a tombstone, a second life, a fork, events alone."""
    async with perdure.open(url, snapshot_bytes_min=300) as store:
        for number in range(7):
            await store.append("s", STEP, key=f"k{number}")
        await store.append("tagged", STEP)
        await store.configure("tagged", tags={"team": "ops"})
        for session in ("dead", "again"):
            await store.append(session, STEP, key="k")
            await store.delete(session)
        await store.append("again", STEP, key="k", recreate=True)
        await store.fork("s", at=3, id="child")
        for number in range(3):
            await store.append("bare", Event("said", number))


def _state(view: perdure.View) -> Any:
    return view.version, view.hash, view.state, view.status, dict(view.tags), view.created_at, view.updated_at


async def _infos(store: perdure.Store, **options: Any) -> Any:
    return [info async for info in store.list(**options)]


async def _past(store: perdure.Store, session: str) -> Any:
    return [commit async for commit in store.history(session)]


async def _written(receipt: Awaitable[perdure.Receipt], store: perdure.Store, session: str) -> Any:
    """What an append answers, and the chain that it leaves."""
    found = await receipt
    return found.version, found.duplicate, [commit.version for commit in await _past(store, session)]


Action = Callable[[perdure.Store], Awaitable[Any]]


async def _read(store: perdure.Store, session: str) -> Any:
    return _state(await store.read(session))


READS: dict[str, Action] = {
    **{f"read {name}": lambda store, name=name: _read(store, name) for name in SESSIONS},  # type: ignore[misc]
    **{f"history {name}": lambda store, name=name: _past(store, name) for name in SESSIONS},  # type: ignore[misc]
    "list": _infos,
    "list deleted": lambda store: _infos(store, status="deleted"),
    "list tagged": lambda store: _infos(store, tags={"team": "ops"}),
    "find": lambda store: store.find("s", "k3"),
    "find again": lambda store: store.find("again", "k"),
}
WRITES: dict[str, Action] = {
    "expect an old version": lambda store: store.append("s", STEP, expect=2, on_conflict="raise"),
    "expect an old version, events alone": lambda store: store.append("bare", Event("x"), expect=1, on_conflict="raise"),
    "expect the last data version": lambda store: _written(store.append("tagged", STEP, expect=1, on_conflict="raise"), store, "tagged"),
    "append": lambda store: _written(store.append("bare", Event("x")), store, "bare"),
    "append to a snapshot": lambda store: _written(store.append("s", STEP), store, "s"),
    "append to a dead one": lambda store: store.append("dead", STEP),
    "recreate": lambda store: _written(store.append("dead", STEP, recreate=True), store, "dead"),
    "a key again": lambda store: _written(store.append("s", STEP, key="k3"), store, "s"),
    "a key for something else": lambda store: store.append("s", Event("other"), key="k3"),
    "delete": lambda store: store.delete("dead"),
}


async def outcome(action: Action, store: perdure.Store) -> Any:
    """What it answers, or the error that it raises; any that is not ours passes through."""
    try:
        return await action(store)
    except perdure.Error as error:
        return type(error)


def others(value: Any) -> list[Any]:
    """A value with bits flipped, and as another type."""
    if type(value) is int:
        return [value ^ 1, value ^ 2, value ^ 4, value ^ 1 << 20, value ^ 1 << 62, -value - 1, f"text {value}", b"blob", value + 0.5]
    if type(value) is bytes:
        flipped = [
            bytes((*value[:at], value[at] ^ bit, *value[at + 1 :]))
            for at in {0, len(value) // 2, len(value) - 1}
            if value
            for bit in (1, 64)
        ]
        return [*flipped, value + b"\0", value[:-1], "text", 7] if value else [b"\0", "text", 7]
    if type(value) is str:
        return [value[:-1] + chr(ord(value[-1]) ^ 1), value + "x", value.encode(), 7]
    return ["k0", 7, b"blob"]


async def verified(url: str) -> bool:
    """Whether every session there was, and every one that is listed, is proven."""
    async with perdure.open(url) as store:
        with contextlib.suppress(perdure.Error):
            names = {*SESSIONS, *[info.session async for info in store.list()]}
            for name in names:
                await store.verify(name)
            return True
    return False
