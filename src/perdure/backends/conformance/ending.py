"""Cases of what is final: truncation, purge, two handles on one chain, the end."""

from __future__ import annotations

import asyncio

from perdure.backends.conformance.kit import Kit, S, behind, case, case_of_two, expecting, refuses, versions
from perdure.backends.spi import Appended, Backend, Known, Refused, Snapshot
from perdure.errors import Closed, Invalid
from perdure.model.commit import Kind, Status


@case
async def truncation_needs_its_anchor(kit: Kit) -> None:
    """Without the very anchor in the chain nothing is dropped; with it the records below are."""
    heads = await kit.chain(S, 4)
    (anchor,) = await kit.chain(S, 1, kind=Kind.anchor)
    for below, place in ((3, (5, b"\1" * 32)), (3, (4, heads[3].hash)), (6, (5, anchor.hash)), (3, (9, anchor.hash))):
        await refuses(Invalid, kit.backend.truncate(S, below, place))
    assert await versions(kit.backend, S) == [1, 2, 3, 4, 5]
    await kit.backend.truncate(S, 3, (5, anchor.hash))
    assert await versions(kit.backend, S) == [3, 4, 5]


@case
async def a_stale_writer_fails_after_truncation(kit: Kit) -> None:
    """The condition is the head, not the absence of a record: a truncated version cannot be written again."""
    heads = await kit.chain(S, 4)
    (anchor,) = await kit.chain(S, 1, kind=Kind.anchor)
    await kit.backend.truncate(S, 5, (5, anchor.hash))
    assert isinstance(await kit.one(expecting(S, heads[1])), Refused)
    assert isinstance(await kit.one(expecting(S, None)), Refused)
    assert await versions(kit.backend, S) == [5]


@case
async def a_snapshot_right_below_the_first_record_serves(kit: Kit) -> None:
    """After truncation the snapshot below the first record is offered from its own version on, and stands for the records that went."""
    heads = await kit.chain(S, 4)
    (anchor,) = await kit.chain(S, 1, kind=Kind.anchor)
    await kit.backend.put_snapshot(S, Snapshot(3, heads[2].hash, b"state"))
    await kit.backend.truncate(S, 4, (5, anchor.hash))
    for at, behind_it in ((3, []), (4, [4]), (None, [4, 5])):
        loaded = await kit.backend.load(S, at)
        assert loaded is not None
        assert loaded.snapshot == Snapshot(3, heads[2].hash, b"state")
        assert [item.head.version for item in loaded.records] == behind_it


@case
async def a_purged_session_is_never_taken_for_a_new_one(kit: Kit) -> None:
    """Purge is refused before deletion; after it the head's stub stays, and versions go on from it."""
    await kit.chain(S, 3)
    await refuses(Invalid, kit.backend.purge(S))
    await kit.chain(S, 1, kind=Kind.tombstone, status=Status.deleted)
    await kit.backend.purge(S)
    (head,) = await kit.backend.heads([S])
    assert head is not None
    assert (head.version, head.status) == (head.version, Status.deleted)
    assert head.version >= 2
    assert isinstance(await kit.one(expecting(S, None)), Refused)
    assert await versions(kit.backend, S) == [head.version]
    (after,) = await kit.chain(S, 1)
    assert after.version == head.version + 1


@case_of_two
async def a_second_handle_sees_what_was_acknowledged(kit: Kit) -> None:
    """What one handle acknowledged the other reads, lists and is conditioned on, at once."""
    for number in range(20):
        (head,) = await kit.chain(S, 1, key=f"k{number}")
        if kit.backend.capabilities.linearizable_reads:
            assert await kit.other.heads([S]) == [head]
            assert (await kit.other.read(S, after=number))[-1].head == head
        # With the same bytes it would be the first write again, whose answer was lost.
        outcome = (await kit.other.append([behind(S, key=f"k{number}", salt=b"another")]))[0]
        assert isinstance(outcome, Known)


@case_of_two
async def two_handles_race_without_loss(kit: Kit) -> None:
    """Two handles that append to one session at once leave a dense chain with every record in it."""

    async def write(backend: Backend, name: bytes) -> None:
        for number in range(20):
            (outcome,) = await backend.append([behind(S, salt=name + str(number).encode())])
            assert isinstance(outcome, Appended), outcome

    await asyncio.gather(write(kit.backend, b"a"), write(kit.other, b"b"))
    assert await versions(kit.backend, S) == list(range(1, 41))
    assert await versions(kit.other, S) == list(range(1, 41))


@case
async def a_closed_backend_says_so(kit: Kit) -> None:
    """Closing twice is closing once; afterwards every call raises `Closed`."""
    await kit.chain(S, 1)
    await kit.backend.close()
    await kit.backend.close()
    await refuses(Closed, kit.backend.append([behind(S)]))
    await refuses(Closed, kit.backend.heads([S]))
    await refuses(Closed, kit.backend.read(S))
