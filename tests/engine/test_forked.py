"""A store in a child that was forked off: every way into it is `Closed`, and none waits for threads that the child does not have."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import perdure
from perdure import Event, op, sync

ONE = Event("one", None, (op.add("/n", 1),))
WAIT = 60
"""Seconds after which the child is killed: it hung."""


@pytest.fixture(params=["memory", "sqlite", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sync.Store]:
    """A store whose locks and threads are busy all the time."""
    url = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/a.db", "file": f"file://{tmp_path}/files"}[request.param]
    stop = threading.Event()
    with sync.open(url) as store:
        for _ in range(3):
            store.append("s", ONE)

        def work(number: int) -> None:
            while not stop.is_set():
                store.append(f"busy-{number}", ONE)
                store.read(f"busy-{number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        yield store
        stop.set()
        for thread in threads:
            thread.join()


def in_child(work: Callable[[], object]) -> str:
    """What became of a call in a child that was forked off here: `returned`, or the code of its error."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(WAIT)
        answer = "returned"
        try:
            work()
        except perdure.Error as error:
            answer = error.code
        except BaseException as error:  # noqa: BLE001 - the parent is to see it
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return answer if status == 0 else f"killed by {status}: it hung"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Newer Pythons warn of a fork beside threads, which is what this is about.
def test_a_child_meets_closed_wherever_it_goes_on(store: sync.Store) -> None:
    """Calls, an edit that is left, a history, a listing and a watch that are gone on with, and `close`: each is `Closed`, at once."""
    edit = store.edit("s")
    edit.__enter__().add("/n", 1)
    history, listing, watch = store.history("s"), store.list(), store.watch("s")
    for iterator in (history, listing, watch):
        next(iterator)
    ways: dict[str, Callable[[], object]] = {
        "append": lambda: store.append("s", ONE),
        "read": lambda: store.read("s"),
        "edit": lambda: edit.__exit__(None, None, None),
        "history": lambda: next(history),
        "listing": lambda: next(listing),
        "watch": lambda: next(watch),
        "close": store.close,
        "leave": lambda: store.__exit__(None, None, None),
        "iterators": lambda: [iterator.close() for iterator in (history, listing, watch)],  # type: ignore[attr-defined]
    }
    for name, way in ways.items():
        expected = "returned" if name == "iterators" else "closed"
        assert [in_child(way) for _ in range(5)] == [expected] * 5, name
    edit.__exit__(None, None, None)
    assert store.read("s").state == {"n": 4}
