"""Import from LangGraph's own savers in SQLite or PostgreSQL: every checkpoint of every namespace, with its writes.

The framework's saver reads the source, with the safe allow-list: a class that is not on it is refused by name. The copy is compared with
the source, checkpoint by checkpoint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.serde.event_hooks import SerdeEvent, register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from perdure.adapters.common.migration_sources import ImportResult
from perdure.adapters.common.transactions import read_or_none
from perdure.adapters.langgraph.layout import checkpoint_key, newest_id
from perdure.adapters.langgraph.memory import KnownVersions, MessageCache, RecentCheckpoints
from perdure.adapters.langgraph.reading import find
from perdure.adapters.langgraph.threads import Place, session_of
from perdure.adapters.langgraph.tuples import decode_writes, encode_checkpoint
from perdure.adapters.langgraph.values import Codec
from perdure.adapters.langgraph.write_batching import WriteBatcher
from perdure.adapters.langgraph.writing import Writer, put, put_entries
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Corrupt, Invalid, NotFound, Unavailable, Unsupported

Query = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


class LangGraphSource:
    """An open checkpoint database. `query` runs SQL with `?` for parameters; `writes` names the columns and the table of writes."""

    def __init__(self, saver: BaseCheckpointSaver[Any], query: Query, writes: str, allow: Sequence[type], stack: ExitStack) -> None:
        self._saver, self._query, self._writes, self._stack = saver, query, writes, stack
        self._allow = allow
        self._serde = JsonPlusSerializer(allowed_msgpack_modules=tuple(allow) or None)
        saver.serde = self._serde

    async def ids(self) -> list[str]:
        """The ids of its threads."""
        return [row[0] for row in self._query("SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id", ())]

    async def copy_session(self, id: str, store: Store) -> ImportResult:
        """Copy one thread, oldest checkpoint first, and compare it. See `perdure.adapters.common.migration_sources.Source`."""
        session = session_of(id)
        rows = self._query("SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = ? ORDER BY checkpoint_id", (id,))
        if not rows:
            raise NotFound(f"The source has no thread {id!r}.", session=session)
        writer = Writer(store, Codec(self._serde, MessageCache(), self._allow), RecentCheckpoints(), KnownVersions(), WriteBatcher())
        missing = await self._missing(store, id, rows)
        for ns, checkpoint in rows:
            if (ns, checkpoint) in missing:
                # The writes first: a checkpoint that is here has all of them, wherever an import was interrupted.
                for task, entries in self._entries(writer.codec, id, ns, checkpoint).items():
                    await put_entries(writer, Place(id, ns, checkpoint), checkpoint, task, entries, replace=False)
                await self._put(writer, self._read(id, ns, checkpoint))
        await self._compare(writer, id, rows)
        return ImportResult(id, session, len(missing), len(rows) - len(missing))

    async def close(self) -> None:
        """Close the database."""
        self._stack.close()

    async def _missing(self, store: Store, thread: str, rows: Sequence[tuple[Any, ...]]) -> set[tuple[str, str]]:
        session = session_of(thread)
        view = await read_or_none(store, session)
        if view is None:
            return {(ns, id) for ns, id in rows}
        there = set(rows)
        missing = {(ns, id) for ns, id in rows if await store.find(session, checkpoint_key(view.frozen_state, ns, id)) is None}
        for ns in {ns for ns, _ in missing}:
            newest = newest_id(view.frozen_state, ns)
            if newest is not None and (ns, newest) not in there:
                raise AlreadyExists(
                    f"Thread {thread!r} is here already and has checkpoints of its own.", session=session, version=view.version
                )
        return missing

    def _read(self, thread: str, ns: str, id: str) -> CheckpointTuple:
        config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": id}}
        with _refusing():
            found = self._saver.get_tuple(config)
        if found is None:
            raise Corrupt(f"The source lists checkpoint {id!r} of thread {thread!r} and cannot read it.")
        return found

    async def _put(self, writer: Writer, found: CheckpointTuple) -> None:
        here: Any = dict(found.config["configurable"])
        here["checkpoint_id"] = None if found.parent_config is None else found.parent_config["configurable"]["checkpoint_id"]
        await put(writer, {"configurable": here}, found.checkpoint, found.metadata, orphan=True)

    def _entries(self, codec: Codec, thread: str, ns: str, id: str) -> dict[str, dict[str, Any]]:
        """The writes on a checkpoint, by task."""
        rows = self._query(
            f"SELECT task_id, {self._writes} WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ? ORDER BY task_id, idx",
            (thread, ns, id),
        )
        tasks: dict[str, dict[str, Any]] = {}
        for task, path, index, channel, kind, data in rows:
            entries = tasks.setdefault(task, {"path": path} if path else {})
            with _refusing():
                value = self._serde.loads_typed((kind, bytes(data)))
            entries[str(index)] = [channel, codec.encode(value, f"A write to {channel!r}")]
        return tasks

    async def _compare(self, writer: Writer, thread: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Raise `Corrupt` unless every checkpoint reads back as in the source."""
        codec, left = writer.codec, set(rows)
        for mine in await find(writer.store, codec, writer.seen, thread, ns=None, id=None, filter=None, before=None, limit=None):
            ns, id = mine.config["configurable"]["checkpoint_ns"], mine.config["configurable"]["checkpoint_id"]
            if (ns, id) not in left:
                continue
            left.discard((ns, id))
            theirs = self._read(thread, ns, id)
            writes = decode_writes(codec, self._entries(codec, thread, ns, id))
            if _encoded(codec, mine) != _encoded(codec, theirs) or not _same_writes(codec, mine.pending_writes or [], writes):
                raise Corrupt(f"Checkpoint {id!r} of thread {thread!r} (namespace {ns!r}) is not what the source says.")
        if left:
            raise Corrupt(f"{len(left)} checkpoints of thread {thread!r} are not here, among them {min(left)!r}.")


def _encoded(codec: Codec, found: CheckpointTuple) -> Any:
    parent = None if found.parent_config is None else found.parent_config["configurable"]["checkpoint_id"]
    return encode_checkpoint(codec, {"configurable": {}}, parent, found.checkpoint, found.metadata)


def _same_writes(codec: Codec, mine: Sequence[Any], theirs: Sequence[Any]) -> bool:
    encoded = [[(task, channel, codec.encode(value, channel)) for task, channel, value in writes] for writes in (mine, theirs)]
    return encoded[0] == encoded[1]


@contextmanager
def _refusing() -> Iterator[None]:
    """Raise `Invalid` if the framework's serialiser met a class that is not allowed: it would continue with plain fields."""
    met: list[str] = []

    def listen(event: SerdeEvent) -> None:
        if event["kind"] in ("msgpack_blocked", "msgpack_method_blocked"):
            met.append(f"{event['module']}.{event['name']}")

    unregister = register_serde_event_listener(listen)
    try:
        yield
    except NotImplementedError as error:
        raise Invalid(f"The source holds a value that is more than data ({error}).") from error
    finally:
        unregister()
    if met:
        raise Invalid(
            f"The source holds values of the class {met[0]}, which is not on the serialiser's allow-list. Import with "
            f"perdure.adapters.langgraph.importing.open_source(address, allow=[{met[0].rpartition('.')[2]}])."
        )


def open_source(address: str, *, allow: Sequence[type] = ()) -> LangGraphSource:
    """Open a checkpoint database, read-only: the path of an SQLite file, or a postgresql:// URL. `allow`: classes of yours in its states.

    Raises `NotFound`, `Invalid` for a file that is none, `Unavailable`, `Unsupported` without the package that reads it.
    """
    if address.startswith(("postgresql://", "postgres://")):
        return _open_postgres(address, allow)
    return _open_sqlite(Path(address.removeprefix("sqlite:///")), allow)


def _open_sqlite(path: Path, allow: Sequence[type]) -> LangGraphSource:
    try:
        from langgraph.checkpoint.sqlite import SqliteSaver
    except ImportError:
        raise Unsupported("Reading LangGraph's SQLite databases needs langgraph-checkpoint-sqlite.") from None
    if not path.is_file():
        raise NotFound(f"There is no file {str(path)!r}.")
    stack = ExitStack()
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    stack.callback(connection.close)

    def query(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return connection.execute(sql, parameters).fetchall()

    try:
        columns = {row[1] for row in query("PRAGMA table_info(writes)", ())}
        query("SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints LIMIT 1", ())
    except sqlite3.Error as error:
        stack.close()
        raise Invalid(f"{str(path)!r} is no checkpoint database of LangGraph ({error}).") from None
    saver = SqliteSaver(connection)
    saver.is_setup, saver._has_task_path = True, "task_path" in columns
    path_column = "task_path" if "task_path" in columns else "''"
    return LangGraphSource(saver, query, f"{path_column}, idx, channel, type, value FROM writes", allow, stack)


def _open_postgres(url: str, allow: Sequence[type]) -> LangGraphSource:
    try:
        import psycopg
        from langgraph.checkpoint.postgres import PostgresSaver
        from psycopg.rows import dict_row
    except ImportError:
        raise Unsupported("Reading LangGraph's PostgreSQL databases needs langgraph-checkpoint-postgres and psycopg.") from None
    stack = ExitStack()
    try:
        connection = stack.enter_context(psycopg.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row))
        connection.read_only = True
    except psycopg.OperationalError as error:
        raise Unavailable(f"The source does not answer ({error}).") from None

    def query(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in connection.execute(sql.replace("?", "%s").encode(), parameters)]

    try:
        query("SELECT thread_id FROM checkpoints LIMIT 1", ())
        columns = query("SELECT 1 FROM information_schema.columns WHERE table_name = 'checkpoint_writes' AND column_name = 'task_path'", ())
    except psycopg.Error as error:
        stack.close()
        raise Invalid(f"There is no checkpoint database of LangGraph at this URL ({error}).") from None
    path_column = "task_path" if columns else "''"
    return LangGraphSource(
        PostgresSaver(connection), query, f"{path_column}, idx, channel, type, blob FROM checkpoint_writes", allow, stack
    )
