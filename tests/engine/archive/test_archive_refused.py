"""The archive where something is wrong or forbidden: damage, no place, bad calls, a held lease, a defect."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import Event, Store
from perdure.model.ids import SessionKey
from tests.support.engine.archived import S, archive, history, segments, turns


async def test_a_damaged_segment_is_named_and_nothing_else_breaks(url: str, tmp_path: Path) -> None:
    """A segment that is missing, cut off or changed is `Corrupt` naming it; once it is back, everything reads."""
    async with perdure.open(url, archive=archive(tmp_path), cache_bytes=0) as store:
        await turns(store, 20)
        await store.archive(S)
        (file,) = segments(tmp_path)
        good = file.read_bytes()
        file.chmod(0o644)
        for bad in (None, good[:-1], good[: len(good) // 2], b"", good[:100] + b"x" + good[101:], good[:-50] + b"x" + good[-49:]):
            file.unlink() if bad is None else file.write_bytes(bad)
            async with perdure.open(url, archive=archive(tmp_path)) if url != "memory:" else Same(store) as reader:
                if url == "memory:":
                    _forget(reader)
                with pytest.raises(perdure.Corrupt, match=file.name):
                    await reader.verify(S)
                with pytest.raises(perdure.Corrupt) as found:
                    assert await reader.read(S) == await history(reader)
                assert file.name in found.value.segment
                assert [info.status async for info in reader.list()] == [perdure.Status.archived]
        file.write_bytes(good)
        _forget(store)
        assert (await store.read(S)).state == {"turns": list(range(20))}
        await store.verify(S)


def _forget(store: Store) -> None:
    store._core.segments._indexes = type(store._core.segments._indexes)(10)
    store._core.segments._frames = type(store._core.segments._frames)(10)


class Same:
    """A store that stays open."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def __aenter__(self) -> Store:
        return self.store

    async def __aexit__(self, *error: object) -> None: ...


async def test_without_an_archive(file_url: str, tmp_path: Path) -> None:
    """A store that was opened without `archive` says so, naming the option, and changes nothing; what needs no archive works."""
    async with perdure.open(file_url) as store:
        await turns(store, 5)
        await turns(store, 5, "other")
        for call in (store.archive(S), store.compact(S, keep=1)):
            with pytest.raises(perdure.Unsupported, match="archive="):
                await call
        assert (await store.read(S)).version == 5
        assert await store.restore(S) is False
        assert (await store.compact("other", keep=2, drop=True)).commits == 3
    async with perdure.open(file_url, archive=archive(tmp_path)) as store:
        await store.archive(S)
    async with perdure.open(file_url) as store:
        for call in (store.read(S), history(store), store.append(S, Event("x")), store.verify(S), store.restore(S), store.fork(S)):
            with pytest.raises(perdure.Unsupported, match="archive="):
                await call
        assert [info.status async for info in store.list(prefix=S)] == [perdure.Status.archived]
        await store.delete(S)
        with pytest.raises(perdure.Unsupported, match="archive="):
            await store.purge(S)
    async with perdure.open(file_url, archive=archive(tmp_path)) as store:
        await store.purge(S)
        assert segments(tmp_path) == []


async def test_places_are_proven_when_a_store_is_opened(file_url: str, tmp_path: Path) -> None:
    """A place that is none, cannot be written, or has another store's archive is refused by `open`; reading alone makes nothing."""
    (tmp_path / "file").write_text("x")
    for bad in ("nowhere", "http://x/y", "file:///", f"file://{tmp_path}/file/below", 5):
        with pytest.raises(perdure.Error):
            await perdure.open(file_url, archive=bad)  # type: ignore[arg-type]
    async with perdure.open(file_url, archive=archive(tmp_path)) as store:
        await turns(store, 3)
        await store.archive(S)
    with pytest.raises(perdure.Invalid, match="another store"):
        await perdure.open(f"sqlite:///{tmp_path}/second.db", archive=archive(tmp_path))
    with pytest.raises(perdure.NotFound):
        await perdure.open(file_url, archive=f"file://{tmp_path}/missing", create=False)
    assert not (tmp_path / "missing").exists()
    before = sorted((tmp_path / "archive").rglob("*"))
    async with perdure.open(file_url, archive=archive(tmp_path), create=False) as store:
        assert (await store.read(S)).state == {"turns": [0, 1, 2]}
    assert sorted((tmp_path / "archive").rglob("*")) == before


async def test_bad_calls(url: str, tmp_path: Path) -> None:
    """What cannot be archived or kept is a clear error, and nothing is written."""
    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 3)
        for keep in (-1, -timedelta(1), timedelta(days=40_000), 1.5, "3", None, True, 1 << 63):
            with pytest.raises(perdure.Invalid, match="keep"):
                await store.compact(S, keep=keep)  # type: ignore[arg-type]
        for call in (store.archive("none"), store.restore("none"), store.compact("none", keep=1)):
            with pytest.raises(perdure.NotFound):
                await call
        with pytest.raises(perdure.Invalid):
            await store.archive(S, actor="")
        assert (await store.read(S)).version == 3
        assert segments(tmp_path) == []


async def test_a_held_lease_refuses(url: str, tmp_path: Path) -> None:
    """A session whose lease is held is not archived."""
    from perdure.engine.write.controls import ControlChange, ControlCommit
    from perdure.model.commit import Kind
    from perdure.model.epoch import granted

    async with perdure.open(url, archive=archive(tmp_path)) as store:
        await turns(store, 3)
        core, key = store._core, SessionKey("default", S)

        def take(basis: Any) -> ControlChange:
            commit = ControlCommit(kind=Kind.lease, event=Event("taken"), epoch=lambda epoch: granted(epoch, 1, exclusive=True))
            return ControlChange((commit,))

        await core.controls.change(key, take, durability=core.durability)
        for call in (store.archive(S), store.compact(S, keep=0), store.compact(S, keep=0, drop=True)):
            with pytest.raises(perdure.Busy, match="leased"):
                await call
        assert (await store.read(S)).version == 4
        assert segments(tmp_path) == []


async def test_a_programming_error_is_not_taken_for_a_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no `perdure.Error` comes out of `archive` and `compact` as it is: nobody looks whether others were faster, nothing is voided,
    and the next call goes on with what was begun."""
    async with perdure.open("memory:", archive=archive(tmp_path)) as store:
        await turns(store, 12)
        before = await history(store)

        async def broken(*_: Any) -> None:
            raise ZeroDivisionError("a mistake")

        async def overtaken(*_: Any) -> Any:
            raise AssertionError("It was asked whether others were faster.")

        for call in (lambda: store.compact(S, keep=3), lambda: store.archive(S)):
            with monkeypatch.context() as patched:
                patched.setattr("perdure.engine.archive.archiver.make_segment", broken)
                patched.setattr("perdure.engine.archive.archiver.Archiver.void", overtaken)
                with pytest.raises(ZeroDivisionError):
                    await call()
            await call()
        assert [commit.hash for commit in await history(store)][:12] == [commit.hash for commit in before]
        await store.verify(S)
