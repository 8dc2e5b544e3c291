"""What calls answer with, as JSON and as people read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import perdure.sync
from perdure import Commit, Event, op


def test_answers_as_json() -> None:
    """Receipt, Info, View and Commit give a dict that JSON can say whole; names instead of numbers, RFC 3339 instead of nanoseconds."""
    with perdure.sync.open("memory:") as store:
        receipt = store.append("s", Event("set", {"why": None}, (op.set("/n", 2**70), op.remove("/n"))), key="k", actor="ann")
        store.configure("s", tags={"team": "ops"})
        commit = next(iter(store.history("s")))
        view, (info,) = store.read("s"), store.list()
    for answer in (receipt, commit, view, info):
        assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()
    told = receipt.to_dict()
    assert told == {
        "version": 1, "id": commit.to_dict()["id"], "hash": commit.hash.hex(), "at": commit.to_dict()["at"], "durability": "memory",
        "duplicate": False,
    }  # fmt: skip
    ops = [{"op": "set", "path": "/n", "value": 2**70}, {"op": "remove", "path": "/n", "value": None}]
    assert commit.to_dict()["kind"] == "data" and commit.to_dict()["events"] == [{"type": "set", "data": {"why": None}, "ops": ops}]
    assert view.to_dict()["state"] == {} and view.to_dict()["tags"] == info.to_dict()["tags"] == {"team": "ops"}
    assert info.to_dict()["status"] == view.to_dict()["status"] == "active"


def test_times_are_aware() -> None:
    """`time` is the moment of the commit that an answer is about, in UTC; of a view at a version, that version's."""
    with perdure.sync.open("memory:") as store:
        first = store.append("s", Event("one"))
        second = store.append("s", Event("two"))
        commits = list(store.history("s"))
        assert [commit.time for commit in commits] == [first.time, second.time]
        assert store.read("s", at=1).time == first.time and store.read("s").time == second.time
        assert store.read("s", at=first.time).version == 1
        (info,) = store.list()
    assert info.time == info.updated_at == second.time
    assert first.time.tzinfo is UTC and abs(datetime.now(UTC) - first.time) < timedelta(days=1)
    assert first.at // 1000 == round(first.time.timestamp() * 1_000_000)
    assert datetime.fromisoformat(first.to_dict()["at"]) == first.time


def test_answers_for_people() -> None:
    """A repr says what a person asks first, on one line: state, version, time, who and what; no bytes, no nanoseconds."""
    with perdure.sync.open("memory:") as store:
        receipt = store.append("s", *[Event(f"e{number}") for number in range(6)], key="k", actor="ann")
        again = store.append("s", *[Event(f"e{number}") for number in range(6)], key="k", actor="ann")
        store.configure("s", tags={"team": "ops"})
        commit: Commit = next(iter(store.history("s")))
        view, (info,) = store.read("s"), store.list()
    when = f"{receipt.time:%Y-%m-%d %H:%M:%S}Z"
    assert repr(receipt) == f"<Receipt [memory] version=1 {when}>"
    assert repr(again) == f"<Receipt [memory, applied before] version=1 {when}>"
    assert repr(commit) == f"<Commit [data] version=1 {when} by ann: e0, e1, e2, e3 and 2 more>"
    assert repr(view).startswith("<View [active] s version=2 ") and repr(view).endswith("Z team=ops>")
    assert repr(info).startswith("<Info [active] s version=2 ") and repr(info).endswith("Z team=ops>")


def test_what_users_annotate_is_exported() -> None:
    """The types of what `open` and `edit` return, of a policy and of an upcaster have public names."""
    store = perdure.sync.open("memory:")
    assert isinstance(perdure.open("memory:"), perdure.Opening)
    assert isinstance(store.asynchronous.edit("s"), perdure.Edit)
    store.close()
    assert {"Opening", "Edit", "OnConflict", "Upcaster"} <= {*perdure.__all__}
