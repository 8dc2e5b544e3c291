"""A program that used a cloud ends in peace, however it ends, even where threads of the client library are slow to leave Python."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest

from tests.servers.azurite import Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.fixture import Servers
from tests.servers.process import Server
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine

CLOUDS = [Engine("s3", SeaweedFS), Engine("gs", FakeGCS), Engine("az", Azurite)]
PROGRAM = """
import asyncio, atexit, sys, threading, time, types
import perdure.sync
from perdure import Event

answer = asyncio.SelectorEventLoop.call_soon_threadsafe


def answer_slowly(*arguments, **options):
    # A foreign thread has answered a request, and does not get on.
    handle = answer(*arguments, **options)
    if isinstance(threading.current_thread(), threading._DummyThread):
        time.sleep(0.2)
    return handle


class Dawdler:
    # The interpreter takes its time to end.
    def __del__(self, sleep=time.sleep):
        sleep(0.5)


asyncio.SelectorEventLoop.call_soon_threadsafe = answer_slowly
sys.modules["dawdler"] = types.ModuleType("dawdler")
sys.modules["dawdler"].it = Dawdler()


async def closed():
    async with perdure.open(sys.argv[2]) as store:
        await store.append("s", Event("x"))


async def left_open():
    store = await perdure.open(sys.argv[2]).__aenter__()
    await store.append("s", Event("x"))


async def cut_short():
    store = await perdure.open(sys.argv[2]).__aenter__()
    await store.append("s", Event("x"))
    tasks = [asyncio.create_task(store.append(f"s{n}", Event("x"))) for n in range(20)]
    await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
    for task in tasks:
        task.cancel()


async def at_exit():
    store = perdure.sync.open(sys.argv[2])

    def end():
        store.append("s", Event("x"))
        store.close()

    atexit.register(end)


async def place():
    store = await perdure.open("memory:", blobs=sys.argv[2]).__aenter__()
    await store.append("s", Event("x", "y" * 100_000))


asyncio.run(globals()[sys.argv[1]]())
"""


@pytest.mark.parametrize(
    ("cloud", "end"),
    [(cloud, end) for cloud in CLOUDS for end in ("closed", "left_open")] + [(CLOUDS[0], end) for end in ("cut_short", "at_exit", "place")],
    ids=str,
)
def test_no_thread_of_the_client_is_in_python_when_the_interpreter_ends(servers: Servers[Server], cloud: Engine, end: str) -> None:
    """Such a thread would abort the process. Closed, also by `atexit`, left open or cut short: the exit code is 0, and nothing is said."""
    server = servers(cloud.server)
    url = server.url.replace("/?", f"/{uuid4().hex}?") if end == "place" else cloud.url(server)
    ended = subprocess.run([sys.executable, "-c", PROGRAM, end, url], check=False, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
