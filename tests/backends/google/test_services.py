"""Firestore and Datastore as services, on Google's emulator: logins, addresses, conditions as documented, and how each ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from google.api_core import exceptions as api

import perdure
from perdure import Event
from perdure.backends.conformance import behind
from perdure.backends.google import channel
from perdure.backends.google.entities import ABSENT, Refused, Write
from perdure.backends.registry import open_backend
from perdure.backends.spi import Appended, Snapshot
from perdure.clock import SystemClock
from perdure.errors import Invalid, TooLarge, Unauthorized, Unavailable, Unknown
from perdure.model.ids import SessionKey
from tests.servers.fixture import Servers
from tests.servers.google import DatastoreEmulator, FirestoreEmulator
from tests.servers.process import HOST, Server, free_port
from tests.support.backends.engines import Engine
from tests.support.backends.scenarios import visit

S = SessionKey("acme", "s")
SERVICES = [Engine("firestore", FirestoreEmulator), Engine("datastore", DatastoreEmulator)]
services = pytest.mark.parametrize("service", SERVICES, ids=repr)
schemes = pytest.mark.parametrize("scheme", ["firestore", "datastore"])


@services
async def test_a_commit_is_whole_or_not_at_all(servers: Servers[Server], service: Engine) -> None:
    """Of writes on conditions none is applied when one does not hold: a version that is past, an entity that is there or is gone."""

    backend: Any = await open_backend(service.url(servers(service.server)), clock=SystemClock())

    async def tried() -> None:
        entities = backend.driver.entities
        one, two = ("session", "one"), ("session", "one", "record", "1")
        first, beside = await entities.commit([Write(one, {"head": b"1"}, ABSENT), Write(two, {"record": b"x", "n": 7}, ABSENT)])
        (second,) = await entities.commit([Write(one, {"head": b"2", "tags": ["a", "b"], "name": "t"}, first)])
        for write in (Write(one, {"head": b"3"}, first), Write(one, {"head": b"3"}, ABSENT), Write(("session", "none"), {}, second)):
            with pytest.raises(Refused):
                await entities.commit([Write(("session", "other"), {"head": b"o"}), write])
        found = await entities.get([one, two, ("session", "other"), ("session", "none")])
        assert found[2:] == [None, None]
        assert found[0].fields == {"head": b"2", "tags": ["a", "b"], "name": "t"} and found[0].version == second
        assert found[1].fields == {"record": b"x", "n": 7} and found[1].version == beside
        await entities.commit([Write(one, None), Write(two, None)])
        assert await entities.get([one, two]) == [None, None]

    await backend.run(tried())
    await backend.close()


@services
async def test_large_ones_on_a_real_service(servers: Servers[Server], service: Engine) -> None:
    """A commit and a snapshot of many megabytes come back; so does a group that is larger than one request may be."""

    backend: Any = await open_backend(service.url(servers(service.server)), clock=SystemClock())
    body = os.urandom(5 << 20)
    (made,) = await backend.append([behind(S, body=body)])
    await backend.put_snapshot(S, Snapshot(1, made.head.hash, body[::-1]))
    loaded = await backend.load(S)
    assert loaded.snapshot.body == body[::-1]
    assert (await backend.read(S))[0].body == body
    sessions = [SessionKey("acme", f"s{number}") for number in range(40)]
    outcomes = await backend.append([behind(session, body=body[: 200 << 10]) for session in sessions])
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    assert [(await backend.read(session))[0].body == body[: 200 << 10] for session in sessions[::13]] == [True] * 4
    await backend.close()


@services
async def test_hundreds_are_listed_in_order(servers: Servers[Server], service: Engine) -> None:
    """Ids with slashes, dots, spaces and letters of all kinds come by their bytes, page by page, and by tag."""

    async with perdure.open(service.url(servers(service.server))) as store:
        ids = [f"{mark}{number:03}" for mark in ("a", "a.", "a/", "b ", "ä", "z/😀") for number in range(30)]
        await asyncio.gather(*[store.append(id, Event("x")) for id in ids])
        await asyncio.gather(*[store.configure(id, tags={"team": "red"}) for id in ids[::10]])
        assert [row.session async for row in store.list()] == sorted(ids, key=str.encode)
        assert [row.session async for row in store.list(prefix="a/")] == [id for id in ids if id.startswith("a/")]
        assert [row.session async for row in store.list(tags={"team": "red"})] == sorted(ids[::10], key=str.encode)


@services
async def test_the_variable_of_googles_tools_is_honoured(
    servers: Servers[Server], service: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `?emulator=` the emulator is the one that Google's own variable names; its receipts say `buffered`."""
    server = servers(service.server)
    monkeypatch.setenv(f"{service.name.upper()}_EMULATOR_HOST", f"{HOST}:{server.port('emulator')}")

    async with perdure.open(f"{service.name}://test/?{service.option('variable')}") as store:
        receipt = await store.append("s", Event("x"))
        assert receipt.durability == perdure.Durability.buffered


@schemes
async def test_bad_urls_and_missing_logins(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be meant says what it should read; without a login the command that makes one is told."""
    for bad, says in (
        (f"{scheme}:///x", "names no host"),
        (f"{scheme}://user:secret@project", "name a key file"),
        (f"{scheme}://project/a/b", "names no database"),
        (f"{scheme}://project:80", "names no database"),
        (f"{scheme}://project?colour=red", "no option 'colour'"),
    ):
        with pytest.raises(Invalid, match=says) as refused:
            await visit(bad)
        assert "secret" not in str(refused.value)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    for url in (f"{scheme}://project", f"{scheme}://project?credentials=/nowhere/other.json"):
        with pytest.raises(Unauthorized, match="gcloud auth application-default login"):
            await visit(url)


@schemes
async def test_a_dead_server_is_unavailable_within_the_connect_timeout(scheme: str) -> None:
    """Nobody listens: `Unavailable`, at open."""
    start = time.monotonic()
    with pytest.raises(Unavailable, match="cannot be reached within 1 s"):
        await visit(f"{scheme}://test/?emulator={HOST}:{free_port()}&connect_timeout=1")
    assert time.monotonic() - start < 60


def test_what_errors_mean() -> None:
    """Only what was certainly not applied is `Unavailable` for a write; what a condition stopped is `Refused`."""
    unreached = api.ServiceUnavailable("failed to connect to all addresses; last error: …")
    for error, writing, reading in (
        (api.Aborted("contention"), Refused, Unavailable),
        (api.AlreadyExists("x"), Refused, Unavailable),
        (api.FailedPrecondition("x"), Refused, Invalid),
        (api.NotFound("no database"), Refused, Invalid),
        (api.DeadlineExceeded("x"), Unknown, Unavailable),
        (api.ServiceUnavailable("Socket closed"), Unknown, Unavailable),
        (api.InternalServerError("x"), Unknown, Unavailable),
        (api.ResourceExhausted("quota"), Unavailable, Unavailable),
        (unreached, Unavailable, Unavailable),
        (api.PermissionDenied("x"), Unauthorized, Unauthorized),
        (api.Unauthenticated("x"), Unauthorized, Unauthorized),
        (api.ServiceUnavailable("Getting metadata from plugin failed with error: …"), Unauthorized, Unauthorized),
        (api.InvalidArgument("x"), TooLarge, TooLarge),
    ):
        assert type(channel.mapped(error, "there", writing=True)) is writing, error
        assert type(channel.mapped(error, "there", writing=False)) is reading, error


@services
def test_closing_leaves_nothing_and_the_interpreter_ends_in_peace(servers: Servers[Server], service: Engine) -> None:
    """A program that used the service ends with exit code 0 and says nothing."""
    program = (
        "import asyncio, sys, perdure\n"
        "async def main():\n"
        "    async with perdure.open(sys.argv[1]) as store:\n"
        "        await store.append('s', perdure.Event('x'))\n"
        "        assert (await store.read('s')).version >= 1\n"
        "asyncio.run(main())\n"
    )
    url = service.url(servers(service.server))
    for _ in range(2):
        command = [sys.executable, "-c", program, url]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")
