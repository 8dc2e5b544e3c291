"""Every route × everything that is another tenant's: it is as if it were not there, in what is answered and in what the engine is asked."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.model.ids import SessionKey
from perdure.service.app import App
from perdure.service.auth.credentials import Credentials
from perdure.service.auth.records import create_token
from perdure.service.auth.tokens import Tokens
from perdure.service.hooks import Scope
from perdure.service.node import Node
from perdure.service.routes import ROUTES
from perdure.service.table import Route
from tests.support.service.asking import Asker, Response

THEIRS, NOWHERE, SECRET = "trip-theirs", "trip-nobody", "top secret plan"
OPEN = {"/healthz", "/readyz", "/openapi.json"}
"""The only paths that ask for no credential."""
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/sessions/{id}/commits"): {"ops": [{"op": "set", "path": "/a", "value": 1}], "base": 1},
    ("POST", "/v1/sessions/{id}/fork"): {},
    ("POST", "/v1/sessions/{id}/merge"): {"into": "mine"},
    ("POST", "/v1/sessions/{id}/configure"): {"tags": {"a": "b"}},
    ("PATCH", "/v1/sessions/{id}"): {"a": 1},
    ("POST", "/v1/sessions/{id}/lease"): {"owner": "me"},
    ("POST", "/v1/claims"): {"owner": "me", "prefix": "trip-"},
}
MEDIA = {("PATCH", "/v1/sessions/{id}"): "application/merge-patch+json"}
MUTABLE = re.compile(rb"[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[0-9:.]+Z|(?<=token..)\d+")
"""Hashes, ids, times and fencing tokens: a write that starts a session of one's own has new ones."""
V1 = [route for route in ROUTES if route.path.startswith("/v1/")]
ABOUT_ONE = [route for route in V1 if "{id}" in route.path]


def label(route: Route) -> str:
    """A route as a test is called."""
    return f"{route.method} {route.path}"


class Calls:
    """What an engine is asked."""

    def __init__(self, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        for name in ("append", "heads", "load", "read", "scan", "find_key", "purge", "truncate", "put_snapshot", "feed"):
            if hasattr(backend, name):
                monkeypatch.setattr(backend, name, self._noted(name, getattr(backend, name)))

    def _noted(self, name: str, call: Any) -> Any:
        async def noted(*arguments: Any, **more: Any) -> Any:
            keys = [str(key) for key in _sessions([*arguments, *more.values()])]
            self.seen.append(f"{name}({', '.join(keys)})")
            return await call(*arguments, **more)

        return noted

    def taken(self) -> list[str]:
        """Since the last time."""
        seen, self.seen = self.seen, []
        return seen


def _sessions(values: Any) -> Iterator[SessionKey]:
    for value in values:
        if isinstance(value, SessionKey):
            yield value
        elif isinstance(value, list | tuple):
            yield from _sessions(value)
        elif isinstance(getattr(value, "session", None), SessionKey):
            yield value.session


class World:
    """A node with credentials, and another tenant's session."""

    def __init__(self, node: Node, calls: Calls, token: str, others: str) -> None:
        self.node, self.calls = node, calls
        self.ask = Asker(App(node), [("authorization", f"Bearer {token}")])
        self.other = Asker(App(node), [("authorization", f"Bearer {others}")])

    async def request(self, route: Route, session: str, headers: list[tuple[str, str]] | None = None) -> tuple[Response, list[str]]:
        """Its answer, and what the engine was asked, with the session's name taken out."""
        key = (route.method, route.path)
        body = BODIES.get(key, {} if route.method in ("POST", "PUT", "PATCH") and route.body is not None else None)
        self.calls.taken()
        media = MEDIA.get(key) if body is not None else None
        async with asyncio.timeout(60):
            target = route.path.replace("{id}", session) + ("?live=long-poll&wait=0" if route.watches else "")
            answer = await self.ask(route.method, target, body, headers=headers or [], media=media)
        asked = [call.replace(session, "SESSION") for call in self.calls.taken()]
        return answer, asked


@asynccontextmanager
async def world(monkeypatch: pytest.MonkeyPatch, scopes: tuple[str, ...] = ("read", "append", "lease", "admin")) -> AsyncIterator[World]:
    """One store: the tenant `theirs` has a session with a key, tags and a fork; the caller is of the tenant `mine`."""
    async with perdure.open("memory:", tenant="theirs") as store:
        await store.append(THEIRS, Event("note", {"text": SECRET}, (op.set("/plan", SECRET),)), key="their-key", actor="them")
        await store.configure(THEIRS, tags={"team": "secret"})
        await store.fork(THEIRS, id="trip-fork")
        await store.for_tenant("mine").append("mine", Event("note", None, (op.set("/x", 1),)))
        mine = await create_token(store, tenant="mine", scopes=scopes)
        others = await create_token(store, tenant="theirs", scopes=["read"])
        node = Node(store, authenticator=Credentials(Tokens(store, store._core.clock)))
        yield World(node, Calls(store._core.backend, monkeypatch), mine.token, others.token)


def plain(answer: Response, session: str) -> tuple[int, dict[str, str], bytes]:
    """An answer without what is new each time."""
    headers = {name: MUTABLE.sub(b"#", value.replace(session, "SESSION").encode()).decode() for name, value in answer.headers.items()}
    if answer.status < 300:  # What is new may be longer, too.
        headers.pop("content-length", None)
    return answer.status, headers, MUTABLE.sub(b"#", answer.body.replace(session.encode(), b"SESSION"))


@pytest.mark.parametrize("route", ABOUT_ONE, ids=label)
@pytest.mark.parametrize("key", [None, "their-key"])
async def test_a_session_of_another_tenant_is_as_one_that_is_not_there(
    route: Route, key: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same status, headers, bytes and engine calls, also with a key that the other tenant has used; no word of it in the log; and their
    session stays as it was."""
    caplog.set_level(logging.DEBUG, "perdure")
    headers = [("idempotency-key", key)] if key and any(each.name == "Idempotency-Key" for each in route.headers) else []
    async with world(monkeypatch) as here:
        await here.request(route, "trip-warm-up", headers)
        before = await here.other("GET", f"/v1/sessions/{THEIRS}")
        nowhere, asked_nowhere = await here.request(route, NOWHERE, headers)
        theirs, asked = await here.request(route, THEIRS, headers)
        assert plain(theirs, THEIRS) == plain(nowhere, NOWHERE)
        assert asked == asked_nowhere and not any("theirs" in call for call in asked)
        assert SECRET.encode() not in theirs.body and THEIRS not in caplog.text and SECRET not in caplog.text
        after = await here.other("GET", f"/v1/sessions/{THEIRS}")
        assert (after.status, after.body) == (200, before.body) and SECRET.encode() in after.body


@pytest.mark.parametrize("route", V1, ids=label)
@pytest.mark.parametrize("credential", [None, "Bearer perdure_0123456789abcdef_" + "A" * 43, "Bearer a.b.c", "Basic bWU6bWU="])
async def test_without_a_credential_nothing_is_asked(route: Route, credential: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 on every route, the same for a session that is there; the engine is asked for the token at most."""
    async with world(monkeypatch) as here:
        ask = Asker(App(here.node), [] if credential is None else [("authorization", credential)])
        answers = []
        for session in (THEIRS, NOWHERE, "mine"):
            here.calls.taken()
            answers.append(await ask(route.method, route.path.replace("{id}", session), b"{}" if route.body is not None else None))
            assert all("token/" in call for call in here.calls.taken())
        assert {answer.status for answer in answers} == {401} and len({answer.body for answer in answers}) == 1
        assert answers[0].headers["www-authenticate"] == "Bearer"
        secret = (credential or " ").partition(" ")[2]
        assert not secret or secret.encode() not in answers[0].body


@pytest.mark.parametrize("route", V1, ids=label)
async def test_a_scope_that_is_missing_is_403_before_anything(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all scopes but the route's the engine is not asked, whether the session is there or not."""
    others = tuple(scope.value for scope in Scope if scope is not route.scope)
    async with world(monkeypatch, others) as here:
        await here.request(route, "trip-warm-up")
        answers = [await here.request(route, session) for session in ("mine", NOWHERE, THEIRS)]
        assert {answer.status for answer, _ in answers} == {403} and len({answer.body for answer, _ in answers}) == 1
        assert [asked for _, asked in answers] == [[], [], []]


def test_every_route_asks_for_a_scope() -> None:
    """But those that say how the node is."""
    assert {route.path for route in ROUTES if route.scope is None} <= OPEN


async def test_listings_and_cursors_have_ones_own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No filter and no cursor of another tenant's shows anything of it."""
    async with world(monkeypatch) as here:
        queries = ("", "?prefix=trip-", "?tag=team%3Dsecret", f"?cursor={THEIRS}", "?cursor=a", "?status=active", f"?prefix={THEIRS}")
        for query in queries:
            answer = await here.ask("GET", f"/v1/sessions{query}")
            assert b"trip-" not in answer.body.replace(f"{query[1:]}".encode() or b"-", b"") or answer.status == 400
            assert SECRET.encode() not in answer.body
        listed = (await here.ask("GET", "/v1/sessions")).json()
        assert [one["session"] for one in next(value for value in listed.values() if isinstance(value, list))] == ["mine"]


@pytest.mark.parametrize("route", [route for route in ABOUT_ONE if any(each.name == "Perdure-Lease" for each in route.headers)], ids=label)
async def test_a_lease_of_another_tenant_is_as_one_that_is_not_there(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grant that their worker holds: the same answers and calls as on a session that is not there; the worker holds it still."""
    async with world(monkeypatch) as here:
        store = here.node.store
        async with store.lease(THEIRS, owner="them", ttl=600) as lease:
            borrowed = [("perdure-lease", lease.grant)]
            await here.request(route, "trip-warm-up", borrowed)
            nowhere, asked_nowhere = await here.request(route, NOWHERE, borrowed)
            theirs, asked = await here.request(route, THEIRS, borrowed)
            assert plain(theirs, THEIRS) == plain(nowhere, NOWHERE) and theirs.status >= 400
            assert asked == asked_nowhere
            await lease.confirm()


async def test_changes_and_their_cursors_have_ones_own_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is followed is the credential's tenant; a cursor that another tenant was given is refused."""
    async with world(monkeypatch) as here:
        poll = "/v1/changes?live=long-poll&wait=0"
        theirs, mine = (await here.other("GET", poll)).json(), (await here.ask("GET", poll)).json()
        assert {change["session"] for change in theirs["changes"]} == {THEIRS, "trip-fork"}
        assert {change["session"] for change in mine["changes"]} == {"mine"}
        borrowed = await here.ask("GET", f"{poll}&after={theirs['cursor']}")
        assert borrowed.status in (400, 409, 410) and SECRET.encode() not in borrowed.body and b"theirs" not in borrowed.body, borrowed


async def test_a_merge_or_fork_reaches_into_no_other_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that a body names are the credential's tenant's too."""
    async with world(monkeypatch) as here:
        for target in (THEIRS, NOWHERE):
            answer = await here.ask("POST", f"/v1/sessions/{target}/merge", {"into": "mine"})
            assert answer.status == 404, answer
        into = [await here.ask("POST", "/v1/sessions/mine/merge", {"into": target}) for target in (THEIRS, NOWHERE)]
        assert plain(into[0], THEIRS)[::2] == plain(into[1], NOWHERE)[::2]


async def test_system_tenants_are_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sessions that have the tokens are those of no credential: their ids are not there."""
    async with world(monkeypatch) as here:
        token = here.ask.headers[0][1].split("_")[1]
        for session in (f"token/{token}", f"~{token}", "~", "prefix:"):
            path = "/v1/sessions/" + session.replace("/", "%2F").replace(":", "%3A")
            answer = await here.ask("GET", path)
            assert answer.status in (400, 404) and b"digest" not in answer.body
