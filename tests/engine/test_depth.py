"""Depth of any kind, of the caller's stack or of a chain of forks, is no damage: it works, or it is told from damage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import perdure
import perdure.sync
from perdure import op


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


@pytest.mark.slow("1,200 forks")
def test_a_chain_of_1200_forks(tmp_path: Path) -> None:
    """The same for 1,200 forks, under Python's usual limit."""
    url = f"sqlite:///{tmp_path}/forks.db"
    chain(url, 1_200)
    check_chain(url, 1_200)
