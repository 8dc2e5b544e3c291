"""Reading states over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

import perdure
from perdure import Event, op
from perdure.model.timestamps import moment
from perdure.service.app import App
from perdure.service.node import Node
from tests.support.service.asking import Asker

STATE = "/v1/sessions/s"


async def count(store: perdure.Store, number: int) -> None:
    for _ in range(number):
        await store.append("s", Event("add", None, (op.add("/n", 1),)))


async def test_the_state_is_what_the_library_reads(serving: Any) -> None:
    """State, version, tags, times; an ETag; private, and looked at again each time."""
    async with serving() as ask:
        store = ask.app.node.store
        await count(store, 3)
        await store.configure("s", tags={"team": "ops"})
        answer = await ask("GET", STATE)
        said = answer.json()
        view = await store.read("s")
        assert said == {**view.to_dict(), "token": view.token}
        assert answer.headers["etag"] == f'"4-{view.hash.hex()}"'
        assert (answer.headers["cache-control"], answer.headers["vary"]) == ("private, no-cache", "Authorization, Accept")
        head = await ask("HEAD", STATE)
        assert (head.status, head.body, head.headers["etag"]) == (200, b"", answer.headers["etag"])
        missing = await ask("GET", "/v1/sessions/none")
        assert (missing.status, missing.json()["facts"]["session"]) == (404, "none")


async def test_an_unchanged_state_is_304_without_a_look_at_it(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the head is asked for; a control commit or a data commit makes it 200 again."""
    async with serving() as ask:
        store = ask.app.node.store
        await count(store, 1)
        tag = (await ask("GET", STATE)).headers["etag"]
        with monkeypatch.context() as patch:
            patch.setattr(perdure.Store, "read", None)
            for header in (tag, f"W/{tag}", f'"x", {tag}', "*", f'{tag[:-1]}-gzip"'):
                answer = await ask("GET", STATE, headers=[("if-none-match", header)])
                assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
                assert "content-length" not in answer.headers
        for change in (count(store, 1), store.configure("s", tags={"a": "b"})):
            await change
            answer = await ask("GET", STATE, headers=[("if-none-match", tag)])
            assert answer.status == 200
            tag = answer.headers["etag"]
        assert (await ask("GET", STATE, headers=[("if-none-match", "nonsense")])).status == 400


async def test_a_state_is_read_at_a_version_and_at_a_time(serving: Any) -> None:
    """By number, by number and hash, by time. It has nothing of today; with its hash it may be kept for ever, and never publicly."""
    async with serving() as ask:
        store = ask.app.node.store
        await count(store, 3)
        past = await store.read("s", at=2)
        named = f"2-{past.hash.hex()}"
        for at in ("2", named, quote(moment(past.time))):
            answer = await ask("GET", f"{STATE}?at={at}")
            said = answer.json()
            assert (answer.status, said["version"], said["state"]) == (200, 2, {"n": 2}), at
            assert answer.headers["etag"] == f'"{named}"' and not {"tags", "status", "updated_at"} & said.keys()
            immutable = "private, max-age=31536000, immutable" if at == named else "private, no-cache"
            assert answer.headers["cache-control"] == immutable
            assert (await ask("GET", f"{STATE}?at={at}", headers=[("if-none-match", f'"{named}"')])).status == 304
        assert (await ask("GET", f"{STATE}?at=2-{'00' * 32}")).json()["code"] == "rewound"
        assert (await ask("GET", f"{STATE}?at=2001-01-01T00:00:00%2B01:00")).status == 404
        for bad in ("0", "x", "-1", "2-ab", "2026-01-01", "2026-01-01T00:00:00", "", "9" * 30, f"{'9' * 19}-{'00' * 32}"):
            assert (await ask("GET", f"{STATE}?at={bad}")).status in (400, 404), bad
        assert (await ask("GET", f"{STATE}?at=77")).status == 404


async def test_a_state_may_be_old_but_not_too_old(serving: Any, tmp_path: Any) -> None:
    """`eventual` answers from the node's memory; with `at_least`, the token of another node or a version with its hash, it is newer."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url) as one, perdure.open(url) as two:
        ask = Asker(App(Node(one)))
        await count(one, 1)
        await ask("GET", STATE)
        await ask("GET", STATE)
        await count(two, 1)
        token = await two.token("s")
        newest = await two.read("s")
        old = (await ask("GET", f"{STATE}?consistency=eventual&max_staleness=60")).json()
        assert old["version"] == 1
        for least in (token, f"2-{newest.hash.hex()}"):
            assert (await ask("GET", f"{STATE}?consistency=eventual&at_least={least}")).json()["version"] == 2
        assert (await ask("GET", f"{STATE}?at_least=2-{'00' * 32}")).json()["code"] == "rewound"
        assert (await ask("GET", f"{STATE}?max_staleness=1")).status == 400
        for bad in ("consistency=maybe", "at_least=x", "at_least=", "consistency=eventual&max_staleness=0", "max_staleness=nan"):
            assert (await ask("GET", f"{STATE}?{bad}")).status == 400, bad


async def test_a_deleted_session_is_410_but_for_audit(serving: Any) -> None:
    """`include_deleted` reads it."""
    async with serving() as ask:
        await count(ask.app.node.store, 1)
        await ask.app.node.store.delete("s")
        assert (await ask("GET", STATE)).status == 410
        assert (await ask("GET", f"{STATE}?include_deleted=true&at=1")).json()["state"] == {"n": 1}


async def test_a_node_without_its_engine_is_503(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Retry-After, so that a client comes back; an unknown outcome of a write is 504, which nobody takes for "not done"."""
    async with serving() as ask:
        store = ask.app.node.store
        await count(store, 1)

        async def away(*_: object, **__: object) -> None:
            raise perdure.Unavailable("The server is away.")

        async def unknown(*_: object, **__: object) -> None:
            raise perdure.Unknown("No answer came.")

        async def broken(*_: object, **__: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr(perdure.Store, "read", away)
        answer = await ask("GET", STATE)
        assert (answer.status, answer.headers["retry-after"], answer.json()["retryable"]) == (503, "1", True)
        monkeypatch.setattr(perdure.Store, "append", unknown)
        answer = await ask("POST", f"{STATE}/commits", {"events": [{"type": "a"}]})
        assert (answer.status, "retry-after" in answer.headers, answer.json()["code"]) == (504, False, "unknown")
        monkeypatch.setattr(perdure.Store, "read", broken)
        answer = await ask("GET", STATE)
        assert (answer.status, b"secret" in answer.body) == (500, False)


IDS = ["a", "x" * 255, "a b", "a/b", ".", "..", "=x", "%2F", "日本", "🎈", "é" * 127, "a?b#c", 'quo"te', "+", "&=", "~x", "user:1@h", "a;b"]


@pytest.mark.parametrize("id", IDS)
async def test_every_id_can_be_reached(serving: Any, id: str) -> None:
    """As the `=` form, and percent-encoded where it does not look like that form."""
    from perdure.wire.paths import segment

    async with serving() as ask:
        store = ask.app.node.store
        await store.append(id, Event("start"))
        coded = quote(id, safe="") if id not in (".", "..") else "%2E" * len(id)
        for name in (segment(id), coded):
            answer = await ask("GET", f"/v1/sessions/{name}")
            assert (answer.status, answer.json()["session"]) == (200, id)
        fork = await ask("POST", f"/v1/sessions/{segment(id)}/fork", {"id": id[:100] + "ü"})
        assert (await ask("GET", fork.headers["location"])).json()["session"] == id[:100] + "ü"


@pytest.mark.parametrize("bad", ["=", "==", "%", "%zz", "%00", "%ff", "x" * 256, "%C3%A9" * 128, "=" + "A" * 2000, b"\xff", "%0Aa"])
async def test_an_id_that_is_none_is_400(serving: Any, bad: str | bytes) -> None:
    """On each route that has one, before anything is read or written."""
    raw = bad if isinstance(bad, bytes) else bad.encode()
    async with serving() as ask:
        for route in ask.app.table.routes:
            if "{id}" in route.path:
                body = {} if route.method in ("POST", "PUT", "PATCH") else None
                answer = await ask(route.method, route.path.encode().replace(b"{id}", raw), body, media=route.media[0])
                assert answer.status == 400, (route.name, answer.body)
        assert [info async for info in ask.app.node.store.list()] == []
