"""A folder as a bucket: a file is written beside its place, synced, and linked to its name, which fails if the name is taken.

Durable: the file, the folder that names it and every folder made on the way are synced before a call returns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from perdure.backends.objects.settings import Settings
from perdure.concurrency.workers import WorkerPool
from perdure.errors import Corrupt, Invalid, Unavailable, Unknown

T = TypeVar("T")

_PARTIAL = ".partial-"
"""Begins the name of a file that is being written."""
_LOCK = ".lock"
THREADS = 8
"""Most files at once."""
ABANDONED = 3600.0
"""Seconds after which a file that was never finished is removed: its writer is dead."""


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[None]:
    """The operating system's errors, of calls that changed nothing."""
    try:
        yield
    except PermissionError as error:
        raise Invalid(f"{path} cannot be used ({error.strerror}): check its rights.") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise Invalid(f"{path} is not what its name says ({error.strerror}): choose another folder.") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            raise Invalid(f"{path} cannot be used ({error.strerror}): choose another path.") from error
        if error.errno == errno.EROFS:
            raise Invalid(f"{path} lies on a file system that is read-only.") from error
        raise Unavailable(f"{path} cannot be used now: {error.strerror}.") from error


class Folder:
    """A `Bucket` below a folder, which is made when the first object is. Several processes of one machine may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._named: set[Path] = set()
        """Folders that are durably there."""
        self._changing = threading.Lock()
        self._working = WorkerPool[None]("perdure-files", THREADS, lambda: None, lambda _: None)
        self.place = f"file://{root}"
        self.server = f"a folder, {sys.platform}, Python {sys.version_info[0]}.{sys.version_info[1]}"

    async def _off(self, work: Callable[[], T]) -> T:
        return await self._working.call(lambda _: work())

    async def create(self, name: str, data: bytes) -> bool:
        """See `Bucket`."""
        return await self._off(lambda: self._write(name, data, replace=False))

    async def put(self, name: str, data: bytes) -> None:
        """See `Bucket`."""
        await self._off(lambda: self._write(name, data, replace=True))

    def _write(self, name: str, data: bytes, *, replace: bool) -> bool:
        path = self._root / name
        partial = path.parent / f"{_PARTIAL}{uuid4().hex}"
        with mapped(path):
            self._make(path.parent)
            try:
                _write_synced(partial, data)
                if replace:
                    partial.replace(path)
                made = replace or _linked(partial, path)
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
        try:
            _sync(path.parent)
        except OSError as error:
            raise Unknown(f"The folder of {path} could not be synced: {error.strerror}.") from error
        return made  # A name that another process made is durable now too.

    def _make(self, folder: Path) -> None:
        """A folder and those above it, each durably named by the one above, no matter which process made it."""
        if folder in self._named or folder == folder.parent:
            return
        if not folder.is_dir() or folder.is_relative_to(self._root):
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync(folder.parent)
        self._named.add(folder)

    async def change(self, name: str, change: Callable[[bytes], bytes]) -> bytes:
        """See `Bucket`: under a lock that the processes of this machine share."""

        def work() -> bytes:
            path = self._root / name
            with mapped(path), self._changing, _locked(self._root / _LOCK):
                if not path.exists():
                    raise Corrupt(f"The file {path} is gone: restore it from a backup.")
                old = path.read_bytes()
                new = change(old)
                if new != old:
                    self._write(name, new, replace=True)
                return new

        return await self._off(work)

    async def get(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """See `Bucket`."""

        def read() -> bytes | None:
            path = self._root / name
            with mapped(path):
                try:
                    with path.open("rb") as file:
                        file.seek(start)
                        data = file.read() if end is None else file.read(max(0, end - start))
                except FileNotFoundError:
                    return None
                _sync(path.parent)  # Who made the name may have died before it was synced, and what is read is acknowledged.
                return data

        return await self._off(read)

    async def size(self, name: str) -> int | None:
        """See `Bucket`."""

        def measure() -> int | None:
            with mapped(self._root / name):
                try:
                    return (self._root / name).stat().st_size
                except FileNotFoundError:
                    return None

        return await self._off(measure)

    async def delete(self, name: str) -> None:
        """See `Bucket`."""

        def remove() -> None:
            path = self._root / name
            with mapped(path), contextlib.suppress(FileNotFoundError):
                path.unlink(missing_ok=True)
                _sync(path.parent)

        await self._off(remove)

    async def walk(self, folder: str, after: str, limit: int) -> Sequence[str]:
        """See `Bucket`."""

        def names() -> Sequence[str]:
            with mapped(self._root / folder):
                return list(islice(_below(self._root, f"{folder}/" if folder else "", after), limit))

        return await self._off(names)

    async def list(self, folder: str, after: str = "") -> Sequence[str]:
        """See `Bucket`."""

        def names() -> Sequence[str]:
            with mapped(self._root / folder):
                try:
                    found = [path.name for path in (self._root / folder).iterdir()]
                except FileNotFoundError:
                    return []
                for name in found:
                    _remove_abandoned(self._root / folder / name)
            return sorted(name for name in found if name > after and not name.startswith("."))

        return await self._off(names)

    async def settings(self) -> Settings:
        """See `Bucket`: a folder does nothing by itself."""
        return Settings((), (), "")

    async def close(self) -> None:
        """See `Bucket`."""
        self._working.close()


def _linked(partial: Path, path: Path) -> bool:
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    return True


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file's lock against other processes; where the system has none of this kind (Windows), one process at a time is asked for."""
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _below(root: Path, folder: str, after: str) -> Iterator[str]:
    """The names of files below a folder that sort after `after`, in the order that whole names have."""
    try:
        found = [(entry.name + "/" * entry.is_dir(follow_symlinks=False)) for entry in os.scandir(root / folder)]
    except FileNotFoundError:
        return
    for name in sorted(found):
        path = folder + name
        if name.startswith("."):
            _remove_abandoned(root / path)
        elif not name.endswith("/"):
            if path > after:
                yield path
        elif path > after or after.startswith(path):
            yield from _below(root, path, after)


def _remove_abandoned(path: Path) -> None:
    if not path.name.startswith(_PARTIAL):
        return
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > ABANDONED:
            path.unlink()


def _sync(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows has no handle on a folder; its file systems log names themselves.
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
