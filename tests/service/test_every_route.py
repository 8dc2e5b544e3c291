"""What holds for every route: methods, media types, queries, bodies, headers. Nothing is stored by what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event
from perdure.service.app import App
from perdure.service.node import Node
from perdure.service.routes import ROUTES
from perdure.service.table import NoQuery, Route, Table
from tests.support.service.asking import Asker, Response

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW")
PATHS = sorted({route.path for route in ROUTES})
BYTES = [b"", b"{", b"\xff\xfe", b"[1, 2", b"1e999", b'"x"', b"[" * 50_000, b'{"\\ud800": 1}', b'{"a": 1}}']
WITH_BODY = [route for route in ROUTES if route.body is not None]


def named(route: Route) -> str:
    return route.name


async def ask(route: Route, *args: Any, query: str = "", **more: Any) -> tuple[Response, int]:
    """A request to a route on a store with one session, and how many commits there are after it."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start"))
        asker = Asker(App(Node(store)))
        answer = await asker(route.method, route.path.replace("{id}", "s").replace("{name}", "c") + query, *args, **more)
        return answer, sum([info.version async for info in store.list()])


@pytest.mark.parametrize("path", PATHS)
async def test_another_method_is_405(serving: Any, path: str) -> None:
    """With the methods that the path has."""
    known = {route.method for route in ROUTES if route.path == path}
    known |= {"HEAD"} if "GET" in known else set()
    async with serving() as asker:
        for method in METHODS:
            if method not in known:
                answer = await asker(method, path.replace("{id}", "s").replace("{name}", "c"))
                assert answer.status == 405 and set(answer.headers["allow"].split(", ")) == known, method


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
async def test_another_media_type_is_415(route: Route) -> None:
    """Also none at all, a coded body, and another charset."""
    for headers in (
        [("content-type", "text/plain")],
        [("content-type", "application/xml")],
        [("content-type", f"{route.media[0]}; charset=utf-16")],
        [("content-type", route.media[0]), ("content-encoding", "br")],
        [("content-type", "")],
    ):
        answer, commits = await ask(route, b"{}", headers=headers)
        assert (answer.status, commits) == (415, 1), (headers, answer.body)


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
@pytest.mark.parametrize("body", BYTES, ids=repr)
async def test_a_body_that_is_none_is_400(route: Route, body: bytes) -> None:
    """Of every route that has one, but for those that may be left out."""
    answer, commits = await ask(route, body, media=route.media[0])
    assert answer.status == 400 and answer.json()["code"] == "invalid" and commits == 1, answer.body


@pytest.mark.parametrize("route", WITH_BODY, ids=named)
async def test_a_member_that_is_not_known_is_400(route: Route) -> None:
    """A client that asks for something which nobody does is not answered as if it had been done."""
    if route.name == "patchState":
        return
    answer, commits = await ask(route, {"unheard_of": True})
    assert (answer.status, commits) == (400, 1)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scope is not None], ids=named)
async def test_a_parameter_that_is_not_known_is_400(route: Route) -> None:
    """In every query, also of routes that take none; and so is a query that is no text."""
    for query in ("?unheard_of=1", "?%ff=1", "?a=%ff", "?" + "a=1&" * 2000):
        body = {} if route.body is not None else None
        answer, commits = await ask(route, body, query=query, media=route.media[0] if body is not None else None)
        assert (answer.status, commits) == (400, 1), (query[:20], answer.body)


@pytest.mark.parametrize("value", ["-1", "x", "1001"])
async def test_a_parameter_that_does_not_fit_is_named(value: str) -> None:
    """The problem says which of them it is."""
    (listing,) = [route for route in ROUTES if route.path == "/v1/sessions" and route.method == "GET"]
    answer, commits = await ask(listing, query=f"?prefix=a&limit={value}")
    assert (answer.status, commits) == (400, 1)
    assert "'limit'" in answer.json()["detail"]


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scope is not None and route.body is None], ids=named)
async def test_a_body_for_a_route_that_takes_none_is_refused(route: Route) -> None:
    """On writes it asks for something that nobody does; a GET's is not read, and the connection is closed after it."""
    headers = [("perdure-lease", "1-" + "00" * 32)] if route.path.endswith("/lease") else []
    query = "?live=long-poll&wait=0" if route.path.endswith(("watch", "changes")) else ""
    answer, commits = await ask(route, {"a": 1}, headers=headers, query=query)
    assert commits == 1
    if route.method == "GET":
        assert answer.status == (404 if route.name in ("metrics", "readConsumer") else 200)  # There are none to show.
        assert answer.headers["connection"] == "close"
    else:
        assert answer.status == 400


@pytest.mark.parametrize("route", ROUTES, ids=named)
async def test_every_answer_names_the_store(route: Route) -> None:
    """What lacks it was not said by a node; problems have it too, and a type of their own."""
    answer, _ = await ask(route, headers=[("host", "evil.example")])
    assert answer.status == 421 and answer.headers["perdure-store"]
    assert set(answer.json()) == {"type", "title", "status", "detail", "code", "retryable", "facts", "advice"}


def test_the_table_refuses_what_is_there_twice() -> None:
    """Two handlers for one request, or two names for one segment, are a defect."""
    with pytest.raises(ValueError, match="twice"):
        Table([ROUTES[0], ROUTES[0]])
    with pytest.raises(ValueError, match="called"):
        Table([ROUTES[0], msgspec.structs.replace(ROUTES[0], path="/v1/sessions/{session}/commits")])


def test_queries_are_structs() -> None:
    """Each is described by its fields."""
    for route in ROUTES:
        assert issubclass(route.query, msgspec.Struct)
        assert (route.query is NoQuery) or msgspec.structs.fields(route.query)
