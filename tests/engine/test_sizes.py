"""Sizes of sessions: what `sizes` says, and states that have grown large."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import Event, op
from perdure.engine.read.sizes import StateSizes
from perdure.errors import Deleted, Invalid, NotFound
from tests.support.engine.bodies import large, opened, text


async def test_where_the_bytes_are(url: str, tmp_path: Path) -> None:
    """The state is its JSON, the parts are its heaviest, the commits are all there are, the bodies are those of the place."""
    async with opened(url, tmp_path, snapshot_bytes_min=5_000) as store:
        for number in range(6):
            await store.append("trip", Event("x", None, (op.append("/messages", [text(800, number)]),)))
        await store.append("trip", large(0), large(1))
        await store.append("trip", large(2, ops=False))
        found = await store.sizes("trip")
        state = (await store.read("trip")).state
        assert found.version == found.log_commits + found.old_commits == 8
        assert found.state_bytes == len(json.dumps(state, separators=(",", ":")))
        assert found.blob_commits == 2
        assert found.blob_bytes == sum(file.stat().st_size for file in (tmp_path / "place/blobs").rglob("*") if file.is_file())
        assert [part.path for part in found.parts[:2]] == ["", "/messages"]
        assert found.parts[0].bytes == found.state_bytes
        assert (found.snapshot_version is None) == (found.snapshot_bytes == 0)
        assert found.snapshot_version is not None
        assert len((await store.sizes("trip", parts=1)).parts) == 1
        for bad in (-1, "x", None, True):
            with pytest.raises(Invalid):
                await store.sizes("trip", parts=bad)
        with pytest.raises(NotFound):
            await store.sizes("nobody")
        await store.delete("trip")
        with pytest.raises(Deleted):
            await store.sizes("trip")
        assert (await store.sizes("trip", include_deleted=True)).version == 9


def test_the_blocking_api(url: str) -> None:
    """The blocking API answers the same."""
    with perdure.sync.open(url) as store:
        store.append("trip", Event("x", None, (op.set("/a", "b"),)))
        found = store.sizes("trip")
        assert (found.version, found.state_bytes, found.blob_bytes) == (1, len('{"a":"b"}'), 0)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "warn_bytes" in record.getMessage()]


async def test_a_large_state_is_logged_once(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A state that passes `warn_bytes` is logged once per session with its heaviest path, however well it compresses; others are not, nor
    one whose log is long and whose state is small, nor a transcript without operations."""
    caplog.set_level(logging.WARNING)
    async with perdure.open(url, warn_bytes=50_000) as store:
        for _ in range(60):
            await store.append("overwritten", Event("x", None, (op.set("/a", "x" * 2_000),)))
            await store.append("transcript", Event("said", "x" * 2_000))
        for number in range(60):
            async with store.edit("overwritten") as draft:
                draft.state["b"] = text(2_000, number)
        assert (await store.read("transcript")).state == {}
        assert not logged(caplog)
        for _ in range(3):
            async with store.edit("big") as draft:
                draft.state.setdefault("deep", {}).setdefault("log/s", []).append("x" * 24_000)
        assert len(logged(caplog)) == 1
        assert "'big'" in logged(caplog)[0]
        assert "/deep/log~1s" in logged(caplog)[0]
        for number in range(5):
            async with store.edit("big") as draft:
                draft.state["more"] = "y" * 60_000 * number
        await store.for_tenant("acme").append("big", Event("x", None, (op.set("/only", "z" * 60_000),)))
        await store.for_tenant("acme").read("big")
        assert len(logged(caplog)) == 2
        assert "'acme'" in logged(caplog)[1]


async def test_a_reader_says_it_too(file_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A store object that only reads a large state logs it as well, with a snapshot and without."""
    async with perdure.open(file_url) as store:
        await store.append("log", Event("x", None, (op.set("/a", "x" * 60_000),)))
    async with perdure.open(file_url, snapshot_bytes_min=0) as store:
        await store.append("kept", Event("x", None, (op.set("/a", "x" * 60_000),)))
        await store.read("kept")
    caplog.set_level(logging.WARNING)
    async with perdure.open(file_url, warn_bytes=50_000) as store:
        for session in ("log", "kept", "log", "kept"):
            await store.read(session)
    assert len(logged(caplog)) == 2


async def test_it_is_measured_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state below the limit whose log is long is measured once in a quarter of the limit that is written, not at each commit."""
    measured: list[int] = []
    measure = StateSizes._measure

    def counted(sizes: StateSizes, session: Any, cached: Any) -> None:
        measured.append(cached.state_bytes)
        measure(sizes, session, cached)

    monkeypatch.setattr(StateSizes, "_measure", counted)
    async with perdure.open("memory:", warn_bytes=100_000, snapshot_bytes_min=1 << 30) as store:
        for number in range(400):
            async with store.edit("trip") as draft:
                draft.state["text"] = text(1_000, number)
        written = 400 * 1_000
        assert 1 <= len(measured) <= 1 + written / 25_000


@pytest.mark.parametrize("bad", [{"warn_bytes": 0}, {"warn_bytes": -1}, {"warn_bytes": "1 MiB"}, {"blob_bytes": 1}])
async def test_bad_settings(bad: dict[str, Any]) -> None:
    """A limit that makes no sense is `Invalid`."""
    with pytest.raises(Invalid, match=next(iter(bad))):
        await perdure.open("memory:", **bad)
