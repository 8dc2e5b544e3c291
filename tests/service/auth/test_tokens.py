"""Tokens: made once, kept as a digest, looked up rarely, revoked within ten seconds."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure.model.timestamps import to_datetime
from perdure.service.auth import records, tokens
from perdure.service.auth.credentials import Credentials
from perdure.service.auth.records import create_token, has_tokens, list_tokens, revoke_token
from perdure.service.auth.tokens import CACHED_SECONDS, LOOKUPS_MAX, Tokens
from perdure.service.hooks import Credential, RequestHead, Scope
from tests.support.backends.scenarios import until
from tests.support.service.clocks import HandClock


def head(authorization: str | None) -> RequestHead:
    """A request that brings this header."""
    return RequestHead("GET", "/v1/sessions", {} if authorization is None else {"authorization": authorization}, "127.0.0.1", None)


async def ask(who: Tokens, token: str) -> Credential:
    """Whose token it is, asked as a request does."""
    return await Credentials(who).credential(head(f"Bearer {token}"))


class Reads:
    """Counts the reads of records, and holds them back while `gate` is not set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.now = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False
        monkeypatch.setattr(tokens, "read_record", self.read)

    async def read(self, store: perdure.Store, id: str) -> records.Record | None:
        self.count += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            if self.away:
                raise perdure.Unavailable("The engine is away.")
            return await records.read_record(store, id)
        finally:
            self.now -= 1


@asynccontextmanager
async def a_store(clock: HandClock) -> AsyncIterator[perdure.Store]:
    """A store in memory that goes by this clock."""
    async with perdure.open("memory:") as store:
        store._core.clock = clock
        yield store


async def test_a_token_says_whose_it_is() -> None:
    """Tenant, scopes, actor and end come from the store; the name is no secret."""
    clock = HandClock()
    async with a_store(clock) as store:
        end = to_datetime(clock.now()) + timedelta(days=1)
        made = await create_token(store, tenant="acme", scopes=["append", "read"], actor="ana", expires=end)
        found = await ask(Tokens(store, clock), made.token)
        assert (found.tenant, found.scopes, found.actor) == ("acme", frozenset((Scope.read, Scope.append)), "ana")
        assert found.name == f"token:{made.info.id}" and found.expires == pytest.approx(clock.seconds + 86_400, abs=1)
        assert made.info.scopes == ("read", "append")
        clock.seconds += 86_401
        with pytest.raises(perdure.Unauthorized):
            await ask(Tokens(store, clock), made.token)


async def test_tokens_are_random_and_long() -> None:
    """Each has 256 random bits of its own, and begins so that scanners find it."""
    async with perdure.open("memory:") as store:
        made = [(await create_token(store, tenant="acme", scopes=["read"])).token for _ in range(20)]
        secrets = {token.rpartition("_")[2] if token.count("_") == 2 else token.split("_", 2)[2] for token in made}
        assert len(secrets) == 20 and all(len(secret) == 43 for secret in secrets)
        assert all(token.startswith("perdure_") for token in made)


async def test_a_token_at_rest_is_a_digest(tmp_path: Path) -> None:
    """No file of the store has the token or its secret half, also not after it was used and revoked."""
    path = tmp_path / "store.db"
    async with perdure.open(f"sqlite:///{path}") as store:
        made = await create_token(store, tenant="acme", scopes=["read"], name="ci")
        await ask(Tokens(store, HandClock()), made.token)
        await revoke_token(store, made.info.id)
        listed = await list_tokens(store)
        assert [one.id for one in listed] == [made.info.id] and made.token not in repr(listed)
    secret = made.token.split("_", 2)[2].encode()
    with sqlite3.connect(path) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes(), file


@pytest.mark.parametrize(
    "said",
    [
        None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "bearer\tx", "Bearer " + "x" * 9_000, "Bearer é", "Bearer perdure_",
        "Bearer perdure_0123456789abcdef_" + "A" * 43, "Bearer perdure_0123456789abcdef_" + "A" * 42,
        "Bearer perdure_../../etc_" + "A" * 43, "Bearer a.b.c",
    ],
)  # fmt: skip
async def test_what_is_no_token_is_refused(said: str | None) -> None:
    """401, and the text repeats nothing of what came."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Unauthorized) as refused:
            await Credentials(Tokens(store, HandClock())).credential(head(said))
        secret = (said or "").partition(" ")[2]
        assert not secret.strip() or secret not in str(refused.value)


async def test_another_secret_for_an_id_is_refused_in_the_same_words() -> None:
    """A wrong secret, an unknown id and a revoked token cannot be told apart."""
    clock = HandClock()
    async with a_store(clock) as store:
        made, revoked = [await create_token(store, tenant="acme", scopes=["read"]) for _ in range(2)]
        await revoke_token(store, revoked.info.id)
        who, said = Tokens(store, clock), set()
        for token in (made.token[:-3] + "AAA", f"perdure_{'0' * 16}_{'A' * 43}", revoked.token, "a.b.c"):
            with pytest.raises(perdure.Unauthorized) as refused:
                await ask(who, token)
            said.add(str(refused.value))
        assert len(said) == 1


async def test_a_revoked_token_ends_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up once in ten seconds however often it is used; after them the revocation is seen."""
    clock = HandClock()
    async with a_store(clock) as store:
        made = await create_token(store, tenant="acme", scopes=["read"])
        reads, who = Reads(monkeypatch), Tokens(store, clock)
        for _ in range(5):
            await ask(who, made.token)
        assert reads.count == 1
        first = await revoke_token(store, made.info.id)
        clock.seconds += CACHED_SECONDS
        with pytest.raises(perdure.Unauthorized):
            await ask(who, made.token)
        assert reads.count == 2
        again = await revoke_token(store, made.info.id)
        assert again.revoked_at == first.revoked_at is not None
        with pytest.raises(perdure.NotFound):
            await revoke_token(store, "0" * 16)


async def test_one_lookup_serves_all_who_wait_and_outlives_who_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred requests with one token are one read, also where the first of them is cancelled."""
    clock = HandClock()
    async with a_store(clock) as store:
        made = await create_token(store, tenant="acme", scopes=["read"])
        reads, who = Reads(monkeypatch), Tokens(store, clock)
        reads.gate.clear()
        first, *others = [asyncio.ensure_future(ask(who, made.token)) for _ in range(100)]
        await until(lambda: reads.now)
        first.cancel()
        reads.gate.set()
        assert {found.tenant for found in await asyncio.gather(*others)} == {"acme"} and reads.count == 1


async def test_guessed_tokens_do_not_crowd_out_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown ids are looked up a few at a time and remembered as missing; a token in use is looked up past them."""
    clock = HandClock()
    async with a_store(clock) as store:
        made = await create_token(store, tenant="acme", scopes=["read"])
        reads, who = Reads(monkeypatch), Tokens(store, clock)
        await ask(who, made.token)
        reads.gate.clear()
        guesses = [asyncio.ensure_future(ask(who, f"perdure_{number:016x}_{'A' * 43}")) for number in range(50)]
        await until(lambda: reads.now == LOOKUPS_MAX)
        clock.seconds += CACHED_SECONDS
        mine = asyncio.ensure_future(ask(who, made.token))
        await until(lambda: reads.now == LOOKUPS_MAX + 1)
        reads.gate.set()
        assert (await mine).tenant == "acme"
        refused = await asyncio.gather(*guesses, return_exceptions=True)
        assert all(isinstance(one, perdure.Unauthorized) for one in refused)
        assert reads.most == LOOKUPS_MAX + 1
        count = reads.count
        with pytest.raises(perdure.Unauthorized):
            await ask(who, f"perdure_{7:016x}_{'A' * 43}")
        assert reads.count == count


async def test_an_engine_that_is_away_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody knows whose token it is: `Unavailable`, which is asked again, and not remembered."""
    clock = HandClock()
    async with a_store(clock) as store:
        made = await create_token(store, tenant="acme", scopes=["read"])
        reads, who = Reads(monkeypatch), Tokens(store, clock)
        reads.away = True
        with pytest.raises(perdure.Unavailable):
            await ask(who, made.token)
        reads.away = False
        assert (await ask(who, made.token)).tenant == "acme"


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": "~acme"}, {"tenant": ""}, {"scopes": []}, {"scopes": ["read", "root"]}, {"actor": ""}, {"name": "\n"},
        {"expires": to_datetime(0)}, {"expires": to_datetime(2**62).replace(tzinfo=None)},
    ],
)  # fmt: skip
async def test_tokens_that_make_no_sense_are_not_made(wrong: dict[str, Any]) -> None:
    """`Invalid`, and the store still has none."""
    async with perdure.open("memory:") as store:
        with pytest.raises(perdure.Invalid):
            await create_token(store, **{"tenant": "acme", "scopes": ["read"], **wrong})
        assert not await has_tokens(store)
        assert not await list_tokens(store)
        await create_token(store, tenant="acme", scopes=["read"])
        assert await has_tokens(store) and not await list_tokens(store, "other")
