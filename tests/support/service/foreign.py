"""Another tenant's sessions, keys, leases and consumers, and a caller who is not to see anything of them; and what the engine is asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import perdure
from perdure import Event, op, ops
from perdure.model.ids import SessionKey
from perdure.service.app import App
from perdure.service.auth.credentials import Credentials
from perdure.service.auth.records import create_token
from perdure.service.auth.tokens import Tokens
from perdure.service.node import Node
from perdure.service.table import Route
from tests.support.service.asking import Asker, Response

THEIRS, NOWHERE, SECRET = "trip-theirs", "trip-nobody", "top secret plan"
BODIES: dict[str, Any] = {
    "appendCommit": {"ops": [{"op": "set", "path": "/a", "value": 1}], "base": 1},
    "mergeSession": {"into": "mine"},
    "configureSession": {"tags": {"a": "b"}},
    "compactSession": {"keep": {"commits": 1}, "drop": True},
    "configurePrefix": {"prefix": "trip-", "keep": {"commits": 5}, "drop": True},
    "patchState": {"a": 1},
    "takeLease": {"owner": "me"},
    "claimSessions": {"owner": "me", "prefix": "trip-"},
    "registerConsumer": {"code": "mine", "prefix": "trip-"},
    "holdConsumer": {"owner": "me"},
    "saveConsumer": {"run": "r", "saves": 1, "cursor": None, "expect": 1},
}
"""What routes are asked whose body says something, by their names."""
MUTABLE = re.compile(rb"[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[0-9:.]+Z|(?<=token..)\d+")
"""Hashes, ids, times and fencing tokens: a write that starts a session of one's own has new ones."""


def label(route: Route) -> str:
    """A route as a test is called."""
    return f"{route.method} {route.path}"


def target(route: Route, name: str) -> str:
    """The path of a route about a session, or a consumer, of this name."""
    return route.path.replace("{id}", name).replace("{name}", name)


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
        body = BODIES.get(route.name, {} if route.method in ("POST", "PUT", "PATCH") and route.body is not None else None)
        self.calls.taken()
        media = route.media[-1] if body is not None else None
        async with asyncio.timeout(60):
            where = target(route, session) + ("?live=long-poll&wait=0" if route.watches else "")
            answer = await self.ask(route.method, where, body, headers=headers or [], media=media)
        asked = [call.replace(session, "SESSION") for call in self.calls.taken()]
        return answer, asked


@asynccontextmanager
async def world(monkeypatch: pytest.MonkeyPatch, scopes: tuple[str, ...] = ("read", "append", "lease", "admin")) -> AsyncIterator[World]:
    """One store: the tenant `theirs` has a session with a key, tags and a fork, a prefix policy, and a consumer of the session's name; the
    caller is of the tenant `mine`."""
    async with perdure.open("memory:", tenant="theirs") as store:
        await store.append(THEIRS, Event("note", {"text": SECRET}, (op.set("/plan", SECRET),)), key="their-key", actor="them")
        await store.configure(THEIRS, tags={"team": "secret"})
        await store.fork(THEIRS, id="trip-fork")
        await store.configure(prefix="trip-", keep=1_000, drop=True)
        await ops.consume(store, THEIRS, _nothing, code=SECRET, follow=False)
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


def _nothing(changes: object) -> None:
    """A handler."""
