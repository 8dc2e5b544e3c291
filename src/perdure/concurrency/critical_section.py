"""A few steps in memory for one thread at a time, which an interrupt between any two bytecodes cannot leave locked.

`with threading.Lock()` can: Ctrl-C after the last step and before the release, or a lock taken before its `try`. Here everyone says who
they are before they take the lock and until they have released it. So a thread that finds it taken can look whether anyone who may hold it
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

    __slots__ = ("_entries", "_lock", "_present")

    def __init__(self) -> None:
        self._lock = Lock()
        self._present: dict[int, FrameType] = {}
        """By thread, the frame that holds the section or is about to."""
        self._entries = 0
        """How often it was entered; written by the holder."""

    def __enter__(self) -> None:
        thread = get_ident()
        earlier = self._present.get(thread)
        self._present[thread] = sys._getframe(1)
        if not self._lock.acquire(False):
            self._wait(thread, earlier)
        self._entries += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # Taken over in a child: a fork copied it while it was being taken, and it cannot be released.
            self._lock = Lock()
        self._present.pop(get_ident(), None)

    def _wait(self, thread: int, earlier: FrameType | None) -> None:
        """Take the lock once it is free, or in place of a holder that is gone. Raises `Busy` inside the section itself.

        It is gone when nobody else who may hold it runs, twice, with nobody having entered in between: a holder that runs either is seen
        the second time or has counted itself.
        """
        if earlier is not None and is_running(thread, earlier):
            self._present[thread] = earlier
            raise Busy("A signal handler or a finaliser called in the middle of another call; it must call later.")
        looks, patience, seen = 0, 0.0, -1
        alone = False
        while not self._lock.acquire(timeout=patience):
            entries, was_alone = self._entries, alone
            running = self._running()
            alone = running == [thread]
            looks = looks + 1 if entries == seen else 0
            if entries == seen and ((alone and was_alone) or (looks >= LOOKS_MAX and thread == min(running))):
                return
            seen, patience = entries, 0.0 if alone else LOOK_EVERY

    def _running(self) -> list[int]:
        """The threads of those who hold the section, are about to, or have just left it."""
        return [each for each, frame in list(self._present.items()) if is_running(each, frame) or self._present.get(each) is not frame]


def is_running(thread: int, frame: FrameType) -> bool:
    """Whether this frame is on the stack of its thread."""
    current = sys._current_frames().get(thread)
    while current is not None:
        if current is frame:
            return True
        current = current.f_back
    return False
