"""`perdure spool`: what waits in a spool, and what becomes of the writes that the store refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal

import msgspec

from perdure.cli.common import COMMON, Common, counts
from perdure.cli.exits import UsageError
from perdure.cli.output.terminal import NARROW, WIDE, Column
from perdure.cli.output.text import one_line
from perdure.codec.codec import Codec
from perdure.concurrency.replies import run_blocking
from perdure.engine.spool import entries
from perdure.engine.spool.entries import Entry, State
from perdure.engine.spool.file import SpoolFile
from perdure.errors import Corrupt, NotFound
from perdure.model.timestamps import rfc3339

LIMIT = 100
"""Entries shown to people who do not say how many."""
PAGE = 256
"""Entries in one read."""
CODEC = Codec()


class SpoolRow(msgspec.Struct, frozen=True):
    """A write that waits in the spool."""

    n: int
    """Its place in the order in which they were enqueued."""
    session: str
    """The session that it is a write to."""
    key: str
    """Its idempotency key."""
    state: str
    """queued, failed, or parked: it waits after a failed one of its session."""
    at: str
    """When it was enqueued, RFC 3339 in UTC."""
    actor: str | None
    """Who did it."""
    types: list[str]
    """The types of its events."""
    bytes: int
    """What its events take, as stored."""
    error: str | None
    """The code of the error that it failed with."""
    message: str | None
    """What that error said."""

    @classmethod
    def of(cls, entry: Entry) -> SpoolRow:
        error = entry.error if entry.sound else entries.DAMAGED
        return cls(
            entry.n,
            entry.target.id,
            entry.key,
            entry.state.name,
            rfc3339(entry.at),
            entry.actor,
            _types(entry),
            len(entry.body),
            None if error is None else error.code,
            None if error is None else error.detail,
        )


class SpoolDone(msgspec.Struct, frozen=True):
    """What was done to entries of a spool."""

    action: str
    """retry or drop."""
    entries: int
    """How many entries it was done to."""


def spool(
    action: Literal["ls", "retry", "drop"],
    url: str,
    /,
    *,
    session: str | None = None,
    key: str | None = None,
    entry: int | None = None,
    all: bool = False,
    adopt: bool = False,
    limit: int | None = None,
    common: Common = COMMON,
) -> None:
    """List the writes that wait in a spool; send those again that the store refused, or drop them: `perdure spool ls sqlite:///spool.db`.

    The store is not asked, so this works while it is away.

    What is queued is shipped by itself, by any process that has a store open with this spool.

    Parameters
    ----------
    action
        ls: list the writes. retry: queue failed ones again; what is parked after them follows. drop: remove failed and parked ones.
    url
        The spool's URL, as in `perdure.open(…, spool=…)`.
    session
        Only the writes of this session.
    key
        Only the write with this idempotency key.
    entry
        Only the write with this number, as ls shows it.
    all
        With retry and drop: every write that failed, and with drop every one that is parked.
    adopt
        With retry: they are meant for the life that their session has now, also if it was deleted and created again since.
    limit
        With ls: at most so many; without it all as JSON, 100 as a table.
    """
    terminal = common.terminal()
    counts(limit=limit, entry=entry)
    if action != "ls" and not (all or entry is not None or session is not None or key is not None):
        raise UsageError(f"Say which writes to {action}: --entry, --session, --key or --all.")
    file = SpoolFile(url)
    try:
        run_blocking(file.open(None, create=False))
        wanted = _chosen(file, common.tenant, session, key, entry)
        if action == "ls":
            _list(wanted, common, limit)
            return
        states = (State.failed,) if action == "retry" else (State.failed, State.parked)
        numbers = [each.n for each in wanted if each.state in states]
        if action == "retry":
            done = run_blocking(file.write(lambda connection: entries.retry(connection, numbers, adopt=adopt)))
        else:
            done = run_blocking(file.write(lambda connection: entries.drop(connection, numbers)))
    finally:
        file.end()
    if not done and not all:
        raise NotFound(f"There is no such write to {action} in the spool {file.place}: see `perdure spool ls`.", advice="")
    if terminal.json:
        terminal.object(SpoolDone(action, done))
    else:
        terminal.print(f"{done} {'write is' if done == 1 else 'writes are'} {'queued again' if action == 'retry' else 'dropped'}")


def _chosen(file: SpoolFile, tenant: str, session: str | None, key: str | None, number: int | None) -> Iterator[Entry]:
    after = 0
    while True:
        page = run_blocking(file.read(partial(entries.page, after=after, limit=PAGE)))
        for entry in page:
            names = entry.target
            if names.tenant == tenant and session in (None, names.id) and key in (None, entry.key) and number in (None, entry.n):
                yield entry
        if len(page) < PAGE:
            return
        after = page[-1].n


def _list(wanted: Iterable[Entry], common: Common, limit: int | None) -> None:
    terminal = common.terminal()
    most = LIMIT if limit is None and not terminal.json else limit
    more, narrow = False, terminal.width < NARROW
    failed: list[SpoolRow] = []

    def rows() -> Iterator[SpoolRow]:
        nonlocal more
        for number, entry in enumerate(wanted):
            more = number == most
            if more:
                return
            row = SpoolRow.of(entry)
            if row.message and not terminal.json:
                failed.append(row)
            yield row

    count = terminal.rows(
        rows(),
        Column("n", lambda row: row.n, justify="right"),
        Column("session", lambda row: row.session, style="cyan", share="wrap"),
        Column("state", lambda row: row.state if row.error is None else f"{row.state}: {row.error}"),
        Column("since (UTC)", lambda row: terminal.when(row.at)),
        Column("types", lambda row: "" if narrow else ", ".join(row.types), share="cut", spare=True),
        Column("key", lambda row: row.key if terminal.width >= WIDE else "", share="wrap", spare=True),
    )
    for row in failed:
        terminal.print(one_line(f"{row.n}: {row.message}"))
    if not count and not more:
        terminal.note(f"Nothing waits there for tenant {common.tenant!r}.")
    elif more and limit is None:
        terminal.note(f"The oldest {count}; --limit shows more, --session shows fewer.")


def _types(entry: Entry) -> list[str]:
    try:
        return [event.type for event in CODEC.decode_events(entry.body)] if entry.sound else []
    except Corrupt:
        return []
