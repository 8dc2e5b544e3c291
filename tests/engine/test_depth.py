"""Depth of any kind, of the caller's stack or of a chain of forks, is no damage: it works, or it is told from damage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import op
from perdure.codec.codec import Codec
from perdure.errors import Corrupt, Invalid


@contextmanager
def room(frames: int) -> Iterator[None]:
    """So many nested calls are left for the block."""
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(depth + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def chain(url: str, forks: int) -> None:
    """Session f0, its fork f1, the fork of that …, each with a commit of its own."""
    with perdure.sync.open(url) as store:
        version = store.append("f0", perdure.Event("x", None, (op.set("/n", 0),))).version
        for number in range(forks):
            name = f"f{number + 1}"
            store.fork(f"f{number}", at=version, id=name)
            version = store.append(name, perdure.Event("x", None, (op.add("/n", 1),))).version


def check_chain(url: str, forks: int) -> None:
    last = f"f{forks}"
    with perdure.sync.open(url) as store:
        view = store.read(last)
        assert view.state == {"n": forks}
        assert [commit.version for commit in store.history(last)] == list(range(1, view.version + 1))
        assert [commit.version for commit in store.history(last, newest_first=True)] == list(range(view.version, 0, -1))
        assert store.read(last, at=1).state == {"n": 0}
        assert store.verify(last).commits == view.version
        with store.edit(last) as draft:
            draft.state["n"] = 1
        assert store.merge(last, into=f"f{forks - 1}") is not None


def test_a_chain_of_forks_is_read_without_going_deeper(tmp_path: Path) -> None:
    """Reading, listing both ways, proving, editing and merging the last of 150 forks needs no more stack than the first of them."""
    url = f"sqlite:///{tmp_path}/forks.db"
    chain(url, 150)
    with room(250):
        check_chain(url, 150)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"in": [value]}
    return value


def read_cold(url: str) -> Any:
    with perdure.sync.open(url) as store:
        return store.read("deep").state


def change(url: str) -> Any:
    with perdure.sync.open(url) as store, store.edit("deep") as draft:
        draft.state["l"].reverse()
        draft.state["l"].append(nested(45))


def append(url: str) -> Any:
    with perdure.sync.open(url) as store:
        store.append("deep", perdure.Event("x", nested(45)))


@pytest.mark.parametrize("act", [read_cold, change, append])
def test_a_caller_near_the_recursion_limit_is_no_damage(act: Callable[[str], Any], tmp_path: Path) -> None:
    """With ever less room on the stack a call works, or says that there is too little room; the session stays sound and goes on."""
    url = f"sqlite:///{tmp_path}/deep.db"
    with perdure.sync.open(url) as store, store.edit("deep") as draft:
        draft.state.update({"deep": nested(45), "l": [3, 1, 2]})
    act(url)  # What is imported at the first call needs much room.
    worked, refused = 0, list[str]()
    for frames in range(800, 60, -40):
        with room(frames):
            try:
                act(url)
                worked += 1
            except Invalid as error:
                refused.append(str(error))
    assert worked
    assert refused
    assert all("stack is nearly full" in said for said in refused)
    with perdure.sync.open(url) as store:
        store.verify("deep")
        assert store.read("deep").state["deep"] == nested(45)


def test_bytes_that_nest_too_deep_are_damage_all_the_same() -> None:
    """Events nested beyond every stack are `Corrupt`, also for a caller with little room."""
    body = bytes((0xD5, 1, 1, 0)) + b'[["x",' + b"[" * 100_000 + b"]" * 100_000 + b",[]]]"
    for frames in (900, 120):
        with room(frames), pytest.raises(Corrupt):
            Codec().decode_events(body)


@pytest.mark.slow("1,200 forks")
def test_a_chain_of_1200_forks(tmp_path: Path) -> None:
    """The same for 1,200 forks, under Python's usual limit."""
    url = f"sqlite:///{tmp_path}/forks.db"
    chain(url, 1_200)
    check_chain(url, 1_200)
