"""A disk that is watched, can refuse a call and can die: an apsw VFS over the system's own, with a journal of what was done.

What a power loss leaves of the journal is `disk_image`'s subject. The shared memory of the write-ahead log is no disk and passes by.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import apsw

Kind = Literal["create", "delete", "write", "truncate", "sync", "sync failed", "sync folder"]
CALLS = frozenset({"write", "truncate", "sync"})
"""What can be counted and refused."""
_SYNCS_FOLDER = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
"""The first sync of such a file, opened to be created, syncs its folder too; other files' folders are never synced by SQLite."""


class Entry(NamedTuple):
    """Something done to a file. `inode` tells a file from a later one of the same name; `offset` is a truncation's new size."""

    kind: Kind
    inode: int
    name: str
    offset: int = 0
    data: bytes = b""


class Fault(NamedTuple):
    """Refuse the call of this number (from 0, of `CALLS`), of these kinds only, with what `error` makes; once or from then on."""

    number: int
    error: Callable[[], apsw.Error]
    kinds: frozenset[str] = CALLS
    lasting: bool = False


def full() -> apsw.Error:
    """ENOSPC, as SQLite says it."""
    return apsw.FullError("injected: no space left on device")


def broken() -> apsw.Error:
    """EIO, as SQLite says it."""
    error = apsw.IOError("injected: input/output error")
    error.extendedresult = apsw.SQLITE_IOERR_WRITE
    return error


class Disk(apsw.VFS):
    """`with Disk("name") as disk`, then open databases with `vfs="name"`. Calls are journalled in the order in which they took effect.

    A refused call has no effect, but for a refused sync: what was pending may then be lost although later syncs succeed.
    """

    def __init__(self, name: str, fault: Fault | None = None) -> None:
        super().__init__(name, "")
        self.name = name
        self.journal: list[Entry] = []
        self.fault = fault
        self.calls: list[str] = []
        """The kinds of the calls so far, refused ones too."""
        self.refused = 0
        self.dead = False
        self._lock = threading.RLock()
        self._inodes: dict[str, int] = {}
        self._made = 0

    def __enter__(self) -> Self:
        self._hook = threading.excepthook
        threading.excepthook = self._thread_failed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        threading.excepthook = self._hook
        self.unregister()

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        # SQLite passes over a checkpoint that fails on close; apsw raises the exception of a VFS in Python all the same.
        if not isinstance(failure.exc_value, apsw.Error) or "injected" not in str(failure.exc_value):
            self._hook(failure)

    def excepthook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Where apsw cannot pass an exception on: ours is no news."""
        if not isinstance(error, apsw.Error):
            super().excepthook(kind, error, trace)

    def check_alive(self) -> None:
        if self.dead:
            raise broken()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - apsw's names
        if name is None:
            return apsw.VFSFile("", name, flags)
        path = Path(name if isinstance(name, str) else name.filename())
        with self._lock:
            self.check_alive()
            new = not path.exists()
            file = _File(self, name, flags, path.name)
            if new:
                self._made += 1
                self._inodes[path.name] = self._made
                self.journal.append(Entry("create", self._made, path.name))
            elif path.name not in self._inodes:
                raise AssertionError(f"{path.name} was there before the disk was watched")
            file.inode = self._inodes[path.name]
            return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        with self._lock:
            self.check_alive()
            super().xDelete(filename, syncdir)
            name = Path(filename).name
            self.journal.append(Entry("delete", self._inodes.pop(name), name))
            if syncdir:
                self.journal.append(Entry("sync folder", 0, ""))

    def do(self, entry: Entry, effect: Callable[[], None]) -> None:
        """Count a call, refuse it or let it take effect, and note it."""
        with self._lock:
            self.check_alive()
            number, fault = len(self.calls), self.fault
            self.calls.append(entry.kind)
            if fault is not None and (number == fault.number or (fault.lasting and number > fault.number)) and entry.kind in fault.kinds:
                self.refused += 1
                self.dead = fault.lasting
                if entry.kind == "sync" and not fault.lasting:
                    self.journal.append(entry._replace(kind="sync failed"))
                raise fault.error()
            effect()
            self.journal.append(entry)


class _File(apsw.VFSFile):
    """One open file of a `Disk`."""

    def __init__(self, disk: Disk, name: Any, flags: list[int], base: str) -> None:
        opened_with = flags[0]
        super().__init__("", name, flags)
        self._disk, self._name = disk, base
        self._folder_pending = bool(opened_with & apsw.SQLITE_OPEN_CREATE and opened_with & _SYNCS_FOLDER)
        self.inode = 0

    def excepthook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._disk.excepthook(kind, error, trace)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.check_alive()
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        data = bytes(data)
        self._disk.do(Entry("write", self.inode, self._name, offset, data), lambda: super(_File, self).xWrite(data, offset))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.do(Entry("truncate", self.inode, self._name, newsize), lambda: super(_File, self).xTruncate(newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        # The real sync is left out: this process ends in order, and the power fails in `disk_image` alone.
        self._disk.do(Entry("sync", self.inode, self._name), lambda: None)
        if self._folder_pending:
            self._folder_pending = False
            self._disk.journal.append(Entry("sync folder", 0, ""))
