"""PATCH over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import perdure
from perdure import Event, op
from perdure.service.app import App
from perdure.service.node import Node
from tests.support.service.asking import Asker, Response

S = "/v1/sessions/s"
JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"


async def patch(ask: Asker, document: Any, media: str = JSON_PATCH, query: str = "", **more: str) -> Response:
    headers = [(name.replace("_", "-"), value) for name, value in more.items()]
    return await ask("PATCH", S + query, msgspec.json.encode(document), media=media, headers=headers)


async def state(ask: Asker) -> Any:
    return (await ask.app.node.store.read("s")).state


async def start(ask: Asker, value: Any) -> str:
    """A session with this state; its ETag."""
    await ask.app.node.store.append("s", Event("start", None, (op.set("", value),)))
    return (await ask("GET", S)).headers["etag"]


async def test_both_kinds_are_one_commit(serving: Any) -> None:
    """200 with the receipt and the ETag; the commit has the operations."""
    async with serving() as ask:
        await start(ask, {"a": {"b": 1, "c": 2}, "l": [1]})
        steps = [{"op": "add", "path": "/l/-", "value": 2}, {"op": "replace", "path": "/a/b", "value": 5}]
        answer = await patch(ask, steps, query="?actor=me")
        assert (answer.status, answer.json()["version"]) == (200, 2)
        assert answer.headers["etag"] == f'"2-{answer.json()["hash"]}"'
        assert (await patch(ask, {"a": {"c": None, "d": {}}, "l": [9]}, MERGE)).status == 200
        assert await state(ask) == {"a": {"b": 5, "d": {}}, "l": [9]}
        commits = [commit async for commit in ask.app.node.store.history("s", after=1)]
        assert [commit.actor for commit in commits] == ["me", None]
        assert (await patch(ask, [1, 2], MERGE)).status == 200
        assert await state(ask) == [1, 2]


async def test_a_patch_that_changes_nothing_writes_nothing(serving: Any) -> None:
    """204 with the ETag; with a key it is a commit without operations, so that a retry on a newer state changes nothing either."""
    async with serving() as ask:
        tag = await start(ask, {"a": 1})
        same = [{"op": "replace", "path": "/a", "value": 1}]
        for document, media in (([], JSON_PATCH), (same, JSON_PATCH), ({"a": 1, "b": None}, MERGE)):
            answer = await patch(ask, document, media)
            assert (answer.status, answer.body, answer.headers["etag"]) == (204, b"", tag)
        keyed = await patch(ask, {"a": 1}, MERGE, Idempotency_Key="k")
        assert keyed.status == 200
        await patch(ask, {"a": 2}, MERGE)
        again = await patch(ask, {"a": 1}, MERGE, Idempotency_Key="k")
        assert again.json() == {**keyed.json(), "duplicate": True}
        assert await state(ask) == {"a": 2}


async def test_a_retry_on_a_newer_state_finds_its_receipt(serving: Any) -> None:
    """Though the patch would not fit any more, or do something else. Another patch, or media type, with the key is 422."""
    async with serving() as ask:
        await start(ask, {"a": 1})
        document = [{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 2}]
        first = await patch(ask, document, Idempotency_Key="k")
        again = await patch(ask, [dict(reversed(step.items())) for step in document], Idempotency_Key="k")
        assert (again.status, again.json()) == (200, {**first.json(), "duplicate": True})
        assert (await patch(ask, document[1:], Idempotency_Key="k")).status == 422
        await patch(ask, [], Idempotency_Key="empty")
        assert (await patch(ask, [], MERGE, Idempotency_Key="empty")).status == 422
        assert (await patch(ask, document)).status == 409


async def test_indices_need_a_version(serving: Any) -> None:
    """428 without one; `If-Match` is strict; `base` merges over what followed."""
    async with serving() as ask:
        tag = await start(ask, {"l": ["a", "b"], "n": 0})
        first = [{"op": "replace", "path": "/l/0", "value": "A"}]
        answer = await patch(ask, first)
        assert (answer.status, answer.json()["code"]) == (428, "precondition_required")
        await ask.app.node.store.append("s", Event("x", None, (op.splice("/l", 0, 0, ["new"]), op.add("/n", 1))))
        assert (await patch(ask, first, If_Match=tag)).status == 412
        assert (await patch(ask, first, query=f"?base={tag.strip(chr(34))}")).status == 200
        assert await state(ask) == {"l": ["new", "A", "b"], "n": 1}
        tested = [{"op": "test", "path": "/n", "value": 0}, {"op": "add", "path": "/m", "value": 1}]
        assert (await patch(ask, tested, query="?base=1")).status == 409
        newest = (await ask("GET", S)).headers["etag"]
        assert (await patch(ask, [{"op": "move", "from": "/l/0", "path": "/first"}], If_Match=newest)).status == 200
        assert await state(ask) == {"l": ["A", "b"], "n": 1, "first": "new"}
        assert (await patch(ask, first, If_Match=tag, query="?base=1")).status == 400


async def test_patches_that_race_are_all_applied(serving: Any) -> None:
    """Each is evaluated on the very state that its commit follows: no test passes twice, nothing is lost."""
    async with serving() as ask:
        await start(ask, {"n": 0, "l": []})
        answers = await asyncio.gather(*[patch(ask, [{"op": "add", "path": "/l/-", "value": n}]) for n in range(12)])
        assert {answer.status for answer in answers} == {200}
        assert sorted((await state(ask))["l"]) == list(range(12))
        claim = [{"op": "test", "path": "/n", "value": 0}, {"op": "replace", "path": "/n", "value": 1}]
        answers = await asyncio.gather(*[patch(ask, claim) for _ in range(8)])
        assert sorted(answer.status for answer in answers) == [200] + [409] * 7


async def test_an_old_state_in_memory_refuses_nothing(tmp_path: Any) -> None:
    """A test that fails on what the node remembers is decided again on the newest state."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with perdure.open(url) as one, perdure.open(url) as two:
        ask = Asker(App(Node(one)))
        await start(ask, {"a": 1})
        await two.append("s", Event("x", None, (op.set("/b", 1),)))
        assert (await patch(ask, [{"op": "replace", "path": "/b", "value": 2}])).status == 200


async def test_copies_are_bounded(serving: Any) -> None:
    """413 for what asks for more than a body may have, at once and without it being made."""
    async with serving(max_body=100_000) as ask:
        await start(ask, {"a": {"x": "y" * 100}})
        doubling = [{"op": "copy", "from": "/a", "path": f"/a/{number}"} for number in range(30)]
        answer = await patch(ask, doubling, If_Match="*")
        assert answer.status == 428
        answer = await patch(ask, doubling, query="?base=1")
        assert (answer.status, answer.json()["code"]) == (413, "too_large")
        assert await state(ask) == {"a": {"x": "y" * 100}}


REFUSED = [({}, JSON_PATCH, 400), ([{"op": "add", "path": "/a"}], JSON_PATCH, 400), ([{"op": "remove", "path": "/no"}], JSON_PATCH, 409)]
REFUSED += [([{"op": "remove", "path": ""}], JSON_PATCH, 409), ([], "application/json", 415), ([], "text/plain", 415)]
REFUSED += [([{"op": "add", "path": "/a/b", "value": 1}], JSON_PATCH, 409), ([{"op": "test", "path": "/a", "value": 2}], JSON_PATCH, 409)]


@pytest.mark.parametrize(("document", "media", "status"), REFUSED)
async def test_a_patch_that_is_none_or_does_not_fit_is_refused(serving: Any, document: Any, media: str, status: int) -> None:
    """400 for what is no patch, 409 for what does not fit the state, 415 for another media type; nothing is stored."""
    async with serving() as ask:
        await start(ask, {"a": 1})
        answer = await patch(ask, document, media)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert (await ask.app.node.store.read("s")).version == 1


async def test_a_session_that_is_not_there_is_not_patched(serving: Any) -> None:
    """404; a deleted one is 410."""
    async with serving() as ask:
        assert (await patch(ask, {"a": 1}, MERGE)).status == 404
        assert (await patch(ask, {"a": 1}, MERGE, If_Match="*")).status == 412
        await start(ask, {})
        await ask.app.node.store.delete("s")
        assert (await patch(ask, {"a": 1}, MERGE)).status == 410
