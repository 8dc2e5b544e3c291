"""Sections that one thread at a time is in."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from perdure.concurrency.critical_section import CriticalSection
from perdure.errors import Busy
from tests.support.crash.interrupts import interrupted, length


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager")
def test_one_thread_at_a_time_beside_what_interrupts_left() -> None:
    """However many threads hurry, and whatever an interrupted one left behind, never are two inside."""
    section, inside, met, count = CriticalSection(), list[int](), list[int](), 0

    def step() -> None:
        nonlocal count
        with section:
            inside.append(1)
            met.append(len(inside))
            count += 1
            inside.pop()

    def work() -> None:
        for _ in range(3_000):
            step()

    def enter() -> None:
        with section:
            pass

    for at in range(1, length(enter) + 1):
        assert interrupted(enter, at)
        step()
    for at in range(1, length(enter) + 1, 3):
        assert interrupted(enter, at)
        threads = [threading.Thread(target=work) for _ in range(3)] if at % 4 == 0 else [threading.Thread(target=step) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(met) == {1}
    assert count == len(met)


def test_a_call_from_inside_is_busy() -> None:
    """A signal handler or a finaliser that comes back into the section is told so, and the section goes on."""
    section = CriticalSection()
    with section, pytest.raises(Busy), section:
        pass
    with section:
        pass
