"""S3, Google Cloud Storage and Azure: addresses, logins, and how each ends; SeaweedFS, a fake of Google's and Azurite stand for them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event
from perdure.backends.objects.cloud import mapped
from perdure.backends.spi import Durability
from perdure.errors import Error, Invalid, Unauthorized, Unavailable, Unknown
from tests.servers.azurite import ACCOUNT, KEY, Azurite
from tests.servers.fake_gcs import FakeGCS
from tests.servers.fixture import Servers
from tests.servers.process import HOST, Server, free_port
from tests.servers.seaweedfs import SeaweedFS
from tests.support.backends.engines import Engine, diagnosis
from tests.support.backends.scenarios import visit

CLOUDS = [Engine("s3", SeaweedFS), Engine("gs", FakeGCS), Engine("az", Azurite)]
clouds = pytest.mark.parametrize("cloud", CLOUDS, ids=repr)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("s3:///prefix", "names no host"),
        ("s3://bucket?addressing=sideways", "one of path, virtual"),
        ("s3://bucket?credentials=/key.json", "no option 'credentials'"),
        ("gs://user:secret@bucket", "name a key file with [?]credentials="),
        ("gs://bucket?login=maybe", "one of yes, no"),
        ("gs://bucket?credentials=/nowhere/key.json", "check its options"),
        ("az://account:no-base64!@container", "check its options"),
        ("az://account@container?ca=/nowhere.pem", "check its options"),
    ],
)
async def test_bad_urls(bad: str, says: str) -> None:
    """A URL that cannot be meant says what it should read, and no secret."""
    with pytest.raises(Invalid, match=says) as refused:
        await visit(bad)
    assert "secret" not in str(refused.value)
    assert "no-base64" not in str(refused.value)


@clouds
async def test_objects_are_changed_on_a_condition(servers: Servers[Server], cloud: Engine) -> None:
    """Two who change one object at once both change it: neither change is lost, by the service's own condition."""

    async with perdure.open(cloud.url(servers(cloud.server))) as store:
        backend: Any = store._core.backend  # type: ignore[attr-defined]
        bucket = backend.driver._bucket

        async def changed() -> None:
            await bucket.create("counter", b"0")
            await asyncio.gather(*[bucket.change("counter", lambda old: b"%d" % (int(old) + 1)) for _ in range(6)])
            assert await bucket.get("counter") == b"6"
            assert not await bucket.create("counter", b"0")
            assert await bucket.get("counter") == b"6"

        await backend.run(changed())


@clouds
async def test_names_are_listed_from_a_name_on(servers: Servers[Server], cloud: Engine) -> None:
    """What sorts behind a name, whatever the service makes of the wish; other folders and what lies deeper are left out of it."""

    async with perdure.open(cloud.url(servers(cloud.server))) as store:
        backend: Any = store._core.backend  # type: ignore[attr-defined]
        bucket = backend.driver._bucket

        async def listed() -> None:
            for name in ("a/1", "a/2", "a/3", "ab/4", "b/5"):
                await bucket.put(name, b"x")
            assert await bucket.list("a") == ["1", "2", "3"]
            assert await bucket.list("a", "2") == ["3"]
            assert await bucket.list("a", "3") == []
            await bucket.delete("a/2")
            await bucket.delete("a/2")
            assert await bucket.list("a") == ["1", "3"]

        await backend.run(listed())


@clouds
async def test_another_endpoint_promises_no_more_than_it_shows(servers: Servers[Server], cloud: Engine) -> None:
    """Receipts of a service that is not the cloud's own say `buffered`, and `doctor` says why."""
    url = cloud.url(servers(cloud.server))
    async with perdure.open(url) as store:
        receipt = await store.append("s", Event("x"))
        assert receipt.durability == Durability.buffered
    told = diagnosis(url)
    assert told["durability"] == "buffered", told


async def test_logins(servers: Servers[Server]) -> None:
    """A wrong secret is `Unauthorized` with S3 and Azure; no message and no repr shows a secret."""
    s3, az = CLOUDS[0].url(servers(SeaweedFS)), CLOUDS[2].url(servers(Azurite))
    other = "aHVudGVyMg%3D%3D"
    wrong = [s3.replace("test:secret@", "test:hunter2@"), f"az://{ACCOUNT}:{other}@{az.rpartition('@')[2]}"]
    for url in wrong:
        with pytest.raises(Unauthorized) as refused:
            await visit(url)
        assert "hunter2" not in str(refused.value)
        assert other not in str(refused.value)

    for url, secret in ((s3, "secret"), (az, KEY)):
        async with perdure.open(url) as store:
            assert secret not in repr(store)


async def test_a_key_file_of_google(servers: Servers[FakeGCS], tmp_path: Path) -> None:
    """`credentials` names a key file; what it logs in with is asked of Google, and one that cannot log in is told as that."""
    key = tmp_path / "key.json"
    about = {"type": "authorized_user", "client_id": "id", "client_secret": "hunter2", "refresh_token": "token"}
    key.write_text(json.dumps(about))
    url = Engine("gs", FakeGCS).url(servers(FakeGCS)).replace("login=no", f"credentials={key}&timeout=2")
    with pytest.raises((Unavailable, Unauthorized)) as refused:
        await visit(url)
    assert "hunter2" not in str(refused.value)


def test_no_token_is_no_lost_answer() -> None:
    """Where no token is to be had nothing was sent: a write then is `Unavailable`, not `Unknown`."""
    error = RuntimeError("Generic GCS error: Error performing token request: …")
    found: Error = mapped(error, "gs://bucket/", writing=True)
    assert type(found) is Unavailable
    assert type(mapped(RuntimeError("connection reset"), "gs://bucket/", writing=True)) is Unknown


@pytest.mark.parametrize("login", ["s3://a:b@bucket/?", "gs://bucket/?login=no&", "az://a:Yg%3D%3D@bucket/?"])
async def test_a_dead_server_is_unavailable_at_once(login: str) -> None:
    """Nobody listens: `Unavailable` within the connect time-out, at open."""
    start = time.monotonic()
    with pytest.raises(Unavailable):
        await visit(f"{login}endpoint=http://{HOST}:{free_port()}/x&connect_timeout=2")
    assert time.monotonic() - start < 60


@clouds
def test_closing_leaves_no_thread_and_the_interpreter_ends_in_peace(servers: Servers[Server], cloud: Engine) -> None:
    """A program that used a cloud ends with exit code 0 and says nothing, every time."""
    program = (
        "import asyncio, sys, threading, perdure\n"
        "async def main():\n"
        "    async with perdure.open(sys.argv[1]) as store:\n"
        "        await store.append('s', perdure.Event('x'))\n"
        "asyncio.run(main())\n"
        "assert [t.name for t in threading.enumerate()] == ['MainThread']\n"
    )
    url = cloud.url(servers(cloud.server))
    for _ in range(3):
        ended = subprocess.run(
            [sys.executable, "-c", program, url], check=False, capture_output=True, text=True, timeout=60, env=os.environ
        )
        assert (ended.returncode, ended.stderr) == (0, "")
