"""Leases of clients: taken, confirmed and released over HTTP, on any node."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.service.app import App
from perdure.service.call import ClientGoneError
from perdure.service.node import Node
from tests.support.service.asking import Asker, Response

LEASE = "/v1/sessions/s/lease"
COMMITS = "/v1/sessions/s/commits"
NOTE = {"events": [{"type": "note"}]}


async def take(ask: Asker, owner: str = "me", key: str | None = None, **more: Any) -> Response:
    return await ask("POST", LEASE, {"owner": owner, **more}, headers=[] if key is None else [("idempotency-key", key)])


async def under(ask: Asker, lease: str, method: str = "POST", target: str = COMMITS) -> Response:
    return await ask(method, target, NOTE if method == "POST" else None, headers=[("perdure-lease", lease)])


async def two_nodes(stack: AsyncExitStack, folder: Path) -> tuple[Asker, Asker]:
    url = f"sqlite:///{folder}/s.db"
    first = await stack.enter_async_context(perdure.open(url))
    second = await stack.enter_async_context(perdure.open(url))
    return Asker(App(Node(first))), Asker(App(Node(second)))


async def test_a_lease_is_held_written_under_and_released(tmp_path: Path) -> None:
    """On any node: what one gave another knows by the grant alone. A released one is 409, and the next holder has a higher token."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        taken = await take(one, ttl=30)
        lease = taken.json()
        assert taken.status == 201 and taken.headers["perdure-lease"] == lease["lease"]
        assert (lease["session"], lease["owner"], lease["ttl"], lease["exclusive"]) == ("s", "me", 30, False)
        for ask in (one, two, one):
            assert (await under(ask, lease["lease"])).status == 201
            assert (await under(ask, lease["lease"], "PUT", LEASE)).json() == lease
            assert (await under(ask, lease["lease"], "GET", "/v1/sessions/s")).status == 200
        held = await take(two, "other")
        assert (held.status, held.json()["code"], held.json()["facts"]["owner"]) == (423, "held", "me")
        assert (await under(two, lease["lease"], "DELETE", LEASE)).status == 204
        next = (await take(two, "other")).json()
        assert next["token"] > lease["token"]
        for ask in (one, two):
            for method, target in (("POST", COMMITS), ("PUT", LEASE), ("DELETE", LEASE)):
                refused = await under(ask, lease["lease"], method, target)
                assert (refused.status, refused.json()["code"]) == (409, "fenced"), (method, refused.body)


async def test_an_exclusive_lease_keeps_others_out(serving: Any) -> None:
    """What is written without it is 409."""
    async with serving() as ask:
        lease = (await take(ask, exclusive=True)).json()["lease"]
        assert (await ask("POST", COMMITS, NOTE)).json()["code"] == "fenced"
        assert (await under(ask, lease)).status == 201


async def test_a_take_that_is_sent_again_finds_its_lease(tmp_path: Path) -> None:
    """With the same key, on any node; without it the holder is somebody else."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        first = (await take(one, key="k")).json()
        again = (await take(two, key="k")).json()
        assert again["token"] == first["token"]
        assert (await under(one, again["lease"])).status == 201
        assert (await take(two, key="other")).status == 423


@pytest.mark.parametrize("other", [{"owner": "you"}, {"ttl": 31}, {"exclusive": True}], ids=str)
async def test_another_take_with_the_key_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    """422 on any node, also for one that would wait; the lease stays the first one's. `wait` is no part of what is asked for. Once the
    lease is released the key is free."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        first = (await take(one, key="k")).json()
        for ask in (one, two):
            refused = await take(ask, key="k", **{"owner": "me", "wait": 5, **other})
            assert (refused.status, refused.json()["type"]) == (422, "urn:perdure:error:KeyReused"), refused
        again = await take(two, key="k", wait=1)
        assert (again.status, again.json()["token"]) == (201, first["token"])
        for ask in (one, two):
            assert (await under(ask, first["lease"], "PUT", LEASE)).json() == first
        assert (await under(two, first["lease"], "DELETE", LEASE)).status == 204
        assert (await take(one, key="k", **{"owner": "me", **other})).status == 201


@pytest.mark.parametrize("gone", [False, True])
async def test_a_take_whose_answer_is_lost_is_not_undone_after_it_was_sent_again(tmp_path: Path, gone: bool) -> None:
    """The first node's take lands, and its answer is lost, or the client goes away meanwhile. The second node finds it by its key, and the
    first one leaves it alone."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        backend = one.app.node.store._core.backend
        append = backend.append

        async def loses(appends: Any) -> Any:
            await append(appends)
            backend.append = append
            if gone:
                raise ClientGoneError
            raise perdure.Unknown("The answer was lost.")

        backend.append = loses
        leases = one.app.node.store._core.leases
        lost = await take(one, key="k")
        assert lost.status in (0, 201, 504)
        again = await take(two, key="k")
        assert again.status == 201
        for lease in leases.keeper.held():
            await leases.look([lease])
        assert (await under(two, again.json()["lease"])).status == 201


MERGE_PATCH = "application/merge-patch+json"


@pytest.mark.parametrize("same", [True, False])
async def test_a_write_that_is_sent_again_after_its_lease_finds_its_receipt(tmp_path: Path, same: bool) -> None:
    """Its answer was lost, and the lease meanwhile too: on either node the key has the first receipt, 422 for another payload. What was not
    done is 409."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        await one("POST", COMMITS, NOTE)
        name = (await take(one)).json()["lease"]
        writes = [("POST", COMMITS, NOTE, None), ("PATCH", "/v1/sessions/s", {"a": 1}, MERGE_PATCH)]
        writes += [("POST", "/v1/sessions/s/configure", {"tags": {"a": "1"}}, None)]

        async def send(ask: Asker, key: str, write: Any, other: Any = None) -> Response:
            method, target, body, media = write
            headers = [("perdure-lease", name), ("idempotency-key", key)]
            return await ask(method, target, body if other is None else other, headers=headers, media=media)

        first = [(await send(one, f"k{number}", write)).json() for number, write in enumerate(writes)]
        assert (await under(two, name, "DELETE", LEASE)).status == 204
        await take(two, "other")
        ask = one if same else two
        for number, write in enumerate(writes):
            again = (await send(ask, f"k{number}", write)).json()
            assert (again["version"], again["duplicate"]) == (first[number]["version"], True)
            assert (await send(ask, f"new{number}", write)).json()["code"] == "fenced"
        other = await send(ask, "k0", writes[0], {"events": [{"type": "another"}]})
        assert (other.status, other.json()["type"]) == (422, "urn:perdure:error:KeyReused")


async def test_a_node_answers_for_a_holder_for_half_a_ttl(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After that it forgets it, without releasing it: a holder that died is found out. A request that bears the lease begins it again."""
    async with serving() as ask:
        leases = ask.app.node.store._core.leases
        name = (await take(ask, ttl=30)).json()["lease"]
        (held,) = leases.keeper.held()
        assert held._answers_until == pytest.approx(leases.monotonic() + 15, abs=5)
        held._answers_until = 0.0
        await leases.look([held])
        assert leases.keeper.held() == []
        assert (await ask.app.node.store.read("s")).version == 1
        assert (await under(ask, name)).status == 201
        assert len(leases.keeper.held()) == 1
        assert (await under(ask, name, "PUT", LEASE)).status == 200


async def test_a_challenge_is_answered_by_whoever_hears_the_holder(tmp_path: Path) -> None:
    """One who waits challenges; a confirmation on either node answers it, and the holder keeps its lease."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        name = (await take(one, ttl=30)).json()["lease"]
        one.app.node.store._core.leases.keeper.remove(one.app.node.store._core.leases.keeper.held()[0])
        challenge = await take(two, "other", wait=0.01)
        assert challenge.status == 423
        assert (await under(two, name, "PUT", LEASE)).status == 200
        kinds = [commit.events[0].type async for commit in two.app.node.store.history("s", control=True)]
        assert kinds == ["leased", "challenged", "renewed"]


async def test_sessions_that_are_due_are_claimed(tmp_path: Path) -> None:
    """Each once; another node releases it, and its alarm is used up; what was not released stays held."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        store = one.app.node.store
        for id in ("job/1", "job/2", "later"):
            await store.append(id, Event("start"))
        for id in ("job/1", "job/2"):
            await store.configure(id, wake_at=datetime(2020, 1, 1, tzinfo=UTC), wake="claim")
        found = (await one("POST", "/v1/claims", {"owner": "w", "limit": 5, "prefix": "job/"})).json()["claims"]
        assert [claim["session"] for claim in found] == ["job/1", "job/2"]
        assert (await two("POST", "/v1/claims", {"owner": "w2", "limit": 5})).json() == {"claims": []}
        first = found[0]
        path = "/v1/sessions/=am9iLzE"
        assert (await two("POST", f"{path}/commits", NOTE, headers=[("perdure-lease", first["lease"])])).status == 201
        assert (await two("DELETE", f"{path}/lease", headers=[("perdure-lease", first["lease"])])).status == 204
        assert (await store.policy("job/1")).wake_at is None
        assert (await store.policy("job/2")).wake_at is not None


BAD = [{}, {"owner": ""}, {"owner": "x" * 256}, {"owner": 3}, {"owner": "a", "ttl": 0}, {"owner": "a", "ttl": 1e9}]
BAD += [{"owner": "a", "wait": 61}]
BAD += [{"owner": "a", "ttl": "30"}, {"owner": "a", "exclusive": 1}, {"owner": "a", "x": 1}, {"owner": "a", "ttl": 0.5}]


@pytest.mark.parametrize("body", BAD, ids=str)
async def test_a_lease_that_is_none_is_refused(serving: Any, body: Any) -> None:
    """400, and nothing is stored."""
    async with serving() as ask:
        for target in (LEASE, "/v1/claims"):
            answer = await ask("POST", target, body)
            if target == LEASE or "wait" not in body:
                assert (answer.status, answer.json()["code"]) == (400, "invalid")
        assert [info async for info in ask.app.node.store.list()] == []


NAMES = ["", "x", "1", "1-ab", "0-" + "00" * 32, "9" * 25 + "-" + "00" * 32, "1-" + "GG" * 32]


@pytest.mark.parametrize("name", NAMES)
async def test_a_grant_that_is_none_is_refused(serving: Any, name: str) -> None:
    """400 for what is no grant, 409 for one that nobody has; nothing is written under it."""
    async with serving() as ask:
        await ask.app.node.store.append("s", Event("start"))
        assert (await under(ask, name)).status == 400
        for unknown in ("1-" + "00" * 32, "99-" + "00" * 32):
            assert (await under(ask, unknown)).json()["code"] == "fenced"
        assert (await ask("PUT", LEASE)).status == 400
        assert (await ask("PUT", LEASE, {"a": 1}, headers=[("perdure-lease", "1-" + "00" * 32)])).status == 400
        assert (await ask.app.node.store.read("s")).version == 1
