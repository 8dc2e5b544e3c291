"""What becomes of a write on the newest state, without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import perdure
from perdure import Event, op
from perdure.backends.spi import Durability, Head
from perdure.clock import SeededClock
from perdure.codec.codec import Codec
from perdure.engine.options import Options
from perdure.engine.read.cache import CachedState
from perdure.engine.write.request import Mode, WriteRequest
from perdure.engine.write.resolve import Finish, Incarnation, Plan, missing_after, resolve
from perdure.model.commit import GENESIS, Commit, Kind, Status
from perdure.model.ids import SessionKey
from perdure.model.ops import Op
from perdure.model.state import apply

S = SessionKey("default", "s")
ACTIVE, DELETED = int(Status.active), int(Status.deleted)


def hash_of(version: int) -> bytes:
    return GENESIS if not version else bytes([version]) * 32


def state_at(version: int, state: Any, *, data: int | None = None, status: int = ACTIVE) -> CachedState:
    head = Head(version, hash_of(version), version, 0, status, version if data is None else data)
    return CachedState(head, state, 0, 0, {}, 1)


def commit_at(version: int, *ops: Op, kind: Kind = Kind.data, prev: bytes | None = None) -> Commit:
    events = (Event("theirs", None, ops),)
    before = hash_of(version - 1) if prev is None else prev
    return Commit(version, bytes(16), version, kind, None, None, None, events, 0, before, hash_of(version))


def request(
    *ops: Op,
    mode: Mode = Mode.rebase,
    expected: int | None = 1,
    requires: Sequence[str] = (),
    on_conflict: Any = "merge",
    **options: Any,
) -> WriteRequest:
    return WriteRequest(
        session=S,
        events=(Event("mine", None, ops),),
        mode=mode,
        options=Options(on_conflict=on_conflict, **options),
        durability=Durability.memory,
        expected_version=expected,
        requires=requires,
    )


def planned(found: Plan | perdure.Conflict) -> Plan:
    assert isinstance(found, Plan), found
    return found


def refused(found: Plan | perdure.Conflict) -> perdure.Conflict:
    assert isinstance(found, perdure.Conflict), found
    return found


@pytest.mark.parametrize("mode", [Mode.any_state, Mode.rebase, Mode.exact])
def test_on_the_state_that_was_seen_a_request_stays_as_it_is(mode: Mode) -> None:
    """Nobody came between: no commits are needed, and the plan has the events and the state that they make."""
    seen = state_at(1, {"n": 1})
    wanted = request(op.add("/n", 2), mode=mode)
    assert missing_after(wanted, seen, seen) is None
    assert planned(resolve(wanted, seen, seen, ())) == Plan(wanted, seen, {"n": 3})


def test_a_session_that_is_not_there_begins_with_an_empty_state() -> None:
    """Without a session there is nothing to follow."""
    wanted = request(op.set("/a", 1), expected=None)
    assert planned(resolve(wanted, None, None, ())) == Plan(wanted, None, {"a": 1})


def test_operations_for_any_state_are_applied_to_the_newest_one() -> None:
    """They are not rebased: the index means the newest list, and the others' commits are not needed."""
    seen, current = state_at(1, {"l": [1]}), state_at(2, {"l": [0, 1]})
    wanted = request(op.splice("/l", 0, 1), mode=Mode.any_state, expected=None)
    assert missing_after(wanted, seen, current) is None
    assert planned(resolve(wanted, seen, current, ())) == Plan(wanted, current, {"l": [1]})


def test_operations_on_a_seen_state_are_rebased() -> None:
    """The index follows the element that it meant, and the plan's request carries the operations as they are now."""
    seen, theirs = state_at(1, {"l": [1]}), op.splice("/l", 0, 0, [0])
    current = state_at(2, {"l": [0, 1]})
    wanted = request(op.splice("/l", 0, 1))
    assert missing_after(wanted, seen, current) == 1
    plan = planned(resolve(wanted, seen, current, [commit_at(2, theirs)]))
    assert plan.seen is current
    assert plan.state == {"l": [0]} == apply(current.state, plan.request.ops)
    assert wanted.ops == [op.splice("/l", 0, 1)]


def test_operations_that_do_not_combine_are_a_conflict_that_names_the_paths() -> None:
    """Two different values for one member: the error names the versions and the path, and has no commits yet."""
    found = refused(resolve(request(op.set("/a", 1)), state_at(1, {"a": 0}), state_at(2, {"a": 2}), [commit_at(2, op.set("/a", 2))]))
    assert (found.expected, found.actual, found.paths, found.commits) == (1, 2, ("/a",), ())
    assert "moved from version 1 to 2" in str(found)


def test_a_policy_decides_a_conflict() -> None:
    """It gets both sides, and its answer is applied to the newest state."""
    asked: list[perdure.Clash] = []

    def policy(clash: perdure.Clash) -> list[Op]:
        asked.append(clash)
        return [op.set("/a", 3)]

    wanted = request(op.set("/a", 1), on_conflict=policy)
    current = state_at(2, {"a": 2})
    plan = planned(resolve(wanted, state_at(1, {"a": 0}), current, [commit_at(2, op.set("/a", 2))]))
    assert (plan.state, plan.request.ops, plan.seen) == ({"a": 3}, [op.set("/a", 3)], current)
    assert [(clash.base, clash.now, clash.paths) for clash in asked] == [({"a": 0}, {"a": 2}, ("/a",))]


@pytest.mark.parametrize(
    ("wanted", "theirs"),
    [
        (request(op.set("/b", 1), mode=Mode.exact), op.set("/a", 2)),
        (request(op.set("/b", 1), on_conflict="raise"), op.set("/a", 2)),
        (request(op.set("/b", 1), requires=["/a"]), op.set("/a", 2)),
    ],
    ids=["exact", "raise", "required"],
)
def test_a_strict_request_refuses_what_would_combine(wanted: WriteRequest, theirs: Op) -> None:
    """A state that others changed is a conflict for the exact mode, for `raise`, and for a path that the caller required."""
    seen, current = state_at(1, {"a": 1}), state_at(2, {"a": 2})
    after = missing_after(wanted, seen, current)
    commits = () if after is None else [commit_at(2, theirs)]
    found = refused(resolve(wanted, seen, current, commits))
    assert found.paths == tuple(wanted.requires)


@pytest.mark.parametrize("mode", [Mode.exact, Mode.rebase])
def test_control_commits_conflict_with_nothing(mode: Mode) -> None:
    """Tags and pins change no state: the exact mode and `raise` go on after them."""
    seen, current = state_at(1, {"a": 1}), state_at(2, {"a": 1}, data=1)
    wanted = request(op.set("/b", 1), mode=mode, on_conflict="raise")
    plan = planned(resolve(wanted, seen, current, [commit_at(2, kind=Kind.configure)]))
    assert (plan.seen, plan.state) == (current, {"a": 1, "b": 1})


def test_a_required_path_that_others_left_alone_is_no_conflict() -> None:
    """Only a changed value is."""
    seen, current = state_at(1, {"a": 1}), state_at(2, {"a": 1, "c": 2})
    plan = planned(resolve(request(op.set("/b", 1), requires=["/a"]), seen, current, [commit_at(2, op.set("/c", 2))]))
    assert plan.state == {"a": 1, "b": 1, "c": 2}


def test_a_session_that_was_started_in_between_counts_from_its_first_commit() -> None:
    """The caller saw none: what others wrote since is rebased over, or in conflict."""
    current = state_at(1, {"a": 1})
    wanted = request(op.set("/b", 2), expected=0, create=True)
    assert missing_after(wanted, None, current) == 0
    assert planned(resolve(wanted, None, current, [commit_at(1, op.set("/a", 1))])).state == {"a": 1, "b": 2}
    assert refused(resolve(request(op.set("/a", 2), expected=0), None, current, [commit_at(1, op.set("/a", 1))])).paths == ("/a",)


def test_a_session_that_was_deleted_and_created_again_is_a_conflict() -> None:
    """A tombstone among the others' commits ends what was seen, whatever came after it."""
    theirs = [commit_at(2, kind=Kind.tombstone), commit_at(3, op.set("/a", 1))]
    found = refused(resolve(request(op.set("/b", 1)), state_at(1, {"a": 1}), state_at(3, {"a": 1}), theirs))
    assert "It was deleted and created again in between" in str(found)


def test_a_deleted_session_refuses_operations_made_before() -> None:
    """`recreate` does not carry operations over the tombstone; those meant for any state go on from an empty one."""
    seen, current = state_at(1, {"a": 1}), state_at(2, {}, status=DELETED)
    refused(resolve(request(op.set("/b", 1), recreate=True), seen, current, [commit_at(2, kind=Kind.tombstone)]))
    plan = planned(resolve(request(op.set("/b", 1), mode=Mode.any_state, expected=None, recreate=True), seen, current, ()))
    assert plan.state == {"b": 1}
    with pytest.raises(perdure.Deleted):
        resolve(request(op.set("/b", 1)), seen, current, ())


def test_commits_that_do_not_follow_what_was_seen_are_rewound() -> None:
    """The engine lost what was seen: nothing is rebased over another chain."""
    with pytest.raises(perdure.Rewound, match="version 1"):
        resolve(request(op.set("/b", 1)), state_at(1, {}), state_at(2, {}), [commit_at(2, op.set("/a", 1), prev=bytes(31) + b"x")])


def test_a_test_is_decided_on_the_newest_state() -> None:
    """One that no longer holds is a `Conflict` with its path."""
    wanted = request(op.test("/a", 1), op.set("/a", 2), mode=Mode.any_state, expected=None)
    assert planned(resolve(wanted, None, state_at(1, {"a": 1}), ())).state == {"a": 2}
    with pytest.raises(perdure.Conflict, match="A test on '/a' does not hold") as failed:
        resolve(wanted, None, state_at(1, {"a": 0}), ())
    assert failed.value.paths == ("/a",)


def finish(wanted: WriteRequest, seen: CachedState | None, incarnation: Incarnation | None = None) -> Callable[[Head | None], Any]:
    proposal = Codec().propose(S, wanted.events, id=bytes(16))
    return Finish(wanted, seen, wanted.expected_version, incarnation, proposal, SeededClock(1).now())


def test_events_alone_follow_any_head_that_they_may() -> None:
    """With a version decided on, a data commit after it is refused and a control commit is not."""
    anywhere, decided = request(mode=Mode.events, expected=None), request(mode=Mode.events, expected=2)
    for head in (None, state_at(1, {}).head, state_at(7, {}).head):
        (record,) = finish(anywhere, None)(head)
        assert record.head.version == (head.version if head else 0) + 1
    assert finish(decided, None)(state_at(3, {}, data=2).head) is not None
    assert finish(decided, None)(state_at(3, {}).head) is None


def test_a_commit_on_a_state_follows_that_state_alone() -> None:
    """The same head, or control commits after it; another hash, a data commit or a lost chain is refused."""
    wanted, seen = request(op.set("/a", 1)), state_at(2, {})
    (record,) = finish(wanted, seen)(seen.head)
    assert record.head.version == 3
    assert finish(wanted, seen)(state_at(3, {}, data=2).head) is not None
    assert finish(wanted, seen)(state_at(3, {}).head) is None
    assert finish(wanted, seen)(Head(2, bytes(32), 1, 0, ACTIVE, 2)) is None
    assert finish(wanted, None)(seen.head) is None
    with pytest.raises(perdure.Rewound):
        finish(wanted, seen)(None)


def test_a_key_of_an_earlier_life_is_for_the_present_one_alone() -> None:
    """A head of another grant refuses the commit: whether a tombstone or a lease raised it is looked up before the next try."""
    wanted = request(mode=Mode.events, expected=None)
    head = Head(3, hash_of(3), 3, 0, ACTIVE, 3)
    assert finish(wanted, None, Incarnation(2, 0))(head) is not None
    assert finish(wanted, None, Incarnation(2, 5))(head) is None


def test_a_deleted_session_is_active_again_after_a_commit() -> None:
    """`recreate` continues after the tombstone."""
    wanted = request(mode=Mode.events, expected=None, recreate=True)
    (record,) = finish(wanted, None)(state_at(2, {}, status=DELETED).head)
    assert (record.head.version, record.head.status) == (3, ACTIVE)
