"""A scenario of calls as Python makes them: each result as a client of another language has to have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import perdure
from perdure import Event
from tests.servers.node import Nodes


async def run_scenario(store: perdure.Store, steps: list[dict[str, Any]]) -> list[Any]:
    """The result of each step."""
    leases: dict[str, Any] = {}
    return [await _result(store, leases, step) for step in steps]


async def as_in_python(theirs: list[Any], steps: list[dict[str, Any]], nodes: Nodes, folder: Path) -> list[Any]:
    """Python's results, on a node of its own: those of another client are the same, and so are the sessions that it left at `nodes`."""
    others = Nodes(folder / "others")
    try:
        others.start()
        async with perdure.open(others.url) as store:
            ours = await run_scenario(store, steps)
            states = {info.session: (await store.read(info.session)).state async for info in store.list()}
    finally:
        others.stop()
    assert len(theirs) == len(steps)
    for step, one, other in zip(steps, ours, theirs, strict=True):
        assert one == other, step
    async with perdure.open(nodes.url) as store:
        assert {info.session: (await store.read(info.session)).state async for info in store.list()} == states
    return ours


async def _result(store: perdure.Store, leases: dict[str, Any], step: dict[str, Any]) -> Any:
    try:
        return await _run(store, leases, **step)
    except perdure.Error as error:
        return {"error": type(error).__name__, "code": error.code, "retryable": error.retryable}


async def _run(store: perdure.Store, leases: dict[str, Any], *, do: str, session: str = "", **given: Any) -> Any:
    match do:
        case "append":
            return await _append(store, session, leases.get(session) if given.pop("leased", False) else None, **given)
        case "read":
            if given.pop("at_least", False):
                given["at_least"] = (await store.read(session)).token
            view = await store.read(session, **given)
            return {"version": view.version, "state": view.state}
        case "patch" | "merge_patch":
            async with store.edit(session, actor=given.get("actor")) as draft:
                (_merge_patch if do == "merge_patch" else _patch)(draft.state, given["patch"])
            return {"version": draft.receipt.version}
        case "configure":
            return {"version": (await store.configure(session, **given)).version}
        case "fork":
            return await store.fork(session, **given)
        case "merge":
            receipt = await store.merge(session, **given)
            return receipt and {"version": receipt.version}
        case "delete":
            return {"version": (await store.delete(session)).version}
        case "list":
            given.pop("page_size", None)
            return [
                {"session": info.session, "version": info.version, "status": info.status.name, "tags": dict(info.tags)}
                async for info in store.list(**given)
            ]
        case "history":
            given.pop("page_size", None)
            return [_commit(commit) async for commit in store.history(session, **given)]
        case "watch":
            return [_commit(commit) for commit in await _some(store.watch(session, after=given.get("after", 0)), given["count"])]
        case "changes":
            found = await _some(store.changes(prefix=given["prefix"]), given["count"])
            return [{"session": change.session, **_commit(change.commit)} for change in found]
        case "lease":
            lease = await store.lease(session, wait=0, **given).__aenter__()
            leases[session] = lease
            return {"owner": lease.owner, "exclusive": lease.exclusive}
        case "confirm":
            return await leases[session].confirm()
        case "release":
            return await leases[session].release()
        case _:
            raise AssertionError(do)


async def _append(
    store: perdure.Store, session: str, lease: Any, *, events: Any = (), ops: Any = (), base: Any = None, **given: Any
) -> dict[str, Any]:
    made = [Event(event["type"], event.get("data"), _ops(event.get("ops", ()))) for event in events]
    if ops:
        made.append(Event("edited", None, _ops(ops)))
    receipt = await store.append(session, *made, expect=base, lease=lease, **given)
    return {"version": receipt.version, "duplicate": receipt.duplicate}


def _ops(given: Any) -> tuple[perdure.Op, ...]:
    return tuple(perdure.Op(each["op"], each["path"], each.get("value")) for each in given)


def _merge_patch(state: Any, patch: Any) -> None:
    for name, value in patch.items():
        if value is None:
            state.pop(name, None)
        else:
            state[name] = value


def _patch(state: Any, steps: Any) -> None:
    for step in steps:
        name = step["path"].removeprefix("/")
        if step["op"] == "test":
            assert state[name] == step["value"]
        else:
            state[name] = step["value"]


async def _some(found: AsyncIterator[Any], count: int) -> list[Any]:
    items: list[Any] = []
    async with aclosing(found) as each:  # type: ignore[type-var]
        async for item in each:
            items.append(item)
            if len(items) == count:
                break
    return items


def _commit(commit: Any) -> dict[str, Any]:
    return {
        "version": commit.version,
        "kind": commit.kind.name,
        "actor": commit.actor,
        "types": list(dict.fromkeys(event.type for event in commit.events)),
    }
