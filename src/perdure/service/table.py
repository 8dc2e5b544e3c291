"""Routes, and the table that finds the one for a request by its raw path, segment by segment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.service.answers import Answer, Stream
from perdure.service.call import Call
from perdure.service.hooks import Scope
from perdure.service.refusals import MethodNotAllowed, NoRoute
from perdure.wire import JSON

Handle = Callable[[Call], Awaitable[Answer | Stream]]


class NoQuery(msgspec.Struct, frozen=True):
    """A route without query parameters."""


class Reply(msgspec.Struct, frozen=True):
    """One answer that a route may give, for its description. Problems need none: each route may answer with them."""

    status: int
    meaning: str
    kind: Any = None
    """The type of its JSON."""
    media: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()


class Header(msgspec.Struct, frozen=True):
    """A header that a route reads, for its description."""

    name: str
    meaning: str


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path, who may call it, what does it, and what is said of it."""

    method: str
    path: str
    """`{name}` stands for one segment."""
    scope: Scope | None
    """What the credential must allow; `None`: no credential is asked for."""
    handle: Handle
    name: str
    """The operation's name, of letters: unique."""
    summary: str
    about: str = ""
    query: type = NoQuery
    """A struct of its query parameters."""
    headers: tuple[Header, ...] = ()
    body: Any = None
    """The type of its body."""
    media: tuple[str, ...] = (JSON,)
    """Media types of its body."""
    optional_body: bool = False
    replies: tuple[Reply, ...] = ()
    example: str = ""
    """Arguments of curl that follow `curl -sS`, with `$URL` for the node; for the docs, where it is run."""
    watches: bool = False
    """Whether it is answered by waiting for what happens, as an event stream or a long poll: it takes no turn before the engine."""
    charges: bool = False
    """Whether the handler itself charges the commits that its body asks for; another route that writes counts as one."""
    keyless: str = ""
    """Why a route that writes takes no idempotency key."""
    described: bool = True
    """Whether it stands in the OpenAPI document."""


class _Node:
    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.any: tuple[str, _Node] | None = None
        self.routes: dict[str, Route] = {}


class Table:
    """All routes of a node."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        place = self._root
        for part in route.path.split("/")[1:]:
            if part.startswith("{"):
                if place.any is None:
                    place.any = part[1:-1], _Node()
                if place.any[0] != part[1:-1]:
                    raise ValueError(f"{route.path}: this segment is called {place.any[0]!r} in another route.")
                place = place.any[1]
            else:
                place = place.below.setdefault(part, _Node())
        if route.method in place.routes:
            raise ValueError(f"{route.method} {route.path} stands twice in the table.")
        place.routes[route.method] = route

    def find(self, method: str, raw_path: str) -> tuple[Route, Mapping[str, str]]:
        """The route, and the raw segments that stand for its names. HEAD is answered as GET is.

        Raises `NoRoute`, and `MethodNotAllowed` with the fact `allow`.
        """
        place, names = self._root, {}
        parts = raw_path.split("/")
        for part in parts[1:] if not parts[0] else [""]:
            if (found := place.below.get(part)) is not None:
                place = found
            elif place.any is not None and part:
                names[place.any[0]] = part
                place = place.any[1]
            else:
                raise NoRoute(f"There is nothing at {raw_path[:120]!r}.")
        if not place.routes:
            raise NoRoute(f"There is nothing at {raw_path[:120]!r}.")
        route = place.routes.get(method) or (place.routes.get("GET") if method == "HEAD" else None)
        if route is None:
            allow = sorted({*place.routes, *(("HEAD",) if "GET" in place.routes else ())})
            raise MethodNotAllowed(f"{method[:20]} is not for this path.", allow=allow)
        return route, names
