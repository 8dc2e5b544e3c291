"""An edit, a draft or a store that is used before its block or after it says what is wrong, and nothing is lost silently."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import op
from perdure.engine.write.drafts import Draft
from perdure.errors import Invalid

USES: list[Callable[[Draft], Any]] = [
    lambda draft: draft.state,
    lambda draft: setattr(draft, "state", {}),
    lambda draft: draft.add("/n", 1),
    lambda draft: draft.union("/l", [1]),
    lambda draft: draft.do(op.set("/n", 1)),
    lambda draft: draft.event("late"),
    lambda draft: draft.require("/n"),
]


def failing(store: perdure.sync.Store, drafts: list[Draft]) -> None:
    with store.edit("s") as draft:
        drafts.append(draft)
        raise ZeroDivisionError


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("touched", [False, True])
def test_a_draft_is_closed_after_its_block(use: Callable[[Draft], Any], touched: bool) -> None:
    """After the block ended, well or with an exception, and after an update, every use that would be lost raises `Invalid`."""
    drafts: list[Draft] = []
    with perdure.sync.open("memory:") as store:
        with store.edit("s") as draft:
            if touched:
                draft.state["n"] = 1
            draft.event("first")
            drafts.append(draft)
        with pytest.raises(ZeroDivisionError):
            failing(store, drafts)
        store.update("s", lambda draft: [drafts.append(draft), draft.event("second")])
        for draft in drafts:
            with pytest.raises(Invalid, match="after its block"):
                use(draft)
        assert drafts[0].receipt is not None
        assert drafts[0].receipt.version == 1
        assert "closed" in repr(drafts[1])
        assert store.read("s").version == 2


async def test_what_was_not_entered_says_so() -> None:
    """A store that was not opened, and an edit whose block was not entered, name the line to write; `hasattr` still works."""

    opening: Any = perdure.open("memory:")
    with pytest.raises(Invalid, match=r"async with perdure\.open"):
        opening.append("s", perdure.Event("x"))
    with pytest.raises(Invalid, match=r"async with perdure\.open"), opening:
        pass
    assert not hasattr(opening, "read")
    async with perdure.open("memory:") as store:
        edit: Any = store.edit("s")
        with pytest.raises(Invalid, match=r"async with store\.edit"):
            edit.state["n"] = 1
        with pytest.raises(Invalid, match=r"async with store\.edit"), edit:
            pass
        with pytest.raises(Invalid, match=r"async with store\.edit"):
            await edit
        assert copy.copy(edit) is not edit
        async with edit as draft:
            draft.state["n"] = 1
        assert (await store.read("s")).state == {"n": 1}


async def test_blocking_and_asynchronous_are_told_apart() -> None:
    """An edit of the blocking API names its own line, also in `async with`."""
    with perdure.sync.open("memory:") as store:
        edit: Any = store.edit("s")
        with pytest.raises(Invalid, match=r"`with store\.edit"):
            edit.add("/n", 1)

        async def scenario() -> None:
            async with edit:
                pass

        with pytest.raises(Invalid, match=r"blocking API"):
            await scenario()
