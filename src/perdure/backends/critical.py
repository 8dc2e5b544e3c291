"""A few steps in memory for one thread at a time, which an interrupt between any two bytecodes cannot leave locked.

`with threading.Lock()` can: Ctrl-C after the last step and before the release, or a lock taken before its `try`. Here everyone says who
they are before they take the lock and until they have released it. So whoever finds it taken can look whether anyone who may hold it
still runs. If nobody does, its holder was interrupted and the section is taken over.
"""

from __future__ import annotations

import sys
from threading import Lock, get_ident
from types import FrameType, TracebackType

from perdure.errors import Busy

LOOK_EVERY = 0.05
"""Seconds between two looks at those who may hold a section."""
LOOKS_MAX = 20
"""Looks after which those who run must all be waiting, as I am: then one of them goes ahead."""


class CriticalSection:
    """`with section:` around steps that never wait and never call what is not ours. Steps should be such that each leaves sound data."""

    __slots__ = ("_lock", "_present")

    def __init__(self) -> None:
        self._lock = Lock()
        self._present: dict[int, FrameType] = {}
        """By thread, the frame that holds the section or is about to."""

    def __enter__(self) -> None:
        thread = get_ident()
        earlier = self._present.get(thread)
        self._present[thread] = sys._getframe(1)
        if not self._lock.acquire(False):
            self._wait(thread, earlier)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()
        self._present.pop(get_ident(), None)

    def _wait(self, thread: int, earlier: FrameType | None) -> None:
        """Take the lock once it is free, or in place of a holder that is gone. Raises `Busy` inside the section itself."""
        if earlier is not None and is_running(thread, earlier):
            self._present[thread] = earlier
            raise Busy("A signal handler or a finaliser called in the middle of another call; it must call later.")
        looks, patience = 0, 0.0
        while not self._lock.acquire(timeout=patience):
            present = list(self._present.items())
            running = [each for each, frame in present if is_running(each, frame)]
            gone = earlier is not None or len(running) < len(present)
            if (gone and running == [thread]) or (looks >= LOOKS_MAX and thread == min(running)):
                for each, _ in present:
                    if each not in running:
                        self._present.pop(each, None)
                return
            looks, patience = looks + 1, LOOK_EVERY


def is_running(thread: int, frame: FrameType) -> bool:
    """Whether this frame is on the stack of its thread."""
    current = sys._current_frames().get(thread)
    while current is not None:
        if current is frame:
            return True
        current = current.f_back
    return False
