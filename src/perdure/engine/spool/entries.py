"""The rows of a spool, and the steps on them; each runs inside a transaction of the caller.

queued   will be shipped, in the order of `n` in its session
failed   was refused by the store for good, and waits for `retry` or `drop`
parked   comes after a failed entry of its session and of its life
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import apsw
import msgspec

from perdure.errors import KeyReused
from perdure.model.ids import SessionKey, uuid_text
from perdure.model.record import Durability

OUTCOMES_KEPT = 10_000
"""The newest entries whose outcome stays in the spool after they were shipped or dropped. For older ones the store is asked."""

_SEAL = msgspec.msgpack.Encoder()
_OF_SESSION = "FROM entry WHERE state = {state} AND tenant = ?1 AND session = ?2"
_NEWEST_SEEN = f"SELECT seen {_OF_SESSION} ORDER BY n DESC LIMIT 1"
_BEFORE_ADD = (
    f"SELECT bytes, last, ({_NEWEST_SEEN.format(state=0)}), EXISTS (SELECT 1 {_OF_SESSION.format(state=1)}), "
    f"EXISTS (SELECT 1 {_OF_SESSION.format(state=2)}) FROM total"
)
"""What an entry needs to know of those before it, in one statement: most sessions have nothing that is parked or failed."""
_COLUMNS = "n, tenant, session, key, state, seen, at, actor, trace, request, body, seal, error, tombstone"


class State(IntEnum):
    """Where an entry stands. Numbers are stored: never reuse one."""

    queued = 0
    parked = 1
    failed = 2


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One write that waits in the spool."""

    n: int = 0
    target: SessionKey
    key: str
    state: State = State.queued
    seen: int | None
    """The newest version of the session that was known when it was enqueued, or first looked at; `None`: none yet."""
    at: int
    actor: str | None
    trace: str | None
    request: bytes
    body: bytes
    error: Failure | None = None
    tombstone: int | None = None
    """The tombstone of the life that it was meant for, where that life is over."""
    sound: bool = True
    """Whether it is what was written."""

    @property
    def seal(self) -> bytes:
        """A digest of what does not change of an entry, so that a damaged one is not shipped."""
        fixed = (*self.target, self.key, self.at, self.actor, self.trace, self.request, self.body)
        return hashlib.sha256(_SEAL.encode(fixed)).digest()[:16]


class Failure(msgspec.Struct, frozen=True):
    """Why an entry failed, as it is stored: the class of the error, its message, and the facts that JSON can say."""

    kind: str
    code: str
    detail: str
    facts: dict[str, Any] = {}


DAMAGED = Failure("Corrupt", "corrupt", "The entry is not what was written to the spool.")
"""What is said of an entry whose bytes were changed."""


class Shipped(msgspec.Struct, frozen=True):
    """A receipt as it is stored."""

    version: int
    id: str
    hash: str
    at: int
    durability: Durability
    duplicate: bool


class Outcome(msgspec.Struct, frozen=True):
    """What became of an entry that is gone: its receipt, or that it was dropped."""

    n: int
    request: bytes
    receipt: Shipped | None


class Count(msgspec.Struct, frozen=True):
    """What a spool holds."""

    entries: int
    bytes: int
    last: int
    parked: int
    failed: int
    oldest_at: int | None


def _entry(row: Sequence[Any]) -> Entry:
    n, tenant, session, key, state, seen, at, actor, trace, request, body, seal, error, tombstone = row
    entry = Entry(
        n=n,
        target=SessionKey(tenant, session),
        key=key,
        state=State(state),
        seen=seen,
        at=at,
        actor=actor,
        trace=trace,
        request=request,
        body=body,
        error=None if error is None else _failure(error),
        tombstone=tombstone,
    )
    try:
        sound = entry.seal == seal
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        sound = False
    return entry if sound else msgspec.structs.replace(entry, sound=False)


def _failure(stored: str) -> Failure:
    try:
        return msgspec.json.decode(stored, type=Failure)
    except (msgspec.DecodeError, TypeError):
        return DAMAGED


def count(connection: apsw.Connection) -> Count:
    """What the spool holds."""
    entries, size, last = connection.execute("SELECT entries, bytes, last FROM total").fetchone() or (0, 0, 0)
    held = dict(connection.execute("SELECT state, count(*) FROM entry WHERE state > 0 GROUP BY state"))
    oldest = connection.execute("SELECT at FROM entry ORDER BY n LIMIT 1").get
    return Count(entries, size, last, held.get(State.parked, 0), held.get(State.failed, 0), oldest)


def add(connection: apsw.Connection, entry: Entry, check_room: Callable[[int], None], *, new_key: bool = False) -> tuple[int, bool]:
    """Store an entry after all others; its number, and whether it was there already. Raises `KeyReused`, and what `check_room` raises
    for the bytes that the spool holds. `new_key`: its key was just made, so nobody has used it.

    It means the newest life that it or an earlier entry of its session knows of, and is parked where a failed one of that life waits.
    """
    target = entry.target
    held, last, *versions, parked, failed = connection.execute(_BEFORE_ADD, target).fetchone() or (0, 0, None, 0, 0)
    for state, there in ((State.parked, parked), (State.failed, failed)):
        if there:
            versions.append(connection.execute(_NEWEST_SEEN.format(state=int(state)), target).get)
    seen = max((version for version in (entry.seen, *versions) if version is not None), default=None)
    same = None if new_key else _same_key(connection, entry, seen)
    if same is not None:
        if same[1] != entry.request:
            raise KeyReused(
                f"The idempotency key {entry.key!r} was enqueued to session {target.id!r} for something else.", session=target.id
            )
        return same[0], True
    check_room(held)
    n = last + 1
    state = State.parked if failed and _blocked(failures(connection, target), seen) else State.queued
    connection.execute(
        f"INSERT INTO entry ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        (n, *target, entry.key, state, seen, entry.at, entry.actor, entry.trace, entry.request, entry.body, entry.seal),
    )
    return n, False


def _same_key(connection: apsw.Connection, entry: Entry, seen: int | None) -> tuple[int, bytes] | None:
    """The number and the request of an earlier entry with this key, of the same life as far as the spool can say."""
    where = "WHERE tenant = ? AND session = ? AND key = ? ORDER BY n DESC LIMIT 1"
    names = (*entry.target, entry.key)
    row = connection.execute(f"SELECT n, request, tombstone FROM entry {where}", names).fetchone()
    if row is not None and (row[2] is None or seen is None or seen <= row[2]):
        return row[0], row[1]
    row = connection.execute(f"SELECT n, request, receipt FROM outcome {where}", names).fetchone()
    if row is None or row[2] is None:
        return None
    version = msgspec.json.decode(row[2], type=Shipped).version
    return (row[0], row[1]) if seen is None or seen <= version else None


def failures(connection: apsw.Connection, target: SessionKey) -> list[tuple[int, int | None]]:
    """The failed entries of a session: their numbers and `tombstone`."""
    sql = "SELECT n, tombstone FROM entry WHERE state = 2 AND tenant = ? AND session = ? ORDER BY n"
    rows: list[tuple[Any, ...]] = connection.execute(sql, target).fetchall()
    return [(n, tombstone) for n, tombstone in rows]


def _blocked(failed: Sequence[tuple[int, int | None]], seen: int | None) -> bool:
    """Whether an entry that comes after these failed ones has to wait: they are of its life, as far as that is known."""
    return any(tombstone is None or seen is None or seen <= tombstone for _, tombstone in failed)


def arrange(connection: apsw.Connection, target: SessionKey) -> None:
    """Park the entries of a session that come after a failed one of their life, and queue the others."""
    failed = failures(connection, target)
    sql = "SELECT n, seen, state FROM entry WHERE tenant = ? AND session = ? AND state < 2"
    rows: list[tuple[Any, ...]] = connection.execute(sql, target).fetchall()
    changed = []
    for n, seen, state in rows:
        wanted = State.parked if _blocked([each for each in failed if each[0] < n], seen) else State.queued
        if wanted != state:
            changed.append((int(wanted), n))
    connection.executemany("UPDATE entry SET state = ? WHERE n = ?", changed)


def sessions(connection: apsw.Connection, after: SessionKey, limit: int) -> list[SessionKey]:
    """Sessions with queued entries, in the order of their names, after one of them; a seek each, however many entries they have."""
    found: list[SessionKey] = []
    while len(found) < limit:
        row = connection.execute(
            "SELECT tenant, session FROM entry INDEXED BY entry_order "
            "WHERE state = 0 AND (tenant, session) > (?, ?) ORDER BY tenant, session LIMIT 1",
            after,
        ).fetchone()
        if row is None:
            break
        after = SessionKey(*row)
        found.append(after)
    return found


def queued(connection: apsw.Connection, target: SessionKey, limit: int) -> list[Entry]:
    """The next entries of a session to be shipped, in order."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM entry INDEXED BY entry_order WHERE state = 0 AND tenant = ? AND session = ? ORDER BY n LIMIT ?",
        (*target, limit),
    )
    return [_entry(row) for row in rows]


def session_state(connection: apsw.Connection, target: SessionKey) -> tuple[bool, str | None]:
    """Whether a session has entries that will be shipped, and the key of a failed one that keeps its life's others back."""
    waiting = connection.execute("SELECT 1 FROM entry WHERE state = 0 AND tenant = ? AND session = ? LIMIT 1", target).get is not None
    failed = connection.execute(
        "SELECT key FROM entry WHERE state = 2 AND tombstone IS NULL AND tenant = ? AND session = ? ORDER BY n LIMIT 1", target
    ).get
    return waiting, failed


def any_queued(connection: apsw.Connection, last: int) -> bool:
    """Whether entries up to this number are still to be shipped."""
    return connection.execute("SELECT 1 FROM entry WHERE state = 0 AND n <= ? LIMIT 1", (last,)).get is not None


def bind(connection: apsw.Connection, target: SessionKey, seen: int) -> None:
    """Entries that knew nothing of their session mean the life that it has now."""
    connection.execute("UPDATE entry SET seen = ? WHERE tenant = ? AND session = ? AND seen IS NULL", (seen, *target))


def settle(connection: apsw.Connection, n: int, receipt: Shipped | None) -> None:
    """An entry was shipped, or with `None` dropped: what stays of it is its outcome."""
    stored = None if receipt is None else msgspec.json.encode(receipt).decode()
    connection.execute(
        "INSERT OR REPLACE INTO outcome (n, tenant, session, key, request, receipt) "
        "SELECT n, tenant, session, key, request, ?2 FROM entry WHERE n = ?1",
        (n, stored),
    )
    connection.execute("DELETE FROM entry WHERE n = ?", (n,))


def forget(connection: apsw.Connection) -> None:
    """Remove the outcomes of old entries."""
    connection.execute("DELETE FROM outcome WHERE n <= (SELECT last FROM total) - ?", (OUTCOMES_KEPT,))


def fail(connection: apsw.Connection, entry: Entry, failure: Failure, tombstone: int | None) -> None:
    """An entry was refused for good: the later ones of its session and life are parked."""
    stored = msgspec.json.encode(failure).decode()
    connection.execute("UPDATE entry SET state = 2, error = ?, tombstone = ? WHERE n = ? AND state = 0", (stored, tombstone, entry.n))
    arrange(connection, entry.target)


def find(connection: apsw.Connection, target: SessionKey, key: str, n: int | None) -> Entry | Outcome | None:
    """The entry, or what became of it: that number's, or without one the newest with this key."""
    where, names = ("n = ?", (n,)) if n is not None else ("tenant = ? AND session = ? AND key = ?", (*target, key))
    row = connection.execute(f"SELECT {_COLUMNS} FROM entry WHERE {where} ORDER BY n DESC LIMIT 1", names).fetchone()
    if row is not None:
        return _entry(row)
    row = connection.execute(f"SELECT n, request, receipt FROM outcome WHERE {where} ORDER BY n DESC LIMIT 1", names).fetchone()
    if row is None:
        return None
    return Outcome(row[0], row[1], None if row[2] is None else msgspec.json.decode(row[2], type=Shipped))


def first_failed(connection: apsw.Connection, target: SessionKey, before: int) -> str | None:
    """The key of the failed entry that a parked one waits for."""
    sql = "SELECT key FROM entry WHERE state = 2 AND tenant = ? AND session = ? AND n < ? ORDER BY n LIMIT 1"
    key: str | None = connection.execute(sql, (*target, before)).get
    return key


def page(connection: apsw.Connection, after: int, limit: int, held: Sequence[State] = ()) -> list[Entry]:
    """Entries of all sessions after a number, in order; with `held` only those in one of these states."""
    states = ", ".join(str(int(state)) for state in held or State)
    rows = connection.execute(f"SELECT {_COLUMNS} FROM entry WHERE n > ? AND state IN ({states}) ORDER BY n LIMIT ?", (after, limit))
    return [_entry(row) for row in rows]


def retry(connection: apsw.Connection, numbers: Sequence[int], *, adopt: bool) -> int:
    """Queue failed entries again; how many there were. `adopt`: they and what is parked after them mean the life that there is now."""
    done = 0
    for n in numbers:
        row = connection.execute("SELECT tenant, session FROM entry WHERE n = ? AND state = 2", (n,)).fetchone()
        if row is None:
            continue
        done += 1
        connection.execute("UPDATE entry SET state = 0, error = NULL, tombstone = NULL WHERE n = ?", (n,))
        if adopt:
            connection.execute("UPDATE entry SET seen = NULL WHERE tenant = ? AND session = ? AND n >= ? AND state < 2", (*row, n))
        arrange(connection, SessionKey(*row))
    return done


def drop(connection: apsw.Connection, numbers: Sequence[int]) -> int:
    """Drop failed and parked entries; how many there were. What is parked after them goes on where nothing else keeps it back."""
    done = 0
    for n in numbers:
        row = connection.execute("SELECT tenant, session FROM entry WHERE n = ? AND state > 0", (n,)).fetchone()
        if row is None:
            continue
        done += 1
        settle(connection, n, None)
        arrange(connection, SessionKey(*row))
    forget(connection)
    return done


def shipped_id(id: bytes) -> str:
    """A commit's id as it is stored; empty where the commit was truncated."""
    return uuid_text(id) if id else ""
