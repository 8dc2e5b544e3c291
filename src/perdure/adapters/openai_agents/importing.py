"""Import from a file of the SDK's SQLiteSession: every item of every session, in its order."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from perdure.adapters.common.cutting import batches
from perdure.adapters.common.migration_sources import ImportResult
from perdure.adapters.common.session_ids import compose
from perdure.adapters.common.surrogates import unescape
from perdure.adapters.openai_agents import transcript
from perdure.adapters.openai_agents.parts import Parts
from perdure.adapters.openai_agents.session import ROOT, PerdureSession
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Corrupt, Invalid, NotFound, TooLarge, Unsupported
from perdure.model.commit import Commit
from perdure.model.events import Event
from perdure.model.values import check

KEY = "import/"
"""What the idempotency key of an imported commit begins with; the row id of its last item follows."""
BATCH = 64
"""Most items in one commit."""


class OpenAISource:
    """An open file of SQLiteSessions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def ids(self) -> list[str]:
        """The ids of its sessions."""
        return [id for (id,) in self._query("SELECT session_id FROM agent_sessions ORDER BY session_id")]

    async def copy_session(self, id: str, store: Store) -> ImportResult:
        """Copy one session and compare it. See `perdure.adapters.common.migration_sources.Source`."""
        if not list(self._query("SELECT 1 FROM agent_sessions WHERE session_id = ?", (id,))):
            raise NotFound(f"The source has no session {id!r}.")
        session = compose("A conversation", ROOT, id)
        here = await _imported(store, session)
        whole = [commit for commit in here if not _is_part(commit)]
        after = int((whole[-1].key or KEY).removeprefix(KEY)) if whole else -1
        skipped, written = sum(len(commit.events) for commit in whole), 0
        rows = self._rows(id, after)
        version = here[-1].version if here else 0
        while found := list(islice(rows, BATCH)):
            for batch in batches(found, [event.data for _, event in found]):
                version = await _append(store, session, [event for _, event in batch], version, f"{KEY}{batch[-1][0]}")
                written += len(batch)
        await self._compare(store, session, id)
        return ImportResult(id, session, written, skipped)

    async def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _rows(self, id: str, after: int) -> Iterator[tuple[int, Event]]:
        """The items after a row, as events. Raises `Invalid` naming the row that holds none."""
        found = self._query("SELECT id, message_data FROM agent_messages WHERE session_id = ? AND id > ? ORDER BY id", (id, after))
        for number, text in found:
            row = f"Row {number} of agent_messages"
            try:
                item = json.loads(text)
            except (TypeError, ValueError, RecursionError) as error:
                raise Invalid(f"{row} is no JSON: {error}.") from error
            if not isinstance(item, dict):
                raise Invalid(f"{row} is no item: {text[:60]!r}.")
            event = transcript.event(item)
            check(event.data, what=row)
            yield number, event

    def _query(self, query: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise Invalid(f"The source cannot be read: {error}.") from error

    async def _compare(self, store: Store, session: str, id: str) -> None:
        """Raise `Corrupt` unless the items that were brought over are those of the source, in its order."""
        mine = await PerdureSession(id, store).get_items(-1)
        theirs = [unescape(event.data) for _, event in self._rows(id, -1)]
        for place, (one, other) in enumerate(zip(mine, theirs, strict=False)):
            if one != other:
                raise Corrupt(f"Item {place} of session {id!r} is not what the source says.", session=session)
        if len(mine) != len(theirs):
            raise Corrupt(f"Session {id!r} has {len(mine)} items here and {len(theirs)} in the source.", session=session)


async def _append(store: Store, session: str, events: list[Event], version: int, key: str) -> int:
    """Write a batch after this version, in parts if it is one item that no commit holds; its version."""
    try:
        return (await store.append(session, *events, expect=version, key=key, on_conflict="raise")).version
    except TooLarge:
        whole = await Parts(store, session, key).instead(events)
        version = whole.data["versions"][-1]
        return (await store.append(session, whole, expect=version, key=key, on_conflict="raise")).version


def _is_part(commit: Commit) -> bool:
    return all(event.type == transcript.PART for event in commit.events)


async def _imported(store: Store, session: str) -> list[Commit]:
    """The commits that an import made. Raises `AlreadyExists` for a conversation that began here, or went on here."""
    commits = []
    try:
        async for commit in store.history(session):
            if commit.key is None or not commit.key.startswith(KEY):
                raise AlreadyExists(f"{session!r} is here already and has items of its own.", session=session, version=commit.version)
            commits.append(commit)
    except NotFound:
        return []
    return commits


def open_source(address: str) -> OpenAISource:
    """Open the file of SQLiteSessions with its default tables. Raises `NotFound`, `Invalid`, `Unsupported`."""
    path = Path(address)
    if not path.is_file():
        raise NotFound(f"{address!r} is no file.")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    try:
        with closing(connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")) as rows:
            tables = {name for (name,) in rows}
        if not {"agent_sessions", "agent_messages"} <= tables:
            raise Invalid(f"{address!r} has no tables agent_sessions and agent_messages: it is not of the OpenAI Agents SDK.")
        if "message_structure" in tables:
            branches = connection.execute("SELECT count(DISTINCT branch_id) FROM message_structure").fetchone()[0]
            if branches > 1:
                raise Unsupported(f"{address!r} holds {branches} branches of an AdvancedSQLiteSession; only one can be imported.")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise Invalid(f"{address!r} cannot be read as SQLite: {error}.") from error
    except BaseException:
        connection.close()
        raise
    return OpenAISource(connection)
