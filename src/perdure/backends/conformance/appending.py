"""Cases of the one write: its condition, its atomicity, its keys, its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from perdure.backends.conformance.kit import Kit, S, behind, case, expecting, record, refuses, versions
from perdure.backends.spi import Append, Appended, Durability, Head, Index, Known, Query, Record, Refused
from perdure.errors import Corrupt, Invalid, TooLarge, Unsupported
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey


@case
async def first_append_meets_no_head(kit: Kit) -> None:
    """A session's first append sees no head; its record is then the head."""
    seen: list[Head | None] = []

    def finish(head: Head | None) -> Sequence[Record]:
        seen.append(head)
        return (record(S, head),)

    outcome = await kit.one(Append(S, finish))
    assert isinstance(outcome, Appended)
    assert seen[-1] is None
    assert outcome.previous is None
    assert (await kit.backend.heads([S])) == [outcome.head]
    assert outcome.head.version == 1


@case
async def a_stale_head_is_refused_with_the_true_one(kit: Kit) -> None:
    """An append whose `finish` refuses the head stores nothing and learns the head."""
    first, second = await kit.chain(S, 2)
    outcome = await kit.one(expecting(S, first))
    assert isinstance(outcome, Refused)
    assert outcome.head == second
    assert await versions(kit.backend, S) == [1, 2]


@case
async def of_two_appends_on_one_head_one_wins(kit: Kit) -> None:
    """Of two appends in one call that saw the same head, exactly the first is stored."""
    (head,) = await kit.chain(S, 1)
    outcomes = await kit.backend.append([expecting(S, head, salt=b"a"), expecting(S, head, salt=b"b")])
    assert [type(outcome) for outcome in outcomes] == [Appended, Refused]
    assert await versions(kit.backend, S) == [1, 2]


@case
async def racing_tasks_leave_a_dense_chain(kit: Kit) -> None:
    """Many tasks that each retry on the head they are shown leave contiguous versions, one for each."""

    async def write(number: int) -> None:
        head = (await kit.backend.heads([S]))[0]
        while True:
            outcome = await kit.one(expecting(S, head, salt=str(number).encode()))
            if isinstance(outcome, Appended):
                return
            assert isinstance(outcome, Refused)
            head = outcome.head

    await asyncio.gather(*[write(number) for number in range(24)])
    assert await versions(kit.backend, S) == list(range(1, 25))


@case
async def a_batch_answers_in_order_and_losers_stop_nobody(kit: Kit) -> None:
    """Of 64 sessions in one call every third is stale: its outcome says so, in its place, and the others are stored."""
    sessions = [SessionKey("acme", f"b{number}") for number in range(64)]
    await kit.backend.append([behind(session) for session in sessions])
    batch = [expecting(session, None) if number % 3 == 0 else behind(session, salt=b"x") for number, session in enumerate(sessions)]
    outcomes = await kit.backend.append(batch)
    assert [isinstance(outcome, Refused) for outcome in outcomes] == [number % 3 == 0 for number in range(64)]
    heads = await kit.backend.heads(sessions)
    for number, (outcome, head) in enumerate(zip(outcomes, heads, strict=True)):
        assert head is not None
        assert head.version == (1 if number % 3 == 0 else 2)
        assert isinstance(outcome, Appended | Refused)
        assert outcome.head == head


@case
async def what_finish_raises_is_one_outcome(kit: Kit) -> None:
    """An error in one append's `finish` is its outcome; the appends beside it are stored."""

    def fail(head: Head | None) -> Sequence[Record]:
        raise Invalid(f"I do not like {head}.")

    t = SessionKey("acme", "t")
    outcomes = await kit.backend.append([Append(S, fail, None, Index({"a": "b"})), behind(t)])
    assert isinstance(outcomes[0], Invalid)
    assert isinstance(outcomes[1], Appended)
    assert await kit.backend.heads([S]) == [None]


@case
async def what_cannot_be_stored_is_one_outcome(kit: Kit) -> None:
    """A record with a number of more than 64 bits is `Invalid` and stores nothing; the appends beside it are stored."""
    sessions = [SessionKey("acme", f"n{number}") for number in range(8)]
    await kit.backend.append([behind(session) for session in sessions[::2]])
    outcomes = await kit.backend.append([behind(session, kind=1 << 70 if session.id == "n4" else Kind.data) for session in sessions])
    assert [type(outcome) for outcome in outcomes] == [Invalid if session.id == "n4" else Appended for session in sessions]
    assert [head and head.version for head in await kit.backend.heads(sessions)] == [2, 1, 2, 1, 1, 1, 2, 1]


@case
async def several_records_are_stored_or_none(kit: Kit) -> None:
    """An append's records are stored together; with a gap among them none is, nor its key, nor its tags."""

    def two(head: Head | None, skip: int = 0) -> Sequence[Record]:
        first = record(S, head, key="k")
        return (first, record(S, first.head, skip=skip))

    broken = await kit.one(Append(S, lambda head: two(head, 1), "k", Index({"a": "b"})))
    assert isinstance(broken, Corrupt), broken
    assert await kit.backend.heads([S]) == [None]
    assert await kit.backend.find_key(S, "k") is None
    assert not (await kit.backend.scan(Query("acme"))).items
    outcome = await kit.one(Append(S, two, "k"))
    assert isinstance(outcome, Appended)
    assert await versions(kit.backend, S) == [1, 2]


@case
async def a_gap_behind_the_head_is_refused(kit: Kit) -> None:
    """A record that does not follow the head is never stored."""
    await kit.chain(S, 1)
    assert isinstance(await kit.one(behind(S, skip=1)), Corrupt)
    assert await versions(kit.backend, S) == [1]


@case
async def a_chain_may_start_anywhere(kit: Kit) -> None:
    """A fork's first record has its parent's next version."""
    outcome = await kit.one(behind(S, skip=6))
    assert isinstance(outcome, Appended)
    assert outcome.head.version == 7
    await kit.chain(S, 1)
    assert await versions(kit.backend, S) == [7, 8]


@case
async def size_limits_are_as_declared(kit: Kit) -> None:
    """A record of 1 MiB is stored whole; one above `record_bytes_max` is `TooLarge`, and nothing is stored."""
    limit = kit.backend.capabilities.record_bytes_max
    size = min(limit - 64, 1 << 20)
    assert isinstance(await kit.one(behind(S, body=b"x" * size)), Appended)
    assert isinstance(await kit.one(behind(S, body=b"x" * (limit + 1))), TooLarge)
    assert [len(item.body) for item in await kit.backend.read(S)] == [size]


@case
async def the_number_of_appends_is_limited(kit: Kit) -> None:
    """No appends, or more than 256, are `Invalid`."""
    await refuses(Invalid, kit.backend.append([]))
    await refuses(Invalid, kit.backend.append([behind(S)] * 257))


@case
async def durability_is_as_declared(kit: Kit) -> None:
    """The declared level is reached and named; a stronger one is refused, and nothing is stored."""
    strongest = kit.backend.capabilities.durability
    outcome = await kit.one(behind(S, durability=strongest))
    assert isinstance(outcome, Appended)
    assert outcome.durability == strongest
    if strongest is not Durability.quorum:
        refused = await kit.one(behind(S, durability=Durability(strongest + 1)))
        assert isinstance(refused, Unsupported), refused
        assert await versions(kit.backend, S) == [1]


@case
async def a_cancelled_append_is_whole_or_absent(kit: Kit) -> None:
    """Cancelling an append leaves both its records or neither, and the backend usable."""
    for steps in range(6):
        session = SessionKey("acme", f"cancel{steps}")

        def two(head: Head | None, session: SessionKey = session) -> Sequence[Record]:
            first = record(session, head)
            return (first, record(session, first.head))

        task = asyncio.ensure_future(kit.backend.append([Append(session, two)]))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kit.chain(session, 1)
        assert await versions(kit.backend, session) in ([1], [1, 2, 3])


@case
async def a_key_is_applied_once(kit: Kit) -> None:
    """A second append with a key stores nothing and learns the version and request of the first; also within one call."""
    first, again = await kit.backend.append([behind(S, key="k", request=b"r" * 16), behind(S, key="k", request=b"q" * 16, salt=b"2")])
    assert isinstance(first, Appended)
    assert isinstance(again, Known)
    assert (again.version, again.request) == (1, b"r" * 16)
    later = await kit.one(behind(S, key="k", salt=b"3"))
    assert isinstance(later, Known)
    assert await versions(kit.backend, S) == [1]
    assert await kit.backend.find_key(S, "k") == later
    assert await kit.backend.find_key(S, "other") is None


@case
async def a_key_is_known_before_the_head_is_judged(kit: Kit) -> None:
    """A retry whose head is stale by now still finds its first outcome."""
    await kit.chain(S, 1, key="k")
    await kit.chain(S, 3)
    outcome = await kit.one(expecting(S, None, key="k"))
    assert isinstance(outcome, Known)
    assert outcome.version == 1


@case
async def keys_belong_to_one_session(kit: Kit) -> None:
    """The same key in another session or tenant is another key."""
    others = [SessionKey("acme", "t"), SessionKey("other", "s")]
    await kit.chain(S, 1, key="k")
    for session in others:
        assert isinstance(await kit.one(behind(session, key="k")), Appended)


@case
async def keys_outlive_truncation(kit: Kit) -> None:
    """A key whose record was truncated is still known."""
    await kit.chain(S, 1, key="k")
    await kit.chain(S, 3)
    (anchor,) = await kit.chain(S, 1, kind=Kind.anchor)
    await kit.backend.truncate(S, 4, (anchor.version, anchor.hash))
    outcome = await kit.one(behind(S, key="k"))
    assert isinstance(outcome, Known)
    assert outcome.version == 1
