"""A head is compared with the record that made it: they are stored apart, the record repeats the head, and a hash covers it.

An engine that sees both in one request compares them itself: `ProvingDriver`, `HeadMismatch.proven`. For the others the newest
record is read where a head that nobody has compared would decide: it refuses an append, it is the first that this process meets of a
session, it answers for an idempotency key, or a snapshot stands at it. A head that another process made since is taken as it comes:
the next reader of what came in between compares it.
"""

from __future__ import annotations

from collections.abc import Callable

from perdure.backends.common.refusals import head_differs
from perdure.backends.remote.driver import Driver, PartitionedDriver, ProvingDriver
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Head, Query, Record, Row
from perdure.errors import Corrupt, NotFound, Unavailable
from perdure.model.commit import Kind
from perdure.model.ids import SessionKey

LOOKS = 8
"""How often a head is compared that others change meanwhile."""
KEYS_AT_ONCE = 32
"""Idempotency keys that `check_copies` looks up at once."""
PAGE = 256

Check = Callable[[SessionKey, Record], bytes]
"""Raises `Corrupt` unless a record is as it was written; the hash that it follows."""


class HeadProof:
    """The comparison for one driver, on its loop."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.by_driver = isinstance(driver, ProvingDriver) and driver.proves_heads
        """Whether the driver has compared every head that it gives."""
        self.check: Check | None = None

    async def prove(self, session: SessionKey, head: Head | None) -> Head | None:
        """The head, once its newest record says the same; a newer one, where another was written meanwhile. Raises `Corrupt`."""
        for _ in range(LOOKS):
            if head is None:
                return None
            found = await self._driver.read(session, head.version - 1, head.version + 1, 1, reverse=False)
            if found and found[0].head == head:
                self._check_record(session, found[0])
                return head
            (newest,) = await self._driver.heads([session])
            if newest == head:
                raise head_differs(session)
            head = newest
        raise Unavailable(f"Session {session.id!r} is written to all the time: its head could not be compared with its newest commit.")

    def _check_record(self, session: SessionKey, record: Record) -> None:
        if self.check is not None and not record.is_stub:
            self.check(session, record)

    async def check_copies(self, session: SessionKey) -> None:
        """Compare the head, the idempotency keys and the listings of a session with its commits. Raises `Corrupt`, `NotFound`."""
        loaded = await self._driver.load(session, None)
        if loaded is None:
            raise NotFound(f"There is no session {session.id!r}.", session=session.id)
        await self.prove(session, loaded.row.head)
        after, oldest, whole = 0, None, True
        while records := await self._driver.read(session, after, None, PAGE, reverse=False):
            after, oldest = records[-1].head.version, oldest or records[0]
            whole = whole and all(record.kind != Kind.anchor and not record.is_stub for record in records)
            keyed = [record for record in records if record.key is not None and not record.is_stub]
            for start in range(0, len(keyed), KEYS_AT_ONCE):
                await gather_all(*[self._check_key(session, record) for record in keyed[start : start + KEYS_AT_ONCE]])
        if oldest is not None and isinstance(self._driver, PartitionedDriver):
            await self._driver.check_layout(session, oldest, whole=whole)
        await self._check_listed(loaded.row)

    async def _check_key(self, session: SessionKey, record: Record) -> None:
        known = await self._driver.find_key(session, str(record.key))
        if known is None or (known.version, known.request) != (record.head.version, record.request):
            raise Corrupt(f"The keys of session {session.id!r} are not those of its commits.", session=session.id)

    async def _check_listed(self, row: Row) -> None:
        """Whether the session is listed, by its id and tags and by the time that it is due, as what it is."""
        session, status = row.session, row.head.status
        queries = [Query(session.tenant, session.id, status=status), Query(session.tenant, session.id, row.tags, status)]
        if row.due_at is not None and "due" in self._driver.capabilities.scan_orders:
            queries.append(Query(session.tenant, session.id, status=status, order="due", due_before=row.due_at + 1))
        for query in queries:
            if not await self._lists(query, row):
                loaded = await self._driver.load(session, None)
                if loaded is not None and loaded.row == row:
                    raise Corrupt(f"Session {session.id!r} is not listed as what it is.", session=session.id)

    async def _lists(self, query: Query, row: Row) -> bool:
        cursor = None
        while True:
            page = await self._driver.scan(query, cursor, PAGE)
            for listed in page.items:
                if listed.session == row.session:
                    return listed == row
            cursor = page.cursor
            if cursor is None:
                return False
