"""A life lived once on a watched disk: what every step acknowledged, and what each session was at each version."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw

import perdure
from tests.support.crash.disk import Disk, Entry
from tests.support.crash.workload import CHECKPOINT, REOPENING, SESSIONS, Receipts, Step, checkpoint, opening


class Link(NamedTuple):
    """Where a session stands."""

    version: int
    hash: bytes


Heads = dict[str, Link]


class Moment(NamedTuple):
    """A step with the journal's lengths before it and when it was acknowledged, and the heads then."""

    step: Step
    begin: int
    end: int
    receipts: Receipts
    heads: Heads


class Recording(NamedTuple):
    """The whole life. `opened` is the journal's length when the first `open` had returned; `states` lacks the versions at which a
    session is deleted."""

    store_id: str
    opened: int
    moments: list[Moment]
    hashes: dict[tuple[str, int], bytes]
    states: dict[tuple[str, int], Any]
    journal: list[Entry]


async def record(path: Path, name: str, life: Sequence[Step], *, durability: str = "local") -> Recording:
    """Live it, on the watched disk of this name."""
    with Disk(name) as disk:
        store = await opening(str(path), name, durability=durability)
        opened, store_id = len(disk.journal), store.id
        moments: list[Moment] = []
        hashes: dict[tuple[str, int], bytes] = {}
        states: dict[tuple[str, int], Any] = {}
        modes = itertools.cycle((apsw.SQLITE_CHECKPOINT_RESTART, apsw.SQLITE_CHECKPOINT_TRUNCATE))
        for seed, step in enumerate(life):
            begin = len(disk.journal)
            if step is REOPENING:
                await store.close()
                store = await opening(str(path), name, 100 + seed, durability=durability)
            elif step is CHECKPOINT:
                checkpoint(str(path), name, next(modes))
            receipts = await step.run(store)
            end = len(disk.journal)
            before = moments[-1].heads if moments else {}
            moments.append(Moment(step, begin, end, receipts, await heads(store)))
            for session, link in moments[-1].heads.items():
                await _learn(store, session, before.get(session, Link(0, b"")), link, hashes, states)
            for session, receipt in receipts.items():
                assert receipt is not None
                assert moments[-1].heads[session] == (receipt.version, receipt.hash), step.name
        await store.close()
        return Recording(store_id, opened, moments, hashes, states, disk.journal)


async def heads(store: perdure.Store) -> Heads:
    """Every session's head, as proved by `verify`, deleted ones too."""
    found: Heads = {}
    for session in SESSIONS:
        try:
            proof = await store.verify(session)
        except perdure.NotFound:
            continue
        found[session] = Link(proof.version, proof.hash)
    return found


async def _learn(
    store: perdure.Store,
    session: str,
    before: Link,
    now: Link,
    hashes: dict[tuple[str, int], bytes],
    states: dict[tuple[str, int], Any],
) -> None:
    hashes[session, now.version] = now.hash
    if now == before:
        return
    try:
        async for commit in store.history(session, after=before.version):
            hashes[session, commit.version] = commit.hash
            states[session, commit.version] = (await store.read(session, at=commit.version)).state
    except perdure.Deleted:
        pass
