"""The claim of all tests of bad input: an error that says what to do, nothing changed, and the store goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

import pytest

import perdure
from perdure import Event, Store, op

T = TypeVar("T")
Call = Callable[[Store], Any]


async def everything(store: Store) -> list[Any]:
    """All that can be seen of a store's sessions, dead ones included."""
    infos = [info async for info in store.list()] + [info async for info in store.list(status="deleted")]
    found: list[Any] = list(infos)
    for info in infos:
        if info.status is not perdure.Status.deleted:
            found.append([commit async for commit in store.history(info.session)])
            found.append((await store.read(info.session)).state)
    return found


async def consume(call: Any) -> None:
    """Await or iterate whatever a public call returned."""
    if isinstance(call, AsyncIterator):
        async for _ in call:
            pass
    elif hasattr(type(call), "__aenter__"):
        async with call as draft:
            draft.state["touched"] = True
    else:
        await call


async def refused(url: str, call: Call | Iterable[Call], error: type[perdure.Error], words: str) -> None:
    """The claim of this module for one call, or for several, one after another, on one store."""
    calls = [call] if callable(call) else list(call)
    async with perdure.open(url) as store:
        await store.append("s", Event("begun", {"n": 1}, (op.set("", {"text": "t", "list": [1], "n": 1}),)))
        await store.append("s", Event("note"))
        await store.append("dead", Event("begun"))
        await store.delete("dead")
        before = await everything(store)
        for each_call in calls:
            with pytest.raises(error) as caught:
                await consume(each_call(store))
            message = str(caught.value)
            assert words in message, message
            assert len(message) < 1_000
            assert (error.__doc__ or "?").split()[0] in message, "the class's advice stands in the message"
            assert await everything(store) == before
        receipt = await store.append("s", Event("after", None, (op.add("/n", 1),)))
        assert receipt.version == 3
        assert (await store.read("s")).state["n"] == 2
        await store.verify("s")


def each(cases: Iterable[tuple[str, T]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    named = list(cases)
    return pytest.mark.parametrize("case", [case for _, case in named], ids=[name for name, _ in named])


def event(data: Any = None, ops: Any = ()) -> Event:
    return Event("x", data, ops)


CALLS: dict[str, Callable[[Store, Any], Any]] = {
    "append": lambda store, id: store.append(id, event()),
    "edit": lambda store, id: store.edit(id),
    "update": lambda store, id: store.update(id, lambda draft: draft.add("/n", 1)),
    "read": lambda store, id: store.read(id),
    "history": lambda store, id: store.history(id),
    "fork": lambda store, id: store.fork(id),
    "merge": lambda store, id: store.merge(id, into="s"),
    "configure": lambda store, id: store.configure(id, tags={}),
    "delete": lambda store, id: store.delete(id),
    "verify": lambda store, id: store.verify(id),
}
"""Each call that takes a session id."""
