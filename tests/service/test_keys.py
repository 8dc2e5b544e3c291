"""`Idempotency-Key` on routes that write: a retry finds what was done, another request with the key is 422, or the route takes none."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.service.app import App
from perdure.service.node import Node
from perdure.service.openapi import document
from perdure.service.routes import ROUTES
from perdure.service.table import Route
from perdure.wire import HEADER_KEY
from tests.support.service.asking import Asker, Response

S = "/v1/sessions/s"
KEYED = {
    "appendCommit": ("POST", f"{S}/commits", {"events": [{"type": "a"}]}, {"events": [{"type": "b"}]}),
    "forkSession": ("POST", f"{S}/fork", {"at": 1}, {"at": 2}),
    "mergeSession": ("POST", "/v1/sessions/f/merge", {"into": "s"}, None),
    "configureSession": ("POST", f"{S}/configure", {"tags": {"a": "1"}, "expire_after": 60}, {"tags": {"a": "1"}}),
    "configurePrefix": (
        "POST",
        "/v1/configure",
        {"prefix": "s", "keep": {"seconds": 60}, "drop": True},
        {"prefix": "s", "expire_after": 60},
    ),
    "deleteSession": ("DELETE", S, None, None),
    "patchState": ("PATCH", S, {"a": 2}, {"a": 3}),
}
"""For each keyed route a request, and another one of its kind."""
ELSEWHERE = {"takeLease", "releaseLease", "holdConsumer", "saveConsumer", "releaseConsumer"}
"""Those whose retries are tested below, in `test_leases` and in `test_consumers`."""
WRITING = [route for route in ROUTES if route.method != "GET"]


def named(route: Route) -> str:
    return route.name


def takes_key(route: Route) -> bool:
    return any(header.name == HEADER_KEY for header in route.headers)


async def two_nodes(stack: AsyncExitStack, folder: Path) -> tuple[Asker, Asker]:
    stores = [await stack.enter_async_context(perdure.open(f"sqlite:///{folder}/s.db")) for _ in range(2)]
    await stores[0].append("s", Event("start", None, (op.set("/a", 1),)), key="start")
    await stores[0].append("s", Event("more"))
    await stores[0].fork("s", id="f")
    await stores[0].append("f", Event("mine", None, (op.set("/b", 1),)))
    return Asker(App(Node(stores[0]))), Asker(App(Node(stores[1])))


async def keyed(ask: Asker, key: str, method: str, target: str, body: Any, *more: tuple[str, str]) -> Response:
    media = "application/merge-patch+json" if method == "PATCH" else None
    return await ask(method, target, body, headers=[("idempotency-key", key), *more], media=media)


@pytest.mark.parametrize("name", KEYED)
async def test_a_retry_finds_what_was_done(name: str, tmp_path: Path) -> None:
    """On another node, after others wrote: the same answer, and no second commit. Another payload, and the key of another request, are 422
    (`KeyReused`), and nothing is written."""
    method, target, body, other = KEYED[name]
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        if name != "configurePrefix":  # Its keys are its own.
            reused = await keyed(one, "start", method, target, body)
            assert (reused.status, reused.json()["type"]) == (422, "urn:perdure:error:KeyReused"), reused
        first = await keyed(one, "k", method, target, body)
        assert first.status in (200, 201), first
        if name != "deleteSession":
            assert (await two("POST", f"{S}/commits", {"ops": [{"op": "set", "path": "/z", "value": 1}]})).status == 201
        commits = (await one("GET", f"{S}/commits?include_deleted=true")).json()["commits"]
        again = await keyed(two, "k", method, target, body)
        expected = first.json() if name == "forkSession" else {**first.json(), "duplicate": True}
        assert (again.status, again.json()) == (first.status, expected)
        if other is not None:
            refused = await keyed(two, "k", method, target, other)
            assert (refused.status, refused.json()["type"]) == (422, "urn:perdure:error:KeyReused"), refused
        assert (await two("GET", f"{S}/commits?include_deleted=true")).json()["commits"] == commits


async def test_a_release_that_is_sent_again_is_found(tmp_path: Path) -> None:
    """On any node it is 204 again; another grant with the key is 422 and stays held; without the key it is 409, as ever."""
    async with AsyncExitStack() as stack:
        one, two = await two_nodes(stack, tmp_path)
        lease = (await one("POST", f"{S}/lease", {"owner": "w"})).json()["lease"]
        bearing = ("perdure-lease", lease)
        for ask in (one, two, one):
            assert (await keyed(ask, "r", "DELETE", f"{S}/lease", None, bearing)).status == 204
        assert (await two("DELETE", f"{S}/lease", headers=[bearing])).json()["code"] == "fenced"
        second = (await two("POST", f"{S}/lease", {"owner": "w"})).json()["lease"]
        refused = await keyed(one, "r", "DELETE", f"{S}/lease", None, ("perdure-lease", second))
        assert (refused.status, refused.json()["type"]) == (422, "urn:perdure:error:KeyReused")
        assert (await one("PUT", f"{S}/lease", headers=[("perdure-lease", second)])).status == 200


def test_no_keyed_route_is_left_out() -> None:
    """Each has a test of its retry."""
    assert {route.name for route in WRITING if takes_key(route)} == KEYED.keys() | ELSEWHERE


@pytest.mark.parametrize("route", WRITING, ids=named)
async def test_every_write_takes_a_key_or_says_why_not(serving: Any, route: Route) -> None:
    """The document says which; a key that would not be looked at is refused, and never ignored."""
    said = document(ROUTES, "1")["paths"][route.path][route.method.lower()]
    names = {parameter["name"] for parameter in said.get("parameters", ())}
    assert takes_key(route) == (HEADER_KEY in names) == (not route.keyless)
    if takes_key(route):
        return
    assert f"It takes no `Idempotency-Key`. {route.keyless}" in said["description"]
    async with serving() as ask:
        await ask.app.node.store.append("s", Event("start"))
        body = {} if route.body is not None else None
        answer = await ask(route.method, route.path.replace("{id}", "s").replace("{name}", "c"), body, headers=[("idempotency-key", "k")])
        assert answer.status == 400 and answer.json()["detail"].endswith(route.keyless), answer
        assert (await ask.app.node.store.read("s")).version == 1
