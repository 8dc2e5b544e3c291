"""What a refusal says: the header, parameter or member that the client sent, and never an argument or a type of Python."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

import perdure
from perdure import Event, op
from perdure.service.app import App
from perdure.service.node import Node
from perdure.service.options import ServeOptions
from tests.support.service.asking import Asker, Response

S = "/v1/sessions/s"
HASH = "0" * 64
OPS = {"ops": [{"op": "add", "path": "/n", "value": 1}]}
YEARS = 100 * 366 * 86_400
PATCH = "application/json-patch+json"
PYTHON = re.compile(
    r"(?<![-\w])(?:expect|timedelta|datetime|NoneType|None|True|False|dict|tuple|str|int|float|store\.\w+|perdure\.\w+|view\.\w+)(?![-\w])"
    r"|\b[a-z_]+=(?!=)|\w\(\)|perdure\.Event"
)
"""What only Python says. A member `expect` has the checkpoint of a consumer alone."""


class Refused(NamedTuple):
    """A request that is refused, and what the answer has to name."""

    method: str
    target: str
    body: Any
    says: str
    headers: tuple[tuple[str, str], ...] = ()
    media: str | None = None
    status: int = 400


def commit(says: str, body: Any, *headers: tuple[str, str], status: int = 400) -> Refused:
    return Refused("POST", f"{S}/commits", body, says, headers, status=status)


def operation(says: str, kind: str, value: Any, **more: Any) -> Refused:
    return commit(says, {"ops": [{"op": kind, "path": "/l", "value": value, **more}]})


def configure(says: str, status: int = 400, **body: Any) -> Refused:
    return Refused("POST", f"{S}/configure", body, says, status=status)


REFUSED = [
    commit("base: There is no version 9", {**OPS, "base": 9}),
    commit("There is no version 9", {**OPS, "base": f"9-{HASH}"}, status=409),
    commit("base takes a version and its hash", {**OPS, "base": "x"}),
    commit("If-Match does not hold. There is no version 9", OPS, ("if-match", f'"9-{HASH}"'), status=412),
    commit("If-Match does not hold. Version 1", OPS, ("if-match", f'"1-{HASH}"'), status=412),
    commit("If-None-Match does not hold. Session 's' is at version 1", OPS, ("if-none-match", "*"), status=412),
    commit("If-None-Match takes *", OPS, ("if-none-match", '"x"')),
    commit("If-Match takes one entity tag", OPS, ("if-match", f'"1-{HASH}", "2-{HASH}"')),
    commit("If-Match takes entity tags", OPS, ("if-match", "x")),
    commit("one of If-Match (strict), If-None-Match: *", {**OPS, "base": 1}, ("if-match", "*")),
    commit("Perdure-Lease takes a version and its hash", OPS, ("perdure-lease", "x")),
    commit("neither `events` nor `ops`", {}),
    commit("neither `events` nor `ops`", {"actor": "a"}),
    commit("An actor", {**OPS, "actor": ""}),
    commit("An idempotency key", OPS, ("idempotency-key", "x" * 300)),
    commit("event's type", {"events": [{"type": ""}]}),
    commit("at most 10,000 events", {"events": [{"type": "x"}] * 10_001}),
    commit("`$.on_conflict`", {**OPS, "on_conflict": "x"}),
    commit("`$.durability`", {**OPS, "durability": "x"}),
    operation("append takes a list of items, not a string", "append", "x"),
    operation("union takes a list of items, not null", "union", None),
    operation("add takes a number, not a string", "add", "x"),
    operation("add takes a number, not a boolean", "add", True),
    operation("merge takes an object, not a list", "merge", []),
    operation("splice takes [index, out, items]", "splice", {"a": 1}),
    operation("splice takes an index and a count", "splice", [-1, 0, []]),
    operation("remove takes a path and no value", "remove", 1),
    operation("`taken` is for", "add", 1, taken=True),
    commit("A path", {"ops": [{"op": "set", "path": "x", "value": 1}]}),
    Refused("PATCH", f"{S}?base=9", [], "base: There is no version 9", media=PATCH),
    Refused("PATCH", f"{S}?base=x", [], "base takes", media=PATCH),
    Refused("PATCH", S, [], "If-Match does not hold. There is no version 9", (("if-match", f'"9-{HASH}"'),), PATCH, 412),
    Refused("PATCH", S, [{"op": "add", "path": "/x"}], "needs `value`", media=PATCH),
    Refused("GET", f"{S}?at_least=x", None, "at_least: This is no token"),
    Refused("GET", f"{S}?at_least=1-x", None, "at_least takes a version"),
    Refused("GET", f"{S}?at=x", None, "at takes a version"),
    Refused("GET", f"{S}?max_staleness=1", None, "max_staleness"),
    Refused("GET", f"{S}?consistency=eventual&max_staleness=1e18", None, "max_staleness"),
    Refused("GET", S, None, "If-Match is for writes", (("if-match", "*"),)),
    Refused("GET", f"{S}/watch?after=x&live=long-poll&wait=0", None, "after takes a version"),
    Refused("GET", f"{S}/watch?live=long-poll&wait=0", None, "Last-Event-ID takes a version", (("last-event-id", "x"),)),
    Refused("GET", f"{S}/watch?live=long-poll&wait=0", None, "Last-Event-ID takes a version", (("last-event-id", "1-x"),)),
    Refused("GET", "/v1/changes?after=x&live=long-poll&wait=0", None, "after: 'x' is no cursor"),
    Refused("GET", "/v1/changes?live=long-poll&wait=0", None, "Last-Event-ID: 'x' is no cursor", (("last-event-id", "x"),)),
    Refused("GET", "/v1/changes?tag=x&live=long-poll&wait=0", None, "tag takes NAME=VALUE"),
    Refused("GET", "/v1/sessions?tag=x", None, "tag takes NAME=VALUE"),
    Refused("GET", "/v1/sessions?updated_after=x", None, "updated_after takes a time"),
    Refused("GET", "/v1/sessions?due=x", None, "due takes a time"),
    Refused("GET", "/v1/sessions?due=2030-01-01T00:00:00Z&cursor=x", None, "cursor"),
    Refused("GET", "/v1/sessions?prefix=%00", None, "prefix"),
    configure("expire_after takes from 1 second to 100 years of 365 days, not 0.5 seconds", expire_after=0.5),
    configure("wake_every takes from 1 second", wake_every=YEARS),
    configure("keep takes from 1 second to 100 years", keep={"seconds": 0.5}),
    configure("keep takes 1 to", keep={"commits": 10**18}),
    configure("keep takes one of `seconds` and `commits`", keep={}),
    configure("wake_at takes a time", wake_at="x"),
    configure("wake_at takes a time from 1970 to 2262, not 1950-01-01", wake_at="1950-01-01T00:00:00Z"),
    configure("grace says", grace=60),
    configure("wake says", wake="claim"),
    configure("drop says", drop=True),
    configure("pass tags, wake_at, expire_after"),
    configure("tags", tags={str(number): "x" for number in range(1_000)}),
    configure("archive_after moves sessions to an archive", archive_after=60, status=501),
    configure("keep without drop", keep={"commits": 5}, status=501),
    Refused("POST", "/v1/configure", {"prefix": "p"}, "pass expire_after, archive_after, wake_every or keep"),
    Refused("POST", "/v1/configure", {"prefix": "p" * 300, "expire_after": 60}, "prefix"),
    Refused("POST", f"{S}/compact", {"keep": {"seconds": 1e11}, "drop": True}, "keep must be from zero to"),
    Refused("POST", f"{S}/compact", {"keep": {"commits": 1 << 62}, "drop": True}, "keep must be 0 or more"),
    Refused("POST", f"{S}/compact", {"keep": {"seconds": 1e300}, "drop": True}, "keep takes at most"),
    Refused("POST", f"{S}/fork", {"id": ""}, "A session id"),
    Refused("POST", f"{S}/fork", {"id": "s"}, "choose another id", status=409),
    Refused("POST", f"{S}/fork", {"at": 9}, "has no version 9", status=404),
    Refused("POST", f"{S}/merge", {"into": "s"}, "Only a fork can be merged"),
    Refused("POST", f"{S}/purge", None, "is not deleted"),
    Refused("POST", f"{S}/lease", {"owner": ""}, "An owner"),
    Refused("POST", f"{S}/lease", {"owner": "w", "ttl": 0.5}, "ttl must be"),
    Refused("PUT", f"{S}/lease", None, "Name the lease with Perdure-Lease"),
    Refused("POST", "/v1/claims", {"owner": "w", "ttl": 0.5}, "ttl must be"),
    Refused("POST", "/v1/claims", {"owner": "w", "tags": {"": "x"}}, "tag"),
    Refused("POST", "/v1/sweep", {"cursor": "x"}, "'x' is no cursor"),
    Refused("POST", "/v1/sessions/gone/commits", OPS, "`recreate`", status=410),
]  # fmt: skip


async def answer(asked: Refused) -> Response:
    """What a node says to it that has a session of one version, and one that was deleted."""
    async with perdure.open("memory:") as store:
        await store.append("s", Event("start", None, (op.set("", {"n": 1, "l": [1]}),)))
        await store.append("gone", Event("start"))
        await store.delete("gone")
        ask = Asker(App(Node(store, ServeOptions())))
        return await ask(asked.method, asked.target, asked.body, headers=list(asked.headers), media=asked.media)


@pytest.mark.parametrize("asked", REFUSED, ids=lambda asked: f"{asked.method} {asked.says}")
async def test_a_refusal_names_what_was_sent(asked: Refused) -> None:
    """The header, parameter or member stands in what is said, and no word of Python's; a limit is said as HTTP has it."""
    found = await answer(asked)
    assert found.status == asked.status, found
    said = found.json()
    text = " ".join([said["detail"], said.get("advice", "")])
    assert asked.says in text
    if asked.status < 500:  # How a node gets an archive is for who runs it: both ways stand there.
        assert not PYTHON.findall(text), text


async def test_the_checkpoint_of_a_consumer_names_what_was_sent() -> None:
    """Its member `expect` is the version of the checkpoint that the run knows."""
    async with perdure.open("memory:") as store:
        ask = Asker(App(Node(store, ServeOptions())))
        place = "/v1/consumers/c"
        registered = (await ask("POST", place, {"code": "x"})).json()
        lease = (await ask("POST", f"{place}/lease", {"owner": "w"})).json()["lease"]
        body = {"run": "r", "saves": 1, "cursor": None, "handled": 0, "position": None, "expect": 99, "parked": {}}
        answer = await ask("POST", f"{place}/checkpoint", body, headers=[("perdure-lease", lease), ("idempotency-key", "r/1")])
        assert registered and answer.status == 400
        assert answer.json()["detail"].startswith("expect: There is no version 99"), answer
