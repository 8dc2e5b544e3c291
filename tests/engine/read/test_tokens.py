"""Tokens: what one process saw, another one answers with at least that."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import perdure
from perdure import Event, Invalid, Rewound, Store, sync
from perdure.model.token import Token, read_token, write_token


async def put(store: Store, value: int, session: str = "s") -> perdure.View:
    async with store.edit(session) as draft:
        draft.state["n"] = value
    return await store.read(session)


@pytest.mark.parametrize("consistency", ["strong", "eventual"])
async def test_a_read_is_at_least_as_new_as_the_token(file_url: str, consistency: Any) -> None:
    """With the token of another process's view an answer from memory that would be older is not given."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        await put(store, 1)
        token = (await put(other, 2)).token
        assert (await store.read("s", consistency="eventual")).state == {"n": 1}
        assert (await store.read("s", consistency=consistency, at_least=token)).state == {"n": 2}
        with sync.open(file_url) as blocking:
            assert blocking.read("s", consistency=consistency, at_least=token).state == {"n": 2}


async def test_an_older_token_costs_one_look_once(file_url: str) -> None:
    """Where the state in memory is newer than the token, the token's commit is looked up, and then known."""
    async with perdure.open(file_url) as store:
        token = (await put(store, 1)).token
        await put(store, 2)
        backend: Any = store._core.backend
        real, calls = backend.read, []

        async def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            return await real(*arguments, **options)

        backend.read = counted
        for _ in range(3):
            assert (await store.read("s", consistency="eventual", at_least=token)).version == 2
        assert len(calls) == 1


@pytest.mark.parametrize("overtaken", [0, 1, 2])
@pytest.mark.parametrize("consistency", ["strong", "eventual"])
async def test_a_chain_that_lost_the_commit_is_rewound(overtaken: int, consistency: Any) -> None:
    """Whether it is shorter now, as long or longer."""
    async with perdure.open("memory:") as store:
        engine: Any = store._core.backend
        await put(store, 0)
        backup = copy.deepcopy(engine._chains)
        token = (await put(store, 1)).token
        engine._chains = backup
        store._core.cache.drop(store._context.key("s"))
        for number in range(overtaken):
            await store.append("s", Event("other", number))
        with pytest.raises(Rewound, match="does not hold the commit of the token"):
            await store.read("s", consistency=consistency, at_least=token)
        assert (await store.read("s")).state == {"n": 0}


async def test_a_token_of_a_session_that_is_gone_is_rewound() -> None:
    """No session is older than any commit of it."""
    async with perdure.open("memory:") as store:
        token = (await put(store, 1)).token
        engine: Any = store._core.backend
        engine._chains = {}
        with pytest.raises(Rewound, match="there is no such session"):
            await store.read("s", at_least=token)


async def test_a_fork_holds_its_parents_commits(file_url: str) -> None:
    """A token of a fork's version below the fork is one of the parent's commits, and holds."""
    async with perdure.open(file_url) as store:
        await put(store, 1)
        await put(store, 2)
        fork = await store.fork("s")
        token = (await store.read(fork, at=1)).token
        assert (await store.read(fork, at_least=token)).state == {"n": 2}


async def test_a_token_of_another_place_is_invalid(file_url: str) -> None:
    """Another store's, another tenant's or another session's says whose it is."""
    async with perdure.open(file_url) as store, perdure.open("memory:") as elsewhere:
        token = (await put(store, 1)).token
        await put(elsewhere, 1)
        await put(store, 1, "t")
        await put(store.for_tenant("acme"), 1)
        with pytest.raises(Invalid, match="another store"):
            await elsewhere.read("s", at_least=token)
        with pytest.raises(Invalid, match="session 's'"):
            await store.read("t", at_least=token)
        with pytest.raises(Invalid, match="tenant 'default'"):
            await store.for_tenant("acme").read("s", at_least=token)


def test_what_is_no_token_is_invalid() -> None:
    """Garbage, a part, another type, and a token with any character changed."""
    token = write_token(Token("store", "tenant", "session", 7, bytes(32)))
    assert read_token(token) == Token("store", "tenant", "session", 7, bytes(32))
    changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))]
    for bad in ("", "p1.", "x", "é", token[:-2], token + "AAAA", "p1." + "A" * 9_999, 7, None.__class__, b"p1.", *changed):
        try:
            assert read_token(bad) == read_token(token)  # The last character may hold bits that count for nothing.
        except Invalid:
            continue
        assert bad == changed[-1]
