"""Every resource route × everything that is another tenant's: it is as if it were not there, in what is answered and in what the engine is
asked. `test_record_matrix` does the same for the record face."""

from __future__ import annotations

import logging

import pytest

from perdure.service.app import App
from perdure.service.hooks import Scope
from perdure.service.records import ROUTES as RECORDS
from perdure.service.routes import ROUTES
from perdure.service.table import Route
from tests.service.auth.test_record_matrix import MESSAGES
from tests.support.service.asking import Asker
from tests.support.service.foreign import NOWHERE, SECRET, THEIRS, label, plain, target, world

OPEN = {"/healthz", "/readyz", "/openapi.json"}
"""The only paths that ask for no credential."""
WHOLE = {
    "GET /v1/sessions",
    "POST /v1/claims",
    "GET /v1/changes",
    "POST /v1/configure",
    "POST /v1/sweep",
    "GET /v1/consumers",
    "GET /metrics",
}
"""Routes about all of a tenant, or of the node: those that name nothing."""
V1 = [route for route in ROUTES if route.path.startswith("/v1/")]
ABOUT_ONE = [route for route in V1 if "{" in route.path]


async def test_no_route_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each route of a node's table names nothing of a tenant's and is listed here, or is in one of the two matrices."""
    async with world(monkeypatch) as here:
        table = {label(route) for route in here.ask.app.table.routes}
    ours = {label(route) for route in ABOUT_ONE} | WHOLE | {f"GET {path}" for path in OPEN}
    assert table == ours | {label(route) for route in RECORDS}
    assert {route.path for route in RECORDS} == set(MESSAGES)


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
            answers.append(await ask(route.method, target(route, session), b"{}" if route.body is not None else None))
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
