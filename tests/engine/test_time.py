"""Times at the edges: a clock that is out of range and a zone that says nothing are refused in our words, and change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.clock import SystemClock


class Nowhere(tzinfo):
    """A zone without an offset: a datetime in it is as naive as one without a zone."""

    def utcoffset(self, moment: datetime | None) -> None:
        return None

    dst = utcoffset

    def tzname(self, moment: datetime | None) -> str:
        return "nowhere"


class Wrong(SystemClock):
    """A clock that can be set to any time."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0

    def now(self) -> int:  # type: ignore[override]
        return self.at or super().now()


async def edited(store: perdure.Store) -> None:
    async with store.edit("s") as draft:
        draft.state["a"] = 1


WRITES: dict[str, Callable[[perdure.Store], Awaitable[Any]]] = {
    "append": lambda store: store.append("s", Event("x")),
    "append with operations": lambda store: store.append("s", Event("x", None, (op.set("/a", 1),))),
    "start": lambda store: store.append("new", Event("x")),
    "edit": edited,
    "update": lambda store: store.update("s", lambda draft: draft.add("/n", 1)),
    "configure": lambda store: store.configure("s", tags={"a": "b"}),
    "fork": lambda store: store.fork("s"),
    "merge": lambda store: store.merge("fork", into="s"),
    "delete": lambda store: store.delete("s"),
}


@pytest.mark.parametrize("at", [1 << 63, 1 << 70])
async def test_a_clock_out_of_range(url: str, at: int) -> None:
    """Each write is `Invalid`, stores nothing, and works again when the clock does."""

    clock = Wrong()
    async with perdure.open(url, clock=clock) as store:
        await store.append("s", Event("x", None, (op.set("/n", 0),)))
        await store.fork("s", id="fork")
        await store.append("fork", Event("x", None, (op.set("/b", 0),)))
        for name, write in WRITES.items():
            clock.at = at
            with pytest.raises(perdure.Invalid, match="2262"):
                await write(store)
            clock.at = 0
            assert (await store.read("s")).version == 2, name
        for name, write in WRITES.items():
            await write(store)
            if name == "delete":
                await store.verify("s")


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=Nowhere()), "2026", 1.5])  # noqa: DTZ001 - what is refused
async def test_a_moment_without_an_offset(url: str, moment: Any) -> None:
    """A datetime that names no moment is `Invalid` wherever a time is asked for, and the message says how to write one."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x"))
        calls: list[Awaitable[Any]] = [_all(store.list(updated_after=moment)), _all(store.list(updated_before=moment))]
        if isinstance(moment, datetime):
            calls.append(store.read("s", at=moment))
        for call in calls:
            with pytest.raises(perdure.Invalid, match=r"datetime.now\(UTC\)"):
                await call


async def test_the_ends_of_the_calendar(url: str) -> None:
    """The first and the last moment that a datetime can say, in any zone, are moments like others."""

    async with perdure.open(url) as store:
        await store.append("s", Event("x"))
        for zone in (UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))):
            assert (await store.read("s", at=datetime.max.replace(tzinfo=zone))).version == 1
            with pytest.raises(perdure.NotFound):
                await store.read("s", at=datetime.min.replace(tzinfo=zone))


async def _all(items: Any) -> list[Any]:
    return [item async for item in items]
