"""A spool's file: one writing thread with group commit, one reading thread. Several processes may share the file.

Condition   steps of `entries` run inside a transaction (BEGIN IMMEDIATE), which no other process can be in
Durability  what has to survive a power loss is synced before it is acknowledged; marks that something was shipped are not, since an entry
            that is shipped again has the same key
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import apsw

from perdure.backends.sqlite.files import OpenFiles
from perdure.backends.sqlite.schema import Options, connect, errors, parse_url, settled
from perdure.concurrency.replies import Reply, set_all
from perdure.concurrency.workers import WorkerPool
from perdure.engine.spool.schema import prepare
from perdure.errors import Unknown

T = TypeVar("T")

BATCH_MAX = 512
"""Most steps in one transaction."""


class _Step(Generic[T]):
    """A step that waits for its transaction, and the reply to the caller who waits for it."""

    __slots__ = ("reply", "synced", "work")

    def __init__(self, work: Callable[[apsw.Connection], T], *, synced: bool) -> None:
        self.work, self.synced = work, synced
        self.reply: Reply[T] = Reply()


class _Writer:
    """The writing connection, used by one thread only."""

    def __init__(self, options: Options) -> None:
        self.place = options.place
        self.connection = connect(options, writing=True, create=False)
        self._files = OpenFiles(options)
        self._synced = True

    def write(self, steps: list[_Step[Any]]) -> list[Any]:
        """All steps in one transaction; what a step raised is its result, and it has written nothing.

        Raises `Unavailable` when nothing was written, `Unknown` when the commit itself failed.
        """
        with errors(self.place):
            self._files.check()
            self._set_synced(any(step.synced for step in steps))
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                results = [self._one(step) for step in steps]
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            self._commit()
            self._files.check(Unknown)
        return results

    def _one(self, step: _Step[Any]) -> Any:
        try:
            return step.work(self.connection)
        except apsw.Error:
            raise
        except Exception as error:  # noqa: BLE001 - the result of this step alone
            return error

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except apsw.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if isinstance(error, apsw.BusyError):
                raise
            raise Unknown(f"SQLite failed while it committed to {self.place}: {type(error).__name__}: {error}.") from error

    def _set_synced(self, synced: bool) -> None:
        if synced is not self._synced:
            self.connection.pragma("synchronous", "full" if synced else "normal")
            self._synced = synced


class SpoolFile:
    """The file behind a spool. Safe from any thread and loop."""

    def __init__(self, url: str) -> None:
        """Raises `Invalid` for what is no `sqlite:///` URL. Opens nothing."""
        self.options = settled(parse_url(url))
        self._queued: deque[_Step[Any]] = deque()
        self._writing = WorkerPool("perdure-spool-writer", 1, lambda: _Writer(self.options), lambda writer: writer.connection.close())
        self._reading = WorkerPool("perdure-spool-reader", 1, self._acquire_reader, lambda connection: connection.close())

    @property
    def place(self) -> str:
        """The path as messages show it."""
        return self.options.place

    def _acquire_reader(self) -> apsw.Connection:
        return connect(self.options, writing=False, create=False)

    async def open(self, store_id: str | None, *, create: bool) -> str:
        """Check the file, or make it; the id of the store that it belongs to. See `schema.prepare`."""

        def prepared(_: None) -> str:
            connection = connect(self.options, writing=True, create=create)
            try:
                return prepare(connection, self.options, store_id, create=create)
            finally:
                connection.close()

        opening = WorkerPool[None]("perdure-spool-open", 1, lambda: None, lambda _: None)
        try:
            return await opening.call(prepared)
        finally:
            opening.end()

    async def write(self, work: Callable[[apsw.Connection], T], *, synced: bool = True) -> T:
        """Run a step in a transaction, with those of other callers. Cancelled, it was run as a whole or not at all."""
        step = _Step(work, synced=synced)
        try:
            self._queued.append(step)
            self._writing.post(self._drain, fail=step.reply.fail)
            result = await step.reply
        except BaseException:
            with suppress(ValueError, IndexError):
                self._queued.remove(step)
            raise
        if isinstance(result, Exception):
            raise result
        return result

    def _drain(self, writer: _Writer) -> None:
        steps: list[_Step[Any]] = []
        while self._queued and len(steps) < BATCH_MAX:
            steps.append(self._queued.popleft())
        if not steps:
            return
        try:
            results = writer.write(steps)
        except BaseException as error:  # noqa: BLE001 - handed to every caller of the batch
            for step in steps:
                step.reply.fail(error)
            return
        set_all(zip([step.reply for step in steps], results, strict=True))

    async def read(self, function: Callable[[apsw.Connection], T]) -> T:
        """Run a function that reads."""

        def guarded(connection: apsw.Connection) -> T:
            with errors(self.place):
                return function(connection)

        return await self._reading.call(guarded)

    def end(self) -> None:
        """Finish what was submitted, and end both threads. Blocks; see `WorkerPool.close`."""
        self._writing.close()
        self._reading.close()


class ShipperLock:
    """The right to ship: SQLite's exclusive lock on a file beside the spool, which is the system's lock and ends with the process.

    A child that was forked off does not inherit it, and a second store of the same process does not get it.
    """

    def __init__(self, path: str) -> None:
        self.path = f"{path}-shipper"
        self._connection: apsw.Connection | None = None

    def take(self) -> bool:
        """Whether it is held now. Raises `Unavailable`, `Invalid` where the file cannot be made."""
        with errors(self.path):
            connection = apsw.Connection(self.path)
            try:
                connection.set_busy_timeout(0)
                connection.pragma("journal_mode", "memory")  # Nothing is ever written to it.
                connection.execute("BEGIN EXCLUSIVE")
            except apsw.BusyError:
                connection.close()
                return False
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        return True

    def release(self) -> None:
        """Let another one ship."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
