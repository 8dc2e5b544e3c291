"""Notifies of what any connection writes to the file: SQLite's `data_version` is looked at, and the log from where it last ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import apsw

from perdure.backends.spi import Hear
from perdure.backends.sqlite.schema import errors
from perdure.concurrency.workers import WorkerPool
from perdure.model.ids import SessionKey

LOOK_EVERY = 0.02
"""Seconds between two looks; a look that finds nothing takes microseconds."""

_NEW_RECORDS = "SELECT tenant, session.id, max(version), max(pos) FROM log JOIN session USING (n) WHERE pos > ? GROUP BY n"


class Listener:
    """Notifies of new records from a thread and a connection of its own, from `listen` until `close`."""

    def __init__(self, path: str, acquire: Callable[[], apsw.Connection]) -> None:
        self._path = path
        self._working = WorkerPool("perdure-sqlite-listener", 1, acquire, lambda connection: connection.close())
        self._ended = threading.Event()
        self.hears = False

    async def listen(self, hear: Hear) -> None:
        """See `spi.Notifying.listen`."""
        last = await self._working.call(self._start)
        self._working.post(lambda connection: self._run(connection, hear, last), fail=lambda _: hear(None, 0))

    def _start(self, connection: apsw.Connection) -> int:
        with errors(self._path):
            last = connection.execute("SELECT max(pos) FROM log").get or 0
        self.hears = True
        return last

    def _run(self, connection: apsw.Connection, hear: Hear, last: int) -> None:
        """Look until `close`. A file that can no longer be read ends it: watchers poll then, and meet the error."""
        seen: object = None
        try:
            with errors(self._path):
                while not self._ended.wait(LOOK_EVERY):
                    version = connection.execute("PRAGMA data_version").get
                    if version == seen:
                        continue
                    seen = version
                    rows: list[tuple[Any, ...]] = connection.execute(_NEW_RECORDS, (last,)).fetchall()
                    for tenant, id, newest, position in rows:
                        last = max(last, position)
                        hear(SessionKey(tenant, id), newest)
        finally:
            self.hears = False

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._working.close()
