"""Consumers over HTTP: registered, held, written and given up by a client in any language."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, ops
from perdure.service.app import App
from perdure.service.node import Node
from tests.support.service.asking import Asker, Response

C = "/v1/consumers/c"
PARKED = {"first": 1, "last": 2, "error": "no", "since": 5}


async def saved(ask: Asker, lease: str, key: str = "r/1", **more: Any) -> Response:
    body = {"run": "r", "saves": 1, "cursor": None, "expect": 2, **more}
    return await ask("POST", f"{C}/checkpoint", body, headers=[("idempotency-key", key), ("perdure-lease", lease)])


async def test_a_consumer_is_written_under_its_lease_on_any_node(tmp_path: Path) -> None:
    """Register, hold, save, and save again: what is sent twice is done once, on two nodes; another payload is 422, another writer 409, and
    without the lease nothing is written."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(perdure.open(f"sqlite:///{tmp_path}/s.db")) for _ in range(2)]
        one, two = (Asker(App(Node(store))) for store in stores)
        await stores[0].append("a", Event("note"))
        registered = [(await ask("POST", C, {"code": "x", "prefix": "a"})).json() for ask in (one, two)]
        assert registered[0] == registered[1] and registered[0]["name"] == "c"
        assert (await two("POST", C, {"code": "y"})).status == 400
        keyed = [("idempotency-key", "take")]
        held = [(await ask("POST", f"{C}/lease", {"owner": "w"}, headers=keyed)).json() for ask in (one, two)]
        assert held[0]["lease"] == held[1]["lease"]
        assert (await one("POST", f"{C}/lease", {"owner": "other"})).status == 423
        lease = held[0]["lease"]
        cursor = (await one("GET", "/v1/changes?live=long-poll&wait=0")).json()["cursor"]
        progress = {"cursor": cursor, "handled": 1, "position": {"session": "a", "version": 1, "at": 7}, "parked": {"b": PARKED}}
        first = await saved(one, lease, **progress)
        again = await saved(two, lease, **progress)
        assert first.status == again.status == 200 and again.json() == {**first.json(), "duplicate": True}
        assert (await saved(two, lease)).status == 422
        assert (await saved(two, lease, "r/2", saves=2)).json()["code"] == "conflict"
        shown = (await two("GET", C)).json()
        assert (shown["handled"], shown["session"], shown["waiting"], shown["parked"][0]["session"]) == (1, "a", 0, "b")
        assert [one["name"] for one in (await two("GET", "/v1/consumers")).json()["consumers"]] == ["c"]
        for ask in (one, two):
            assert (await ask("PUT", f"{C}/lease", headers=[("perdure-lease", lease)])).status == 200
        for ask in (one, two):
            released = await ask("DELETE", f"{C}/lease", headers=[("perdure-lease", lease), ("idempotency-key", "let go")])
            assert released.status == 204
        assert (await saved(two, lease, "r/3", expect=3)).json()["code"] == "fenced"
        assert (await two("POST", f"{C}/retry", {"session": "b"})).json() == {"sessions": 1}
        assert (await two("POST", f"{C}/drop")).json() == {"sessions": 1}
        assert (await two("DELETE", C)).status == 204
        for method, path in (("GET", C), ("DELETE", C), ("POST", f"{C}/retry"), ("PUT", f"{C}/lease")):
            named = [("perdure-lease", lease)] if method == "PUT" else []
            assert (await one(method, path, headers=named)).status == 404
        assert (await saved(one, lease, "r/4")).status == 404
        assert [commit async for commit in stores[0].changes(prefix="consumer", follow=False)] == []


BAD: list[dict[str, Any]] = [
    {"run": ""}, {"run": "x" * 256}, {"saves": -1}, {"saves": 1 << 70}, {"handled": -1}, {"expect": 0}, {"cursor": "c1.AAAA"},
    {"cursor": 5},
    {"position": {"session": "", "version": 1, "at": 1}}, {"position": {"session": "a", "version": -1, "at": 1}}, {"position": 5},
    {"parked": {"": PARKED}}, {"parked": {"a": {**PARKED, "first": 0}}}, {"parked": {"a": {**PARKED, "first": 3}}},
    {"parked": {"a": {**PARKED, "since": -1}}}, {"parked": {"a": {**PARKED, "error": "x" * 201}}}, {"parked": {"a": {}}},
    {"parked": {f"s{number}": None for number in range(513)}}, {"odd": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", BAD, ids=lambda wrong: repr(wrong)[:40])
async def test_a_checkpoint_that_is_none_is_400(serving: Any, wrong: dict[str, Any]) -> None:
    """Nothing is written, and nothing that a later reader could not read: the sweeper and `perdure consumers` go by it."""
    async with serving() as ask:
        store = ask.app.node.store
        await ask("POST", C, {"code": "x"})
        lease = (await ask("POST", f"{C}/lease", {"owner": "w"})).json()["lease"]
        assert (await saved(ask, lease, **wrong)).status == 400
        for headers in ([("perdure-lease", lease)], [("idempotency-key", "k")]):
            body = {"run": "r", "saves": 1, "cursor": None, "expect": 2}
            assert (await ask("POST", f"{C}/checkpoint", body, headers=headers)).status == 400
        (info,) = await ops.consumers(store)
        assert (info.handled, info.parked) == (0, ())
        assert (await saved(ask, lease)).json()["version"] == 3


@pytest.mark.parametrize("name", ["%00", "=", "x" * 201, "%", "=" + "QUFB" * 100])
async def test_a_name_that_is_none_is_400(serving: Any, name: str) -> None:
    """For every request about a consumer."""
    async with serving() as ask:
        asked: list[tuple[str, str, Any]] = [("GET", "", None), ("POST", "", {"code": "x"}), ("POST", "/lease", {"owner": "w"})]
        for method, rest, body in [*asked, ("DELETE", "", None)]:
            answer = await ask(method, f"/v1/consumers/{name}{rest}", body)
            assert (answer.status, answer.json()["code"]) == (400, "invalid"), answer
