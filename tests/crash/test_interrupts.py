"""Ctrl-C at any bytecode of a call: afterwards the session and the store work, at once, and the commit is there once or not at all."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perdure import Event, op, sync
from tests.servers.process import Server
from tests.servers.valkey import Valkey
from tests.support.crash.interrupts import interrupted, leftovers_collected, length

WAIT = 30.0
"""Seconds after which a call counts as wedged."""
ONE = Event("one", None, (op.add("/n", 1),))
CALLS = ("append", "events", "edit", "update", "read")
__all__ = ["leftovers_collected"]
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("leftovers_collected")]


def _call(store: sync.Store, name: str) -> Callable[[], object]:
    def edit() -> None:
        with store.edit("s") as draft:
            draft.add("/n", 1)

    return {
        "append": lambda: store.append("s", ONE),
        "events": lambda: store.append("s", Event("one")),
        "edit": edit,
        "update": lambda: store.update("s", lambda draft: draft.add("/n", 1)),
        "read": lambda: store.read("s"),
    }[name]


def _from_another_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive(), "it waits for ever"


def _interrupt(url: str, name: str, count: int) -> None:
    """Interrupt a call so many times, at places all over it; look after each at what is there, from this thread and from others."""
    store = sync.open(url)
    call = _call(store, name)
    for _ in range(3):
        store.append("s", ONE)
        call()
    end, chance = length(call), random.Random(1)
    places = itertools.cycle(range(1, end + 1)) if count >= end else iter(lambda: chance.randint(1, end), 0)
    hits = 0
    for number, at in zip(range(count), places, strict=False):
        before = store.read("s")
        hits += interrupted(call, at)
        if number % 3:
            store.append("s", ONE)
        else:
            _from_another_thread(lambda: store.append("s", ONE))
        after = store.read("s")
        assert after.version - before.version in (1, 2), at
        types = [event.type for commit in store.history("s", after=before.version) for event in commit.events]
        assert len(types) == after.version - before.version, at
        if name != "events":
            assert after.state["n"] - before.state["n"] == after.version - before.version, at
    assert hits > count // 2
    store.verify("s")
    _from_another_thread(store.close)


@pytest.fixture(params=["memory", "sqlite", "file", "valkey"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store on each kind of engine: in the caller's thread, behind a thread, behind a loop, behind a server."""
    if request.param == "valkey":
        servers: Callable[[type[Server]], Any] = request.getfixturevalue("servers")
        yield f"{servers(Valkey).url}?namespace=t{uuid4().hex[:8]}"
    else:
        yield {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/a.db", "file": f"file://{tmp_path}/files"}[request.param]


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_leaves_nothing_locked(place: str, name: str) -> None:
    """Some hundred interrupts, spread over the bytecodes of each call."""
    _interrupt(place, name, 60)


@pytest.mark.slow("25,000 interrupts on each engine")
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_anywhere_leaves_nothing_locked(place: str, name: str) -> None:
    """Interrupts at every bytecode of each call, several times over: 10^5 in all."""
    _interrupt(place, name, 5_000)
