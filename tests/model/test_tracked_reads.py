"""Reading `draft.state`: what comes out can be changed with effect, or is a plain copy without."""

from __future__ import annotations

import copy
import heapq
import json
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pydantic
import pytest

from perdure.errors import Invalid
from perdure.model import ops as op
from perdure.model.state import apply
from perdure.model.tracked import TrackedDict, TrackedList, Tracker
from perdure.model.values import FrozenList, freeze, same, thaw
from tests.support.tracked import DOC, edited


def together(*children: Any) -> list[Any]:
    return list(children)


READS: list[Callable[[Any], list[Any]]] = [
    lambda s: [s["d"], s["l"]],
    lambda s: [s.get("d"), s.get("l", 5)],
    lambda s: list(s.values()),
    lambda s: [value for _, value in s.items()],
    lambda s: [s.setdefault("d", {}), s.setdefault("l", [])],
    lambda s: list(dict(s).values()),
    lambda s: list({**s}.values()),
    lambda s: list((s | {}).values()),
    lambda s: list(({} | s).values()),
    lambda s: list(s.copy().values()),
    lambda s: list(copy.copy(s).values()),
    lambda s: [s.pop("d"), s.pop("l")],
    lambda s: [s.popitem()[1], s.popitem()[1]],
    lambda s: [*s["l"]],
    lambda s: list(s["l"]),
    lambda s: list(reversed(s["l"])),
    lambda s: s["l"][:],
    lambda s: s["l"][::-1],
    lambda s: s["l"].copy(),
    lambda s: copy.copy(s["l"]),
    lambda s: [] + s["l"],
    lambda s: s["l"] + [],
    lambda s: s["l"] * 2,
    lambda s: 2 * s["l"],
    lambda s: together(*s["l"]),
    lambda s: [s["l"].pop(), s["l"].pop(0)],
    lambda s: sorted(s["l"], key=len),
    lambda s: sum([s["l"], s["l"]], []),  # noqa: RUF017
    lambda s: [].__iadd__(s["l"]),
    lambda s: heapq.nlargest(2, s["l"], key=len),
]


@pytest.mark.parametrize("read", READS)
def test_every_way_to_reach_a_child_gives_one_that_can_be_changed(read: Callable[[Any], list[Any]]) -> None:
    """However a container is reached in Python, changing it changes the state, as it does in a plain one."""

    def change(state: Any) -> None:
        for child in read(state):
            if isinstance(child, dict):
                child["new"] = 1
            else:
                child.append("new")

    document = {"d": {"x": 1}, "l": [{"y": 1}, [2]]}
    edited(document, change)
    tracker = Tracker(freeze(document))
    for child in read(tracker.root):
        assert type(child) in (TrackedDict, TrackedList)


def test_adding_to_a_plain_list_in_place_keeps_it_that_list() -> None:
    """`plain += tracked` extends the plain list, for everyone who holds it."""
    tracker = Tracker(freeze({"l": [{"x": 1}]}))
    held = plain = [0]
    plain += tracker.root["l"]
    assert held is plain
    assert held == [0, {"x": 1}]


def test_copies_are_plain_and_independent() -> None:
    """deepcopy, pickle and a call of the type give plain dicts and lists, with shared parts still shared, that change nothing."""
    tracker = Tracker(freeze(DOC))
    root = tracker.root
    root["twice"] = [root["log"], root["log"]]
    for made in (copy.deepcopy(root), pickle.loads(pickle.dumps(root))):
        assert same(made, root)
        assert type(made) is dict
        assert type(made["log"]) is list
        assert type(made["log"][0]) is dict
        assert made["twice"][0] is made["log"]
        made["log"].append(1)
        made["deep"]["count"].clear()
    assert type(type(root)(root)) is dict
    assert type(type(root["log"])(root["log"])) is list
    assert type(root.fromkeys("ab")) is dict
    del root["twice"]
    assert tracker.ops() == ()


def test_encoders_see_what_is_there() -> None:
    """The json module (in C and in Python), msgspec and pydantic read a state that was touched here and there as its plain equal."""

    class Count(pydantic.BaseModel):
        x: int

    class Document(pydantic.BaseModel):
        n: int
        deep: dict[str, Count]
        log: list[dict[str, int]]
        rest: Any

    tracker = Tracker(freeze({**DOC, "rest": {"k": [1, {"z": 2}]}}))
    root, plain = tracker.root, thaw({**DOC, "rest": {"k": [1, {"z": 2}]}})
    for state in (root, plain):
        state["log"][1]["i"] = 5
        state["deep"]["more"] = {"x": 3}
    assert json.dumps(root) == json.dumps(plain)
    assert json.dumps(root, indent=1, sort_keys=True) == json.dumps(plain, indent=1, sort_keys=True)
    assert msgspec.json.encode(root) == msgspec.json.encode(plain)
    assert msgspec.msgpack.encode(root["log"]) == msgspec.msgpack.encode(plain["log"])
    assert Document.model_validate(root) == Document.model_validate(plain)
    assert pydantic.TypeAdapter(dict[str, Any]).dump_json(root) == pydantic.TypeAdapter(dict[str, Any]).dump_json(plain)
    assert repr(root) == repr(plain)
    assert root == plain
    assert plain == root


def test_what_c_code_leaks_cannot_change_the_base() -> None:
    """A child that left the list by C code is frozen: changing it says so, and nothing happens silently."""
    tracker = Tracker(freeze({"q": [[1, {"t": 1}], [2, {"t": 2}]]}))
    job = heapq.heappop(tracker.root["q"])
    assert job == [1, {"t": 1}]
    with pytest.raises(Invalid, match=r"draft\.state"):
        job.append(1)
    tracker.root["done"] = job
    tracker.root["done"].append("now it can")
    assert same(apply({"q": [[1, {"t": 1}], [2, {"t": 2}]]}, tracker.ops()), {"q": [[2, {"t": 2}]], "done": [1, {"t": 1}, "now it can"]})


def test_a_base_is_frozen_lists_too() -> None:
    """A tracker on a list hands out a list; the base given plain is copied."""
    document: list[Any] = [[1], {"x": 2}]
    tracker = Tracker(document)
    assert type(tracker.root) is TrackedList
    tracker.root[1]["x"] = 3
    document[0].append("unseen")
    assert tracker.ops() == (op.set("/1/x", 3),)
    assert type(tracker._base) is FrozenList
