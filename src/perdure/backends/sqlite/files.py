"""Whether the files that are open are still those of their names: what is written to a file that was removed or replaced is lost."""

from __future__ import annotations

import os
from pathlib import Path

from perdure.backends.sqlite.schema import Options
from perdure.errors import Error, Unavailable

Identity = tuple[int, int] | None
"""Device and number of a file; `None` where there is none."""


class OpenFiles:
    """The database's file and its write-ahead log, as they were when a connection was opened. Of another VFS nothing is known."""

    def __init__(self, options: Options) -> None:
        self._path, self._place = "" if options.vfs else options.path, options.place
        self.database = identity(self._path)
        self._log_path = f"{Path(self._path).resolve()}-wal"  # SQLite follows links before it names its log.
        self._log: Identity = None

    def check(self, failing: type[Error] = Unavailable) -> None:
        """Raise `failing` unless both are still there. The log counts from when it is first seen: it stays while a connection is open."""
        if not self._path:
            return
        if identity(self._path) != self.database:
            raise failing(gone(self._place))
        log = identity(self._log_path)
        if self._log is None:
            self._log = log
        elif log != self._log:
            raise failing(gone(f"{self._place}-wal"))


def identity(path: str) -> Identity:
    """What file has this name now."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more than the call, and this comes before and after each transaction
    except OSError:
        return None
    return found.st_dev, found.st_ino


def gone(place: str) -> str:
    """What to say of a file that is another one now."""
    return (
        f"The file {place} was removed, moved or replaced while the store was open: what this store holds open has no name any more."
        " Put it back, or close the store and open it again."
    )
