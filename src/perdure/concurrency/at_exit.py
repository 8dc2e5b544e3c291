"""What ends before the interpreter does where nobody has closed it: threads of other languages, which may call Python at any time.

It ends last. `atexit` calls first what was registered last, and this module is loaded with the package: so what a program has registered
since then finds its stores as they were.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol


class Ends(Protocol):
    """What ends before the interpreter does."""

    def end_at_exit(self) -> None:
        """End, and return when that is done, or at its own time limit. Called in the main thread."""


_ENDING: weakref.WeakKeyDictionary[Ends, int] = weakref.WeakKeyDictionary()
"""With the process that made each: a forked child has none of its threads."""


def ends_at_exit(what: Ends) -> None:
    """Have it end before the interpreter does, if it is still there."""
    _ENDING[what] = os.getpid()


@atexit.register
def _end_all() -> None:
    for each, pid in list(_ENDING.items()):
        if pid == os.getpid():
            each.end_at_exit()
