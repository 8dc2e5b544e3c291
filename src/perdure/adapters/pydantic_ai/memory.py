"""The harness's memory store: a directory of notes is one Perdure session, a note is a member of its state, line by line.

pydantic-ai/memory/<directory>            {"files": {name: {"lines": […], "version": …, "operation": …, "metadata": …}}}
pydantic-ai/memory-operations/<2 digits>  in which directory an operation was carried out (see `id_index`)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic_ai_harness.memory import (
    MemoryConflictError,
    MemoryFile,
    MemoryMutation,
    MemoryOperation,
    MemoryOperationConflictError,
    MemorySearchResult,
)
from pydantic_ai_harness.memory._store import decode_metadata, encode_metadata, lexical_search, validate_store_path, validate_store_prefix

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.expired import append_or_begin, expired_at
from perdure.adapters.common.id_index import IdIndex
from perdure.adapters.common.json_diff import diff_json
from perdure.adapters.common.surrogates import escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import commit_at, lost_race, transact
from perdure.adapters.pydantic_ai import names
from perdure.engine.views import View
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, KeyReused, NotFound
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ids import NAME_BYTES_MAX
from perdure.model.ops import Op
from perdure.model.pointer import join

MEMORY, OPERATIONS = "pydantic-ai/memory/", "pydantic-ai/memory-operations"
WRITTEN, DELETED = "memory_written", "memory_deleted"


class PerdureMemoryStore:
    """Keeps an agent's notes in an open store, which stays the caller's to close; searchable, with metadata.

    A change names the version that it was made from: the later of two writers is refused with `MemoryConflictError` and nothing is lost.
    Writers of different notes do not disturb each other. An operation is carried out once: its second call gets the first one's result.
    A change writes the lines that differ; every earlier text stays in the history.

    `expire_after`, `keep` and `drop` are the policy that directories begin with, as in `Store.configure`: one in which no note was changed
    for so long (a `timedelta` or seconds) is deleted by a sweeper as a whole, and a read is no use of it. `keep` and `drop` are about the
    history of changes: no note goes with it, but the second call of an operation whose commit was dropped is refused. A directory that is
    there keeps the policy that it has.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        self._plain = asynchronous(store)
        self._store = with_policy(self._plain, expire_after=expire_after, keep=keep, drop=drop)
        self._operations = IdIndex(self._plain, OPERATIONS)

    async def read(self, path: str, *, max_chars: int) -> MemoryFile | None:
        """The note, cut after `max_chars` characters, or `None`. Raises `ValueError` for a path that is none."""
        _check_path(path)
        _positive("max_chars", max_chars)
        directory, name = _split(path)
        view = await self._view(directory)
        held = None if view is None else view.frozen_state["files"].get(name)
        if held is None:
            return None
        content = unescape("\n".join(held["lines"]))
        return MemoryFile(
            content=content[:max_chars],
            version=held["version"],
            operation_id=unescape(held.get("operation")),
            truncated=len(content) > max_chars,
            metadata=unescape(decode_metadata(held.get("metadata"))),
        )

    async def get_operation(self, operation: MemoryOperation) -> MemoryMutation | None:
        """What an operation did, or `None` if it was not carried out. Raises `MemoryOperationConflictError`."""
        entry = await self._operations.get(operation.id)
        return None if entry is None else await self._replay(operation, entry)

    async def write(
        self, path: str, content: str, *, expected_version: str | None, operation: MemoryOperation | None = None
    ) -> MemoryMutation:
        """As `write_with_metadata`, without metadata."""
        return await self.write_with_metadata(path, content, expected_version=expected_version, metadata=None, operation=operation)

    async def write_with_metadata(
        self,
        path: str,
        content: str,
        *,
        expected_version: str | None,
        metadata: Mapping[str, str] | None,
        operation: MemoryOperation | None = None,
    ) -> MemoryMutation:
        """Create or replace the note whose version is `expected_version` (`None`: there is none), with metadata of this write.

        One commit; with an operation, one more before it. Raises `MemoryConflictError`, `MemoryOperationConflictError`, `ValueError`.
        """
        if not isinstance(content, str):
            raise Invalid(f"A note is text, not {type(content).__name__}.")
        encoded = _metadata(metadata)
        note: dict[str, Any] = {"lines": content.split("\n"), "version": self._store.new_id()}
        note |= {} if operation is None else {"operation": operation.id}
        note |= {} if encoded is None else {"metadata": encoded}
        return await self._change(path, escape(note), expected_version, operation)

    async def delete(self, path: str, *, expected_version: str | None, operation: MemoryOperation | None = None) -> MemoryMutation:
        """Remove the note whose version is `expected_version`. Its text stays in the history. Raises as `write_with_metadata`."""
        return await self._change(path, None, expected_version, operation)

    async def list_paths(self, prefix: str = "", *, limit: int) -> list[str]:
        """The first `limit` paths that begin with `prefix`, sorted. Costs a read for each directory below it."""
        validate_store_prefix(prefix)
        _positive("limit", limit)
        return sorted([path async for path in self._paths(prefix)])[:limit]

    async def search(
        self, prefix: str, query: str, *, limit: int, max_files: int, max_chars: int, max_file_chars: int
    ) -> MemorySearchResult:
        """The harness's lexical search over the notes directly below `prefix`. One read."""
        validate_store_prefix(prefix)
        if not query.split() or min(limit, max_files, max_chars, max_file_chars) <= 0:
            return MemorySearchResult(matches=[], scanned=0, truncated=False)
        directory, start = _split(prefix)
        view = await self._view(directory)
        held = {} if view is None else view.frozen_state["files"]
        names = sorted(name for name in held if name.startswith(start))
        notes = [(f"{prefix}{name[len(start) :]}", unescape("\n".join(held[name]["lines"]))) for name in names[:max_files]]
        cut = [(path, content[:max_file_chars]) for path, content in notes]
        result = await lexical_search(cut, query, limit=limit, max_files=max_files, max_chars=max_chars, score_prefix=prefix)
        more = len(names) > max_files or any(len(content) > max_file_chars for _, content in notes)
        return MemorySearchResult(matches=result.matches, scanned=result.scanned, truncated=result.truncated or more)

    async def _change(
        self, path: str, note: dict[str, Any] | None, expected: str | None, operation: MemoryOperation | None
    ) -> MemoryMutation:
        """Set or remove (`None`) a note, once."""
        _check_path(path)
        directory, name = _split(path)
        session = _session(directory)
        entry = None
        if operation is not None:
            entry = await self._operations.put(operation.id, {"directory": directory, "fingerprint": operation.fingerprint})
            if (replayed := await self._replay(operation, entry)) is not None:
                return replayed

        async def attempt(_again: bool) -> MemoryMutation:
            view = await self._view(directory)
            held = None if view is None else view.frozen_state["files"].get(name)
            if (None if held is None else held["version"]) != expected:
                # Another process may have carried out this very operation.
                if operation is not None and (replayed := await self._replay(operation, entry)) is not None:
                    return replayed
                what = "deleted" if note is None else "written"
                raise MemoryConflictError(f"memory path {path!r} changed before it could be {what}; nothing was changed")
            done: dict[str, Any] = {"path": path, "version": None if note is None else note["version"], "existed": held is not None}
            done |= {} if operation is None else {"operation": operation.id}
            event = Event(DELETED if note is None else WRITTEN, escape(done), tuple(_ops(name, held, note)))
            key = None if operation is None else names.key("operation", operation.id)
            try:
                with lost_race(AlreadyExists, Conflict):
                    await append_or_begin(self._store, session, event, expect=0 if view is None else view.version, key=key)
            except KeyReused as error:
                return await self._result_at(session, error.version)
            return MemoryMutation(version=done["version"], replayed=False, existed=done["existed"])

        return await transact(session, attempt)

    async def _replay(self, operation: MemoryOperation, entry: Any) -> MemoryMutation | None:
        if entry["fingerprint"] != operation.fingerprint:
            raise MemoryOperationConflictError(f"operation id {operation.id!r} was used before with other arguments; nothing was changed")
        session = _session(entry["directory"])
        try:
            receipt = await self._store.find(session, names.key("operation", operation.id))
            return None if receipt is None else await self._result_at(session, receipt.version)
        except (NotFound, Deleted):
            return None

    async def _result_at(self, session: str, version: int) -> MemoryMutation:
        """What the commit at a version did, as the answer to a second call."""
        commit = await commit_at(self._store, session, version)
        if commit is None:
            raise NotFound(f"Session {session!r} has no version {version}.", session=session)
        data = commit.events[0].data
        return MemoryMutation(version=data["version"], replayed=True, existed=data["existed"])

    async def _view(self, directory: str) -> View | None:
        try:
            view = await self._store.read(_session(directory))
        except NotFound:
            return None
        except Deleted:
            if await expired_at(self._store, _session(directory)) is None:
                raise
            return None
        if not isinstance(view.frozen_state, dict) or not isinstance(view.frozen_state.get("files"), dict):
            raise Invalid(f"Session {view.session!r} holds no memory of Pydantic AI: something else made it.", session=view.session)
        return view

    async def _paths(self, prefix: str) -> AsyncIterator[str]:
        directory, start = _split(prefix)
        below = f"{directory}/" if directory else ""
        sessions = {_session(directory)}
        async for info in self._store.list(prefix=f"{MEMORY}{below}{start}"):
            sessions.add(info.session)
        for session in sessions:
            found = session.removeprefix(MEMORY)
            view = await self._view(found)
            for name in () if view is None else view.frozen_state["files"]:
                path = f"{found}/{name}" if found else name
                if path.startswith(prefix):
                    yield path


def _split(path: str) -> tuple[str, str]:
    """Directory and name."""
    directory, _, name = path.rpartition("/")
    return directory, name


def _session(directory: str) -> str:
    """A directory's session. Its segments are checked already, and safe as they are. Raises `Invalid` for one that is too long."""
    id = MEMORY + directory
    if len(id) > NAME_BYTES_MAX:
        raise Invalid(
            f"A memory directory may have at most {NAME_BYTES_MAX - len(MEMORY)} characters; {directory[:60]!r}… has {len(directory)}."
        )
    return id


def _ops(name: str, held: Mapping[str, Any] | None, note: dict[str, Any] | None) -> list[Op]:
    place = join(["files", name])
    if held is None:
        return [op.init("/files", {}), *([] if note is None else [op.set(place, note)])]
    # The change is only good for the version that it was decided on.
    guard = op.test(f"{place}/version", held["version"])
    return [guard, *([op.remove(place)] if note is None else diff_json(held, note, place))]


def _metadata(metadata: Mapping[str, str] | None) -> str | None:
    """The harness's JSON of metadata. Raises `Invalid` for what is no mapping, and `TypeError`, `ValueError` as the harness does."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise Invalid(f"Metadata are a mapping of strings, not {type(metadata).__name__}.")
    return encode_metadata(metadata)


def _check_path(path: str) -> None:
    """Raise `ValueError`, as the harness does, for what is no path."""
    if not isinstance(path, str):
        raise ValueError(f"invalid memory path: it is a string, not {type(path).__name__}")  # noqa: TRY004  # what the harness raises for a path
    validate_store_path(path)


def _positive(name: str, value: int) -> None:
    if type(value) is not int or value <= 0:
        raise ValueError(f"{name} must be positive, not {value!r}")
