"""Stores on both sides of a partition whose one side is dropped: what each made of a session, and what the wrong one says afterwards."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Self

import pytest

import perdure
from perdure import Draft, Receipt, Rewound, Store

OVERTAKEN = (0, 1, 2)
"""How many commits the right side makes after the last common one, of a session each; the wrong side makes one of all."""


class Rewinding:
    """`wrong` and `right` are the URLs of the two sides. Clients of the right one come when there are two."""

    def __init__(self, wrong: str, right: str) -> None:
        self._wrong_url, self._right_url = wrong, right
        self._stack = AsyncExitStack()
        self._lost: dict[int, Receipt] = {}
        self._drafts: dict[int, tuple[AsyncExitStack, Draft]] = {}

    async def __aenter__(self) -> Self:
        self._wrong = await self._stack.enter_async_context(perdure.open(self._wrong_url))
        for count in OVERTAKEN:
            await _put(self._wrong, count, "common")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def split(self) -> None:
        """Both sides write; on the wrong one an edit is begun on what will be dropped."""
        self._right = await self._stack.enter_async_context(perdure.open(self._right_url))
        for count in OVERTAKEN:
            self._lost[count] = await _put(self._wrong, count, "wrong")
            editing = AsyncExitStack()
            draft = await editing.enter_async_context(self._wrong.edit(_name(count)))
            draft.state["built"] = "on what was dropped"
            self._drafts[count] = editing, draft
            for number in range(count):
                await _put(self._right, count, f"right {number}")

    async def seen(self) -> None:
        """After the wrong side gave up what it had. Raises `AssertionError`."""
        for count, (editing, _) in self._drafts.items():
            with pytest.raises(Rewound):
                await editing.aclose()
            view = await self._wrong.read(_name(count))
            assert view.state == {"common": True} | {f"right {number}": True for number in range(count)}
            assert view.hash == (await self._right.read(_name(count))).hash != self._lost[count].hash
            assert (await _put(self._wrong, count, "next")).version == count + 2
            assert (await self._right.verify(_name(count))).version == count + 2


def _name(count: int) -> str:
    return f"overtaken by {count}"


async def _put(store: Store, count: int, name: str) -> Receipt:
    async with store.edit(_name(count)) as draft:
        draft.state[name] = True
    assert draft.receipt is not None
    return draft.receipt
