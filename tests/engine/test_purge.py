"""`purge`: after `delete` every byte of a session goes but its stub, and the id stays dead until it is made anew."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import perdure
import perdure.sync
from perdure import Event, op

CANARY = "xanthous-canary"


async def fill(store: perdure.Store, session: str, rng: random.Random) -> None:
    """A session with the canary in its events, state, keys, tags, snapshots, in bodies of all sizes."""
    for number in range(rng.randint(5, 30)):
        # Incompressible filler keeps the canary's bytes as they are in a part of the bodies, and small bodies are not compressed.
        text = CANARY + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=rng.choice((3, 60, 300, 9_000))))
        await store.append(session, Event("said", {"text": text}, (op.append("/log", [text]),)), key=f"{CANARY}-{number}")
    await store.configure(session, tags={CANARY: CANARY})
    await store.read(session)


LOOK = "import pathlib, sys; print(any(sys.argv[2].encode() in path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()))"


def holds(folder: Path) -> bool:
    """Whether a file holds the canary. Another process looks: one that closes a file of SQLite's gives up the locks of its own process."""
    return subprocess.run([sys.executable, "-c", LOOK, folder, CANARY], check=True, capture_output=True, text=True).stdout == "True\n"


async def test_nothing_is_left_in_the_file(tmp_path: Path) -> None:
    """After delete and purge no file of the store holds a word of what the session held, its neighbours are whole, and it stays dead."""

    rng = random.Random(7)
    url = f"sqlite:///{tmp_path}/store.db"
    async with perdure.open(url, snapshot_bytes_min=2_000) as store:
        for number in range(12):
            await fill(store, f"s{number}", rng)
            await store.append("neighbour", Event("kept", "x" * rng.choice((10, 5_000)), (op.add("/n", 1),)))
        assert holds(tmp_path)
        for number in range(12):
            await store.delete(f"s{number}")
            await store.purge(f"s{number}")
        assert not holds(tmp_path)
        assert (await store.read("neighbour")).state == {"n": 12}
        await store.verify("neighbour")
        assert [info.session async for info in store.list()] == ["neighbour"]
        assert len([info.session async for info in store.list(status="deleted")]) == 12
    assert not holds(tmp_path)


async def test_the_stub_keeps_the_id_dead(url: str) -> None:
    """A purged session is `Deleted` for all calls, verifies, is purged again without harm, and goes on from its tombstone's version."""

    async with perdure.open(url) as store:
        await store.append("s", Event("first", None, (op.set("/secret", 1),)), key="k")
        stale = store.edit("s")
        draft = await stale.__aenter__()
        draft.state["late"] = True
        tombstone = await store.delete("s", actor="ann")
        for _ in range(2):
            await store.purge("s")
            for call in (
                store.read("s"),
                store.append("s", Event("x")),
                store.configure("s", tags={}),
                store.fork("s"),
                store.delete("s"),
            ):
                with pytest.raises(perdure.Deleted):
                    await call
            with pytest.raises(perdure.Deleted):
                await stale.__aexit__(None, None, None)
            proof = await store.verify("s")
            assert (proof.version, proof.hash, proof.commits) == (2, tombstone.hash, 0)
        assert await store.find("s", "k", include_deleted=True) is None
        with pytest.raises(perdure.Truncated):
            await store.read("s", at=1, include_deleted=True)
        with pytest.raises(perdure.Truncated):
            [commit async for commit in store.history("s", include_deleted=True)]
        again = await store.append("s", Event("second", None, (op.set("/b", 2),)), key="k", recreate=True)
        assert (again.version, again.duplicate) == (3, False)
        with pytest.raises(perdure.Conflict):
            await stale.__aexit__(None, None, None)
        assert (await store.read("s")).state == {"b": 2}
        assert [commit.version async for commit in store.history("s")] == [3]
        assert [commit.version async for commit in store.history("s", newest_first=True)] == [3]
        assert (await store.verify("s")).version == 3
        fork = await store.fork("s")
        assert (await store.read(fork)).state == {"b": 2}
        assert (await store.verify(fork)).commits == 2
    if url != "memory:":
        async with perdure.open(url) as store:
            assert (await store.read("s")).state == {"b": 2}
            with pytest.raises(perdure.Deleted):
                await store.read("s", at=2)


async def test_only_what_is_deleted_and_read_by_nobody_is_purged(url: str) -> None:
    """A live session, one that is not there, and one whose forks read through it are refused, and nothing is lost."""

    async with perdure.open(url) as store:
        with pytest.raises(perdure.NotFound):
            await store.purge("none")
        await store.append("s", Event("x", None, (op.set("/a", 1),)))
        with pytest.raises(perdure.Invalid, match="delete it before"):
            await store.purge("s")
        await store.fork("s", id="child")
        await store.fork("child", at=1, id="grandchild")
        await store.delete("s")
        for session, blocking in (("s", "child"), ("child", "grandchild")):
            if session == "child":
                await store.delete("child")
            with pytest.raises(perdure.Invalid, match=f"purge '{blocking}' first"):
                await store.purge(session)
        assert (await store.read("grandchild")).state == {"a": 1}
        await store.delete("grandchild")
        for session in ("grandchild", "child", "s"):
            await store.purge(session)
        await store.append("s", Event("again"), recreate=True)
        with pytest.raises(perdure.Invalid, match="delete it before"):
            await store.purge("s")


def test_purge_in_the_blocking_api(tmp_path: Path) -> None:
    """The blocking store has `purge` too."""
    with perdure.sync.open(f"sqlite:///{tmp_path}/store.db") as store:
        store.append("s", Event("x"))
        store.delete("s")
        store.purge("s")
        with pytest.raises(perdure.Deleted):
            store.read("s")


async def test_another_process_remembers_what_was_purged(file_url: str) -> None:
    """A store that has a state in memory when another one deletes, purges and creates the session again goes on with the new life."""
    async with perdure.open(file_url) as store, perdure.open(file_url) as other:
        for number in range(3):
            await store.append(f"s{number}", Event("x", None, (op.set("/old", 1),)))
            async with store.edit(f"s{number}") as draft:
                draft.state["old"] = 2
            await other.delete(f"s{number}")
            await other.purge(f"s{number}")
            await other.append(f"s{number}", Event("x", None, (op.set("/new", 1),)), recreate=True)
        assert (await store.read("s0")).state == {"new": 1}
        await store.append("s1", Event("x", None, (op.set("/more", 1),)))
        assert (await store.read("s1")).state == {"new": 1, "more": 1}
        async with store.edit("s2") as draft:
            draft.state["more"] = 1
        assert (await other.read("s2")).state == {"new": 1, "more": 1}
