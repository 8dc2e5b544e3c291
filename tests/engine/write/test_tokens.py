"""Writes that were decided on a very commit: `expect` takes the token of a view."""

from __future__ import annotations

import pytest

import perdure
from perdure import Event, op
from perdure.model.token import Token, read_token, write_token


def forged(token: str, hash: bytes = b"\x01" * 32) -> str:
    """The token of another commit in its place."""
    found = read_token(token)
    return write_token(Token(found.store, found.tenant, found.session, found.version, hash))


@pytest.mark.parametrize("events", [(Event("note"),), (Event("set", None, (op.set("/b", 1),)),)], ids=["events", "operations"])
async def test_a_token_is_the_version_and_its_very_commit(events: tuple[Event, ...]) -> None:
    """The write lands on the commit, and on one that only control commits follow; where another commit has its place it is `Rewound`."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start", None, (op.set("/a", 1),)))
        token = await store.token("s")
        assert token == (await store.read("s")).token
        with pytest.raises(perdure.Rewound):
            await store.append("s", *events, expect=forged(token), on_conflict="raise")
        assert (await store.append("s", *events, expect=token, on_conflict="raise")).version == 2
        token = await store.token("s")
        for number in range(3):
            await store.configure("s", tags={"n": str(number)})
        with pytest.raises(perdure.Rewound):
            await store.append("s", *events, expect=forged(token), on_conflict="raise")
        assert (await store.append("s", *events, expect=token, on_conflict="raise")).version == 6
        with pytest.raises(perdure.Conflict):
            await store.append("s", *events, expect=token, on_conflict="raise")
        assert (await store.read("s")).version == 6


async def test_a_token_merges_over_what_followed() -> None:
    """With the default policy operations that were made on an older commit are rebased; on a commit that is not there they are refused."""
    async with perdure.open("memory:") as store, perdure.open("memory:") as other:
        await store.append("s", Event("start", None, (op.set("/n", 1),)))
        token = await store.token("s")
        await store.append("s", Event("add", None, (op.add("/n", 1),)))
        mine = Event("add", None, (op.add("/n", 10),))
        with pytest.raises(perdure.Rewound):
            await store.append("s", mine, expect=forged(token))
        await store.append("s", mine, expect=token)
        assert (await store.read("s")).state == {"n": 12}
        with pytest.raises(perdure.Conflict):
            await store.append("s", Event("set", None, (op.set("/n", 0),)), expect=token)
        await other.append("s", Event("start"))
        with pytest.raises(perdure.Invalid, match="another store"):
            await other.append("s", mine, expect=token)


async def test_a_token_above_the_head_is_rewound() -> None:
    """A store that was restored has lost the commit; a version that it never had is `Invalid` as before."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start"))
        token = await store.token("s")
        found = read_token(token)
        lost = write_token(Token(found.store, "default", "s", 9, found.hash))
        for events in (Event("note"), Event("set", None, (op.set("/a", 1),))):
            with pytest.raises(perdure.Rewound):
                await store.append("s", events, expect=lost)
            with pytest.raises(perdure.Invalid):
                await store.append("s", events, expect=9)


async def test_edits_and_updates_take_tokens() -> None:
    """Both are strict about the commit that the token names."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start", None, (op.set("/n", 1),)))
        token = await store.token("s")
        with pytest.raises(perdure.Rewound):
            async with store.edit("s", expect=forged(token)) as draft:
                draft.state["m"] = 1
        async with store.edit("s", expect=token) as draft:
            draft.state["m"] = 1
        with pytest.raises(perdure.Conflict):
            await store.update("s", lambda draft: draft.add("/n", 1), expect=token)
        with pytest.raises(perdure.Rewound):
            await store.update("s", lambda draft: draft.add("/n", 1), expect=forged(await store.token("s")))
        receipt, _ = await store.update("s", lambda draft: draft.add("/n", 1), expect=await store.token("s"))
        assert receipt is not None and receipt.version == 3


async def test_a_payload_stands_for_the_request() -> None:
    """A keyed update that is repeated on a newer state gets its receipt; with another payload it is `KeyReused`, and nothing runs."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start", None, (op.set("/n", 1),)))

        def raise_n(draft: perdure.Draft) -> None:
            draft.add("/n", 1)

        first, _ = await store.update("s", raise_n, key="k", payload={"by": 1})
        await store.append("s", Event("add", None, (op.add("/n", 5),)))
        again, _ = await store.update("s", raise_n, key="k", payload={"by": 1})
        assert first is not None and again is not None and (again.version, again.duplicate) == (first.version, True)
        with pytest.raises(perdure.KeyReused):
            await store.update("s", raise_n, key="k", payload={"by": 2})
        with pytest.raises(perdure.KeyReused):
            async with store.edit("s", key="k", payload={"by": 2}):
                pass
        async with store.edit("s", key="k", payload={"by": 1}) as draft:
            assert draft.receipt is not None
        assert (await store.read("s")).state == {"n": 7}


async def test_an_append_may_refuse_to_start_a_session() -> None:
    """With `create=False` a session that is not there is `NotFound`, and is not made."""
    async with perdure.open("memory:") as store:
        for event in (Event("note"), Event("set", None, (op.set("/a", 1),))):
            with pytest.raises(perdure.NotFound):
                await store.append("s", event, create=False)
        assert [info async for info in store.list()] == []
        await store.append("s", Event("start"))
        assert (await store.append("s", Event("note"), create=False)).version == 2
