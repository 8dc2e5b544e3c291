"""Listing sessions, and what becomes of them: forks, merges, policies, proof, archive, deletion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event, op
from perdure.service.app import App
from perdure.service.hooks import Credential, RequestHead, Scope
from perdure.service.node import Node
from tests.support.service.asking import Asker

S = "/v1/sessions/s"


async def test_sessions_come_in_pages(serving: Any) -> None:
    """By id; each page names the next; prefix, tags and status go along."""
    async with serving() as ask:
        store = ask.app.node.store
        for id in ("a/1", "a/2", "a/3", "b&=é", "c"):
            await store.append(id, Event("start"))
        await store.configure("a/2", tags={"team": "ops", "x": "=1"})
        await store.delete("c")
        found, next = [], "/v1/sessions?limit=2"
        while next:
            answer = await ask("GET", next)
            page = answer.json()
            found.append([info["session"] for info in page["sessions"]])
            assert ("link" in answer.headers) == bool(page["next"])
            next = page["next"]
        assert found == [["a/1", "a/2"], ["a/3", "b&=é"]]
        (info,) = (await ask("GET", "/v1/sessions?tag=team%3Dops&tag=x=%3D1&prefix=a")).json()["sessions"]
        (same,) = [info async for info in store.list(prefix="a/2")]
        assert info == same.to_dict()
        assert [info["session"] for info in (await ask("GET", "/v1/sessions?status=deleted")).json()["sessions"]] == ["c"]
        later = "2100-01-01T00:00:00Z"
        assert (await ask("GET", f"/v1/sessions?updated_after={later}")).json()["sessions"] == []
        assert len((await ask("GET", f"/v1/sessions?updated_before={later}")).json()["sessions"]) == 4
        assert (await ask("GET", "/v1/sessions?cursor=null")).json()["sessions"] == []


async def test_what_is_due_comes_first_and_in_pages(serving: Any) -> None:
    """With `due`: what is due before that time, the earliest first, each once, with the reason; the other filters go along."""
    async with serving() as ask:
        store = ask.app.node.store
        for number, id in enumerate(("trip/z", "trip.y", "x", "trip-w", "v")):
            await store.append(id, Event("start"))
            await store.configure(id, wake_at=datetime(2030, 1, 1 + number, tzinfo=UTC), wake="claim", tags={"n": str(number)})
        await store.append("never", Event("start"))
        await store.append("idle", Event("start"))
        await store.configure("idle", expire_after=60)
        found, next = [], "/v1/sessions?due=2030-01-05T00:00:00Z&limit=2"
        while next:
            page = (await ask("GET", next)).json()
            found.append([(info["session"], info["why"]) for info in page["sessions"]])
            next = page["next"]
        claim = "claim"
        assert found == [[("idle", "look"), ("trip/z", claim)], [("trip.y", claim), ("x", claim)], [("trip-w", claim)]]
        (info,) = (await ask("GET", "/v1/sessions?due=2030-02-01T00:00:00Z&prefix=trip&tag=n=3")).json()["sessions"]
        assert (info["session"], info["due_at"], info["tags"]) == ("trip-w", "2030-01-04T00:00:00.000000Z", {"n": "3"})
        assert (await ask("GET", "/v1/sessions?due=2100-01-01T00:00:00Z&updated_after=2090-01-01T00:00:00Z")).json()["sessions"] == []


BAD = ["due=monday", "due=2030-01-01T00:00:00Z&cursor=idle", "due=2030-01-01T00:00:00Z&cursor=1.%00", "due=", "due=12"]
BAD += ["due=2030-01-01T00:00:00Z&cursor=99999999999999999999.a", "due=2030-01-01T00:00:00Z&prefix=%00"]
BAD += ["limit=0", "limit=1001", "tag=x", "tag=a=1&tag=a=2", "tag==x", "status=odd", "updated_after=monday", "cursor=%00"]
BAD += ["prefix=%00", "order=x", "status=null"]
BAD += ["updated_after=null", "prefix=" + "x" * 300, "cursor=", "updated_before=2026-01-01T00:00:00"]


@pytest.mark.parametrize("query", BAD)
async def test_a_listing_that_is_none_is_refused(serving: Any, query: str) -> None:
    """400 with a problem document."""
    async with serving() as ask:
        answer = await ask("GET", f"/v1/sessions?{query}")
        if query != "cursor=":
            assert (answer.status, answer.json()["code"]) == (400, "invalid")


async def test_a_fork_is_merged_back(serving: Any) -> None:
    """Fork at a version, write to it, merge it, once; what does not combine is 409."""
    async with serving() as ask:
        store = ask.app.node.store
        await store.append("s", Event("start", None, (op.set("/l", [1]),)))
        await store.append("s", Event("more", None, (op.append("/l", [2]),)))
        fork = await ask("POST", f"{S}/fork", {"at": 1, "id": "f/1"})
        assert (fork.status, fork.json(), fork.headers["location"]) == (201, {"session": "f/1"}, "/v1/sessions/=Zi8x")
        assert (await ask("POST", f"{S}/fork", {"id": "f/1"})).json()["code"] == "already_exists"
        assert (await ask("POST", f"{S}/fork")).status == 201
        await store.append("f/1", Event("mine", None, (op.append("/l", [3]),)))
        merge = await ask("POST", "/v1/sessions/=Zi8x/merge", {"into": "s"}, headers=[("idempotency-key", "m")])
        assert merge.status == 201 and merge.headers["etag"].startswith('"')
        again = await ask("POST", "/v1/sessions/=Zi8x/merge", {"into": "s"}, headers=[("idempotency-key", "m")])
        assert again.json() == {**merge.json(), "duplicate": True}
        assert (await ask("POST", "/v1/sessions/=Zi8x/merge", {"into": "s"})).status == 204
        assert (await store.read("s")).state == {"l": [1, 2, 3]}
        await store.append("f/1", Event("mine", None, (op.set("/l", []),)))
        await store.append("s", Event("theirs", None, (op.append("/l", [4]),)))
        assert (await ask("POST", "/v1/sessions/=Zi8x/merge", {"into": "s"})).status == 409
        assert (await ask("POST", f"{S}/merge", {"into": "none"})).status == 404
        for body in ({}, {"into": 3}, {"into": ""}, {"into": "s", "x": 1}):
            assert (await ask("POST", f"{S}/merge", body)).status == 400
        for body in ({"at": 0}, {"at": 99}, {"id": ""}, {"id": "x" * 256}, {"id": "s"}, []):
            assert (await ask("POST", f"{S}/fork", body)).status in (400, 404, 409)


async def test_a_policy_is_set_and_removed(serving: Any) -> None:
    """What is left out stays, null removes; durations are seconds, the time has an offset."""
    async with serving() as ask:
        store = ask.app.node.store
        await store.append("s", Event("start"))
        body = {"expire_after": 3600, "grace": 60.5, "wake_at": "2100-01-01T00:00:00+01:00", "wake": "claim", "tags": {"a": "b"}}
        answer = await ask("POST", f"{S}/configure", {**body, "keep": {"commits": 5}, "drop": True, "actor": "ops"})
        assert answer.status == 200 and answer.headers["etag"]
        policy = await store.policy("s")
        assert (policy.expire_after, policy.grace, policy.keep, policy.drop) == (timedelta(hours=1), timedelta(seconds=60.5), 5, True)
        assert (policy.wake_at, policy.wake) == (datetime(2099, 12, 31, 23, tzinfo=UTC), "claim")
        assert (await store.read("s")).tags == {"a": "b"}
        await ask("POST", f"{S}/configure", {"expire_after": None, "keep": {"seconds": 86400}, "tags": {}})
        policy = await store.policy("s")
        assert (policy.expire_after, policy.keep, policy.wake) == (None, timedelta(days=1), "claim")
        assert (await store.read("s")).tags == {}


POLICIES = [{"expire_after": 0}, {"expire_after": -1}, {"expire_after": "1h"}, {"expire_after": 1e30}, {"wake_at": "soon"}]
POLICIES += [{"wake_at": "2100-01-01T00:00:00"}, {"keep": {}}, {"keep": {"seconds": 1, "commits": 1}}, {"keep": {"seconds": 1e300}}]
POLICIES += [{"tags": {"a": 1}}, {"tags": {"": "b"}}, {"tags": {f"t{n}": "" for n in range(65)}}, {"tags": None}, {"keep": 5}]
POLICIES += [{"wake": "now"}, {"drop": "yes"}, {"odd": 1}, {}]


@pytest.mark.parametrize("body", POLICIES, ids=lambda body: msgspec.json.encode(body).decode()[:40])
async def test_a_policy_that_is_none_is_refused(serving: Any, body: Any) -> None:
    """400, and nothing is stored."""
    async with serving() as ask:
        await ask.app.node.store.append("s", Event("start"))
        answer = await ask("POST", f"{S}/configure", body)
        assert (answer.status, answer.json()["code"]) == (400, "invalid"), answer.body
        assert (await ask.app.node.store.read("s")).version == 1


async def test_a_session_is_proven_deleted_and_purged(serving: Any) -> None:
    """Verify says what hangs together; a deleted one is 410, a purged one has a stub; a session that lives is not purged."""
    async with serving() as ask:
        store = ask.app.node.store
        await store.append("s", Event("start", None, (op.set("/a", 1),)))
        proof = await ask("POST", f"{S}/verify")
        assert proof.json() == {"session": "s", "version": 1, "hash": (await store.read("s")).hash.hex(), "commits": 1, "snapshots": 0}
        assert (await ask("POST", f"{S}/purge")).status == 400
        deleted = await ask("DELETE", f"{S}?actor=ops")
        assert (deleted.status, deleted.json()["version"]) == (200, 2) and deleted.headers["etag"]
        assert (await ask("DELETE", S)).status == 410
        assert (await ask("POST", f"{S}/purge", {"really": True})).status == 400
        assert (await ask("POST", f"{S}/purge")).status == 204
        assert (await ask("GET", S)).status == 410
        for path in ("verify", "purge"):
            assert (await ask("POST", f"/v1/sessions/none/{path}")).status == 404
        assert (await ask("DELETE", "/v1/sessions/none")).status == 404


async def test_a_session_goes_to_the_archive_and_comes_back(tmp_path: Any, serving: Any) -> None:
    """Reads go on; without an archive it is 501, which says what is missing."""
    async with perdure.open("memory:", archive=f"file://{tmp_path}/archive") as store:
        ask = Asker(App(Node(store)))
        await store.append("s", Event("start", None, (op.set("/a", 1),)))
        assert (await ask("POST", f"{S}/archive", {"actor": "ops"})).json()["commits"] == 2
        assert (await ask("GET", S)).json()["status"] == "archived"
        assert [(await ask("POST", f"{S}/restore")).json() for _ in range(2)] == [{"restored": True}, {"restored": False}]
    async with serving() as ask:
        await ask.app.node.store.append("s", Event("start"))
        assert (await ask("POST", f"{S}/archive")).status == 501


async def test_a_scope_opens_its_routes_and_no_other() -> None:
    """With every single scope each route is either answered or 403; without a credential there is none to answer."""

    class Only:
        scope = Scope.read

        async def credential(self, head: RequestHead) -> Credential:
            return Credential("default", frozenset({self.scope}))

    async with perdure.open("memory:") as store:
        only = Only()
        ask = Asker(App(Node(store, authenticator=only)))
        for scope in Scope:
            only.scope = scope
            for route in ask.app.table.routes:
                if route.name not in ("watchSession", "readChanges"):
                    answer = await ask(route.method, route.path.replace("{id}", "none"))
                    assert (answer.status == 403) == (route.scope not in (None, scope)), (route.name, scope, answer.body)
        assert [info async for info in store.list(status="deleted")] == []
