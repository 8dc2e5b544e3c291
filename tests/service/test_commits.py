"""Appending commits over HTTP, and reading them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event, op
from perdure.model.values import thaw
from perdure.service.app import App
from perdure.service.hooks import Credential, RequestHead
from perdure.service.node import Node
from tests.support.service.asking import Asker, Response

COMMITS = "/v1/sessions/s/commits"
SET = {"op": "set", "path": "/a", "value": 1}
NOTE = {"type": "note", "data": {"x": [1, None, "é"]}}
OTHER = "1-" + "ab" * 32


async def append(ask: Asker, body: Any = None, **more: str) -> Response:
    headers = [(name.replace("_", "-"), value) for name, value in more.items()]
    return await ask("POST", COMMITS, {"events": [NOTE]} if body is None else body, headers=headers)


async def stored(ask: Asker) -> list[perdure.Commit]:
    try:
        return [commit async for commit in ask.app.node.store.history("s", control=True)]
    except perdure.NotFound:
        return []


async def test_a_commit_is_stored_and_its_receipt_comes_back(serving: Any) -> None:
    """Events and operations are one commit, as the library writes it; 201, the receipt, the ETag."""
    async with serving() as ask:
        body = {"events": [{**NOTE, "ops": [SET]}], "ops": [{"op": "add", "path": "/n", "value": 2}]}
        answer = await append(ask, {**body, "actor": "planner", "durability": "memory"})
        receipt = answer.json()
        assert (answer.status, receipt["version"], receipt["durability"], receipt["duplicate"]) == (201, 1, "memory", False)
        assert answer.headers["etag"] == f'"1-{receipt["hash"]}"'
        (commit,) = await stored(ask)
        assert (commit.hash.hex(), commit.actor) == (receipt["hash"], "planner")
        assert commit.events == (Event("note", NOTE["data"], (op.set("/a", 1),)), Event("edited", None, (op.add("/n", 2),)))
        assert thaw((await ask.app.node.store.read("s")).state) == {"a": 1, "n": 2}


async def test_the_callers_trace_is_kept(serving: Any) -> None:
    """The commit has the request's traceparent; a malformed one is not kept."""
    async with serving() as ask:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        await append(ask, traceparent=trace)
        await append(ask, traceparent="00-nonsense")
        assert [commit.trace for commit in await stored(ask)] == [trace, None]
        refused = await ask("GET", "/v1/sessions/none", headers=[("traceparent", trace)])
        assert refused.json()["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_a_key_is_applied_once(serving: Any) -> None:
    """The same request again gets the first receipt; another payload is 422 and names where the key was used."""
    async with serving() as ask:
        first = (await append(ask, Idempotency_Key="k")).json()
        again = await append(ask, Idempotency_Key='"k"')
        assert (again.status, again.json()) == (201, {**first, "duplicate": True})
        reused = await append(ask, {"events": [{"type": "other"}]}, Idempotency_Key="k")
        assert (reused.status, reused.json()["facts"]["version"]) == (422, 1)
        assert len(await stored(ask)) == 1


async def test_if_match_is_strict(serving: Any) -> None:
    """The commit must be the one named and no data commit may follow; control commits do not matter, nor what proxies add to the tag."""
    async with serving() as ask:
        tag = (await append(ask)).headers["etag"]
        await ask.app.node.store.configure("s", tags={"a": "b"})
        for wrong in (f'"{OTHER}"', '"2-' + "00" * 32 + '"', '"9-' + "00" * 32 + '"', '"x"', '""'):
            answer = await append(ask, If_Match=wrong)
            assert (answer.status, answer.json()["code"]) == (412, "precondition_failed"), wrong
        for before, after in (("W/", ""), ("", "-gzip"), ("", "--gzip"), ("", ";br")):
            added = f'{before}{tag[:-1]}{after}"'
            answer = await append(ask, If_Match=added)
            assert answer.status == 201, added
            assert (await append(ask, If_Match=added)).status == 412
            tag = answer.headers["etag"]
        assert (await append(ask, {"ops": [SET]}, If_Match=tag)).status == 201
        refused = await append(ask, {"ops": [SET]}, If_Match=tag)
        assert refused.status == 412 and [commit["version"] for commit in refused.json()["facts"]["commits"]] == [7]


async def test_of_two_strict_writers_one_wins(serving: Any) -> None:
    """Of many requests with one If-Match exactly one is stored: the condition is decided inside the write."""
    async with serving() as ask:
        tag = (await append(ask)).headers["etag"]
        for body in ({"events": [NOTE]}, {"ops": [SET]}):
            answers = await asyncio.gather(*[append(ask, body, If_Match=tag) for _ in range(12)])
            assert sorted(answer.status for answer in answers) == [201] + [412] * 11
            tag = next(answer.headers["etag"] for answer in answers if answer.status == 201)


async def test_existence_is_a_condition(serving: Any) -> None:
    """`If-None-Match: *` starts a session or is 412; `If-Match: *` is the reverse."""
    async with serving() as ask:
        assert (await append(ask, If_Match="*")).status == 412
        assert await stored(ask) == []
        assert (await append(ask, If_None_Match="*")).status == 201
        assert (await append(ask, If_None_Match="*")).status == 412
        assert (await append(ask, If_Match="*")).status == 201
        assert (await append(ask, If_Match=f'"{OTHER}"', If_None_Match="*")).status == 400
        assert (await append(ask, If_None_Match=f'"{OTHER}"')).status == 400
        assert (await append(ask, {"events": [NOTE], "base": 1}, If_Match="*")).status == 400
        assert len(await stored(ask)) == 2


async def test_a_base_merges_over_what_followed(serving: Any) -> None:
    """Operations made on an older version are carried over; what clashes is 409 with the commits and the paths."""
    async with serving() as ask:
        first = (await append(ask, {"ops": [{"op": "set", "path": "/l", "value": []}, {"op": "set", "path": "/a", "value": 0}]})).json()
        await append(ask, {"ops": [{"op": "append", "path": "/l", "value": [1]}, SET]})
        for base in (1, f"1-{first['hash']}"):
            merged = await append(ask, {"ops": [{"op": "append", "path": "/l", "value": [2]}], "base": base})
            assert merged.status == 201
        assert thaw((await ask.app.node.store.read("s")).state)["l"] == [1, 2, 2]
        clash = await append(ask, {"ops": [{"op": "set", "path": "/a", "value": 5}], "base": 1})
        facts = clash.json()["facts"]
        assert (clash.status, clash.json()["code"], facts["paths"], facts["expected"], facts["actual"]) == (409, "conflict", ["/a"], 1, 4)
        assert [commit["version"] for commit in facts["commits"]] == [2, 3, 4]
        strict = await append(ask, {"ops": [{"op": "append", "path": "/l", "value": [3]}], "base": 1, "on_conflict": "raise"})
        assert strict.status == 409
        assert (await append(ask, {"ops": [SET], "base": OTHER})).json()["code"] == "rewound"
        assert (await append(ask, {"ops": [SET], "base": 77})).status == 400


async def test_a_test_that_fails_is_a_conflict_even_under_a_condition(serving: Any) -> None:
    """The condition holds, and the operation does not: 409, no 412."""
    async with serving() as ask:
        tag = (await append(ask, {"ops": [SET]})).headers["etag"]
        answer = await append(ask, {"ops": [{"op": "test", "path": "/a", "value": 2}]}, If_Match=tag)
        assert (answer.status, answer.json()["facts"]["test"]) == (409, "/a")


async def test_a_deleted_session_is_gone_until_it_is_recreated(serving: Any) -> None:
    """410; `recreate` goes on from the tombstone's version."""
    async with serving() as ask:
        await append(ask)
        assert (await ask("DELETE", "/v1/sessions/s?actor=me")).status == 200
        assert (await append(ask)).status == 410
        assert (await append(ask, {"events": [NOTE], "recreate": True})).json()["version"] == 3


BAD = [
    {},
    {"events": []},
    {"events": [NOTE], "extra": 1},
    {"events": NOTE},
    {"events": [{"type": ""}]},
    {"events": [{"type": 3}]},
    {"events": [{"data": 1}]},
    {"events": [{"type": "a\nb"}]},
    {"events": [{"type": "x" * 256}]},
    {"events": [{**NOTE, "when": 1}]},
    {"ops": [{"op": "nope", "path": "/a"}]},
    {"ops": [{"op": "set"}]},
    {"ops": [{"op": "set", "path": "a", "value": 1}]},
    {"ops": [{"op": "add", "path": "/a", "value": "x"}]},
    {"ops": [{"op": "add", "path": "/a", "value": 1, "taken": True}]},
    {"ops": [["set", "/a", 1]]},
    {"ops": [SET], "durability": "forever"},
    {"ops": [SET], "on_conflict": "ask"},
    {"ops": [SET], "base": 0},
    {"ops": [SET], "base": "1"},
    {"ops": [SET], "base": 1.5},
    {"ops": [SET], "base": True},
    {"ops": [SET], "actor": ""},
    {"ops": [SET], "actor": 7},
    {"ops": [SET], "recreate": "yes"},
    {"ops": [{"op": "set", "path": "/a/b/c", "value": 1}]},
    {"ops": [{"op": "remove", "path": "/none"}]},
    [],
    "x",
    None,
    1,
]


@pytest.mark.parametrize("body", BAD, ids=lambda body: msgspec.json.encode(body).decode()[:40])
async def test_a_commit_that_is_none_stores_nothing(serving: Any, body: Any) -> None:
    """400 with a problem document that says why."""
    async with serving() as ask:
        answer = await ask("POST", COMMITS, msgspec.json.encode(body))
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json"), answer.body
        assert answer.json()["code"] == "invalid" and answer.json()["detail"]
        assert await stored(ask) == []


BYTES = [b"", b"{", b"\xff", b'{"events": [{"type": "\xff"}]}', b'{"events": [{"type": "a", "data": NaN}]}', b"[" * 100_000]
BYTES += [b'{"events": [{"type": "a", "data": "\\ud800"}]}', b'{"events": [{"type": "a", "data": 1e999}]}', b"null", b'{"ops"']
BYTES += [b'{"events": [{"type": "a", "data": ' + b"[" * 200 + b"]" * 200 + b"}]}"]


@pytest.mark.parametrize("body", BYTES, ids=lambda body: repr(body[:40]))
async def test_bytes_that_are_no_json_store_nothing(serving: Any, body: bytes) -> None:
    """400, also for what is too deep, and for text that no encoder could write."""
    async with serving() as ask:
        answer = await ask("POST", COMMITS, body, media="application/json")
        assert (answer.status, answer.json()["code"]) == (400, "invalid")
        assert await stored(ask) == []


MEDIA = ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", "application/jsonx"]


@pytest.mark.parametrize("media", MEDIA)
async def test_another_media_type_is_415(serving: Any, media: str) -> None:
    """A body that is not said to be JSON in UTF-8 is not looked at, and a coded one neither."""
    async with serving() as ask:
        answer = await ask("POST", COMMITS, {"events": [NOTE]}, headers=[("content-type", media)])
        assert (answer.status, answer.json()["facts"]["accept"]) == (415, ["application/json"])
        coded = await append(ask, Content_Encoding="gzip")
        assert coded.status == 415
        assert await stored(ask) == []
        fine = await ask("POST", COMMITS, {"events": [NOTE]}, headers=[("content-type", 'Application/JSON; Charset="UTF-8"')])
        assert fine.status == 201


async def test_a_body_that_is_too_large_is_413(serving: Any) -> None:
    """By its declared length before it is read, and by what arrives; the connection is closed, for the rest is not read."""
    async with serving(max_body=2000) as ask:
        body = msgspec.json.encode({"events": [{"type": "a", "data": "x" * 3000}]})
        answer = await ask("POST", COMMITS, body, media="application/json")
        assert (answer.status, answer.headers["connection"], answer.json()["facts"]) == (413, "close", {"limit": 2000})
        parts = [body[start : start + 500] for start in range(0, len(body), 500)]
        answer = await ask("POST", COMMITS, pieces=parts, media="application/json")
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await stored(ask) == []


async def test_a_body_in_pieces_is_whole_and_half_a_body_is_nothing(serving: Any) -> None:
    """A client that goes away in the middle of its body has asked for nothing."""
    async with serving() as ask:
        body = msgspec.json.encode({"events": [NOTE]})
        parts = [body[:5], b"", body[5:]]
        await ask("POST", COMMITS, pieces=parts, cut=True, media="application/json")
        assert await stored(ask) == []
        assert (await ask("POST", COMMITS, pieces=parts, media="application/json")).status == 201


async def test_a_body_that_does_not_arrive_is_408(serving: Any) -> None:
    """A client that sends nothing holds nothing for long."""
    async with serving(body_timeout=0.05) as ask:
        never = asyncio.Event()
        sent: list[Any] = []

        async def receive() -> Any:
            await never.wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope, _ = ask._scope("POST", COMMITS, None, [("content-length", "9")], None, "application/json")
        await ask.app(scope, receive, send)
        assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]


HEADERS = ["idempotency-key", "content-type", "perdure-lease", "traceparent", "authorization", "host", "content-length", "origin"]


@pytest.mark.parametrize("name", HEADERS)
async def test_a_header_that_came_twice_is_refused(serving: Any, name: str) -> None:
    """Two parties would read two values: 400, nothing stored."""
    async with serving() as ask:
        answer = await ask("POST", COMMITS, {"events": [NOTE]}, headers=[("host", "localhost"), (name, "a"), (name, "b")])
        assert (answer.status, answer.json()["code"]) == (400, "invalid")
        assert await stored(ask) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x7fb", '""', "\xff"])
async def test_a_key_that_is_none_is_refused(serving: Any, key: str) -> None:
    """1 to 255 bytes of UTF-8 without control characters."""
    async with serving() as ask:
        assert (await append(ask, Idempotency_Key=key)).status == 400
        assert await stored(ask) == []


@pytest.mark.parametrize("tag", ["", "1", '"', 'x"1"', '"a" "b"', f'"{OTHER}", "{OTHER}"'])
async def test_an_if_match_that_is_no_tag_is_refused(serving: Any, tag: str) -> None:
    """400: a condition that is not understood is not left out."""
    async with serving() as ask:
        assert (await append(ask, If_Match=tag)).status == 400
        assert await stored(ask) == []


async def test_a_condition_that_a_route_does_not_know_is_refused(serving: Any) -> None:
    """A client that relies on it must not be answered as if it had held."""
    async with serving() as ask:
        await append(ask)
        for name in ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"):
            answer = await ask("DELETE", "/v1/sessions/s", headers=[(name, "*")])
            assert answer.status == 400 and name.lower() in answer.json()["detail"]
        assert len(await stored(ask)) == 1


async def test_a_bound_credential_writes_as_its_actor_only() -> None:
    """It need not say it; another name is 403. The tenant is the credential's."""

    class Bound:
        async def credential(self, head: RequestHead) -> Credential:
            return Credential("acme", actor="worker-7")

    async with perdure.open("memory:") as store:
        ask = Asker(App(Node(store, authenticator=Bound())))
        assert (await append(ask)).status == 201
        assert (await append(ask, {"events": [NOTE], "actor": "worker-7"})).status == 201
        refused = await append(ask, {"events": [NOTE], "actor": "boss"})
        assert (refused.status, refused.json()["code"]) == (403, "forbidden")
        assert [commit.actor async for commit in store.for_tenant("acme").history("s")] == ["worker-7", "worker-7"]
        assert [info async for info in store.list()] == []


async def pages(ask: Asker, target: str) -> list[list[int]]:
    """The versions of each page, following the links."""
    found = []
    next: str | None = target
    while next:
        answer = await ask("GET", next)
        assert answer.status == 200, answer.body
        page = answer.json()
        found.append([commit["version"] for commit in page["commits"]])
        next = page["next"]
        assert ("link" in answer.headers) == bool(next) and (not next or answer.headers["link"] == f'<{next}>; rel="next"')
    return found


async def test_commits_come_in_pages_both_ways(serving: Any) -> None:
    """Each page names the next; bounds, types and order go along."""
    async with serving() as ask:
        for number in range(1, 8):
            await append(ask, {"events": [{"type": "odd" if number % 2 else "even"}, {"type": "both"}]})
        assert await pages(ask, f"{COMMITS}?limit=3") == [[1, 2, 3], [4, 5, 6], [7]]
        assert await pages(ask, f"{COMMITS}?limit=3&newest_first=true") == [[7, 6, 5], [4, 3, 2], [1]]
        assert await pages(ask, f"{COMMITS}?limit=2&after=1&before=7&types=odd&types=none") == [[3, 5]]
        assert await pages(ask, f"{COMMITS}?limit=1&types=even&newest_first=1") == [[6], [4], [2]]
        assert await pages(ask, f"{COMMITS}?after=99") == [[]]
        page = (await ask("GET", f"{COMMITS}?types=odd&limit=1")).json()["commits"]
        assert page == [{**(await stored(ask))[0].to_dict(), "events": [{"type": "odd", "data": None, "ops": []}]}]


async def test_a_page_is_bounded_in_bytes(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of large commits is short, and names the next."""
    monkeypatch.setattr("perdure.service.routes.commits.PAGE_BYTES", 1000)
    async with serving() as ask:
        for _ in range(5):
            await append(ask, {"events": [{"type": "big", "data": "x" * 600}]})
        assert await pages(ask, COMMITS) == [[1, 2], [3, 4], [5]]


async def test_commits_come_as_lines(serving: Any) -> None:
    """NDJSON: a commit a line, all of them; what is not there is a problem before the first line."""
    async with serving() as ask:
        for number in range(250):
            await append(ask, {"events": [{"type": "n", "data": number}]})
        lines = [("accept", "application/x-ndjson")]
        answer = await ask("GET", COMMITS, headers=lines)
        assert answer.headers["content-type"] == "application/x-ndjson"
        found = [msgspec.json.decode(line) for line in answer.body.splitlines()]
        assert [commit["events"][0]["data"] for commit in found] == list(range(250))
        answer = await ask("GET", f"{COMMITS}?newest_first=true&limit=2", headers=lines)
        assert [msgspec.json.decode(line)["version"] for line in answer.body.splitlines()] == [250, 249]
        assert (await ask("GET", "/v1/sessions/none/commits", headers=lines)).status == 404
        assert (await ask("GET", COMMITS, headers=[("accept", "text/html")])).status == 406
        assert (await ask("GET", COMMITS, headers=[("accept", "text/html, */*;q=0.1")])).headers["content-type"] == "application/json"


QUERIES = ["limit=0", "limit=1001", "limit=x", "after=-1", "after=1.5", "before=0", "nope=1", "limit=1&limit=2", "newest_first=maybe"]
QUERIES += ["%ff=1", "types=%ff", "after=99999999999999999999", "after=" + "9" * 5000, "limit", "after=1&&before=%"]


@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_that_is_none_is_refused(serving: Any, query: str) -> None:
    """400, with the name of what is wrong: a parameter that is not known is not passed over."""
    async with serving() as ask:
        await append(ask)
        answer = await ask("GET", f"{COMMITS}?{query}")
        assert (answer.status, answer.json()["code"]) == (400, "invalid"), answer.body
