"""What a draft pops or moves is taken: it is there, unchanged, or nobody gets it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest

from perdure.errors import Invalid
from perdure.model import merge
from perdure.model import ops as op
from perdure.model.merge import Rebased, rebase
from perdure.model.ops import Op, TakingOp, check_op
from perdure.model.tracked import Tracker
from perdure.model.values import freeze

Change = Callable[[Any], object]
BASE: dict[str, Any] = {
    "todo": ["X", "Y", "Z"],
    "jobs": [{"id": 1, "tool": {"name": "t1"}}, {"id": 2}, {"id": 3}],
    "by": {"a": {"id": 4}, "b": "B", "n": 7},
    "job": "J",
    "mine": [],
    "theirs": [],
    "spot": None,
}


def edited(change: Change) -> tuple[Op, ...]:
    tracker = Tracker(freeze(BASE))
    change(tracker.root)
    return tracker.ops()


def both(mine: Change, theirs: Change) -> Rebased:
    return rebase(freeze(BASE), edited(mine), edited(theirs))


def delete(node: Any, key: Any) -> None:
    del node[key]


def put(node: Any, key: Any, value: Any) -> None:
    node[key] = value


def first_by_deletion(state: Any) -> None:
    held = state["todo"][0]
    del state["todo"][0]
    state["mine"].append(held)


def changed_on_the_way(state: Any) -> None:
    held = state["jobs"][0]
    del state["jobs"][0]
    held["by"] = "me"
    state["mine"].append(held)


def swapped(state: Any) -> None:
    state["jobs"][0], state["jobs"][1] = state["jobs"][1], state["jobs"][0]


TAKES: list[tuple[Change, str]] = [
    (lambda s: s["mine"].append(s["todo"].pop(0)), "todo"),
    (lambda s: s["todo"].pop(0), "todo"),
    (first_by_deletion, "todo"),
    (lambda s: [s["mine"].append("X"), s["todo"].remove("X")], "todo"),
    (lambda s: [s["mine"].append({"job": s["todo"][0]}), delete(s["todo"], slice(0, 1))], "todo"),
    (lambda s: put(s["todo"], slice(None), s["todo"][1:] + s["todo"][:1]), "todo"),
    (lambda s: s["todo"].append(s["todo"].pop(0)), "todo"),
    (lambda s: s["mine"].append(s["jobs"].pop(0)), "jobs"),
    (lambda s: [s["mine"].append(s["jobs"][0]), delete(s["jobs"], 0)], "jobs"),
    (lambda s: [s["mine"].append(copy.deepcopy(s["jobs"][0])), delete(s["jobs"], 0)], "jobs"),
    (lambda s: [s["mine"].append(s["jobs"][0]["tool"]), delete(s["jobs"], 0)], "jobs"),
    (changed_on_the_way, "jobs"),
    (swapped, "jobs"),
    (lambda s: s["jobs"].reverse(), "jobs"),
    (lambda s: s["mine"].append(s["by"].pop("a")), "by"),
    (lambda s: [s["mine"].append(s["by"]["a"]), delete(s["by"], "a")], "by"),
    (lambda s: put(s["by"], "c", s["by"].pop("a")), "by"),
]
GONE: dict[str, list[Change]] = {
    "todo": [
        lambda s: delete(s["todo"], 0),
        lambda s: s["todo"].remove("X"),
        lambda s: s["todo"].pop(0),
        lambda s: put(s["todo"], 0, "new"),
    ],
    "jobs": [
        lambda s: delete(s["jobs"], 0),
        lambda s: s["jobs"].pop(0),
        lambda s: put(s["jobs"][0], "owner", "ann"),
        lambda s: s["jobs"][0]["tool"].clear(),
        lambda s: put(s["jobs"], 0, {"id": 9}),
    ],
    "by": [
        lambda s: delete(s["by"], "a"),
        lambda s: s["by"].pop("a", None),
        lambda s: s["by"].pop("a"),
        lambda s: put(s["by"]["a"], "x", 1),
    ],
}


@pytest.mark.parametrize("number", range(len(TAKES)))
def test_what_is_taken_must_still_be_there(number: int) -> None:
    """Whoever comes second, by whatever call, gets nothing if the first removed, took or changed it: a conflict names the place."""
    take, where = TAKES[number]
    for gone in GONE[where]:
        for rebased in (both(take, gone), both(gone, take)):
            assert rebased.clashes
            assert all(path.startswith(f"/{where}") for path in rebased.clashes)


@pytest.mark.parametrize("number", range(len(TAKES)))
def test_what_others_leave_alone_can_be_taken(number: int) -> None:
    """Changes elsewhere, also in the same list after it, do not hinder a taking."""
    take, where = TAKES[number]
    assert not both(take, lambda s: s["theirs"].append(1)).clashes
    if where == "todo" and number < 5:
        assert not both(take, lambda s: [delete(s["todo"], 2), s["todo"].append("new")]).clashes


@pytest.mark.parametrize(
    "remove",
    [
        lambda s: delete(s["todo"], 0),
        lambda s: s["todo"].remove("Y"),
        lambda s: delete(s["todo"], slice(None, -1)),
        lambda s: s["todo"].clear(),
        lambda s: s["jobs"].remove({"id": 2}),
        lambda s: s["by"].pop("a", None),
        lambda s: s["by"].clear(),
        lambda s: delete(s["by"], "n"),
        lambda s: put(s, "job", None),
        lambda s: [s["todo"].append("new"), delete(s["todo"], slice(None, -3))],
    ],
)
def test_gone_is_gone(remove: Change) -> None:
    """What both writers delete without keeping it is no conflict, and it is marked for nobody."""
    assert not any(one.taken for one in edited(remove))
    assert not both(remove, remove).clashes


def test_a_claim_by_overwriting_is_a_taking() -> None:
    """A value that was overwritten and stands elsewhere now was moved: two writers do not both get it."""

    def claim(side: str) -> Change:
        return lambda s: [s[side].append(s["job"]), put(s, "job", None)]

    assert both(claim("mine"), claim("theirs")).clashes == ("/job",)
    assert not both(claim("mine"), lambda s: put(s, "spot", 1)).clashes


def test_what_says_too_little_is_not_taken_for_a_move() -> None:
    """Null, booleans, what is empty and a number inside of something new do not make a deletion a move."""
    base = {"l": [None, True, "", [], {}], "m": [], "n": 5}

    def change(state: Any) -> None:
        state["l"].clear()
        state["m"] += [None, True, "", [], {}]
        state["n"] = 6
        state["new"] = {"five": 5}

    tracker = Tracker(freeze(base))
    change(tracker.root)
    assert not any(one.taken for one in tracker.ops())


def test_explicit_operations_take_when_they_say_so() -> None:
    """`take=True` marks an operation; what `draft.do` was given stays as it is."""
    tracker = Tracker(freeze(BASE))
    done = [op.remove("/todo/0", take=True), op.append("/mine", ["X"]), op.remove("/todo/0"), op.append("/mine", ["Y"])]
    for one in done:
        tracker.do(one)
    assert tracker.ops() == tuple(done)
    assert [one.taken for one in tracker.ops()] == [True, False, False, False]
    for wrong in (TakingOp("append", "/l", []), TakingOp("remove", "/l", None, "borrow")):
        with pytest.raises(Invalid, match="takes nothing out"):
            check_op(wrong)


def test_a_taking_keeps_its_mark_when_it_is_carried_over() -> None:
    """A rebased operation takes as it did before, at its new index: a third writer meets it too."""
    rebased = both(lambda s: s["mine"].append(s["todo"].pop(1)), lambda s: s["todo"].insert(0, "new"))
    assert rebased.ops[0] == op.splice("/todo", 2, 1, [], take=True)
    rebased = rebase({"l": [1, 2, 3]}, [op.remove("/l/2", take=True)], [op.remove("/l/0")])
    assert rebased.ops == (op.remove("/l/1", take=True),)


def test_two_who_trim_by_popping_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log says once in a process how to trim without conflicts; deletions meet none and need no hint."""

    def trim(state: Any) -> None:
        while len(state["todo"]) > 1:
            state["todo"].pop(0)

    merge._hint_at_trimming.cache_clear()
    with caplog.at_level(logging.WARNING, logger="perdure"):
        assert not both(lambda s: delete(s["todo"], slice(None, -1)), lambda s: delete(s["todo"], slice(None, -1))).clashes
        assert both(lambda s: s["todo"].reverse(), lambda s: s["todo"].reverse()).clashes
        assert not caplog.records
        for _ in range(2):
            assert both(trim, trim).clashes == ("/todo",)
    assert [record.name for record in caplog.records] == ["perdure"]
    assert "del items[:-50]" in caplog.text


def test_what_is_set_to_what_it_was_is_not_taken() -> None:
    """A value that is written once more where it stands has not moved: two who write it both succeed."""
    tracker = Tracker({"status": "searching", "n": 1})
    tracker.root["status"] = "searching"
    tracker.root["n"] = 2
    assert [op.taken for op in tracker.ops()] == [False, False]
