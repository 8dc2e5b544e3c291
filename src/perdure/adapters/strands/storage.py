"""Strands' unified storage: each key is a Perdure session, whose state is the value; JSON is stored as what changed in it.

{"json": …}  text that json.dumps(…, ensure_ascii=False) gives back byte for byte, as Strands' snapshots are
{"text": "…"}  other UTF-8 text          {"base64": "…"}  everything else
"""

from __future__ import annotations

import base64
import builtins
import copy
import json
from datetime import timedelta
from functools import partial
from typing import Any, Self

import msgspec
from strands.storage.search import KeywordSearchStrategy, SearchStrategy
from strands.storage.storage import _NAMESPACED, StorageSearchResult, _normalize_key, _normalize_prefix
from strands.types.exceptions import StorageError

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.json_diff import reuse_equal
from perdure.adapters.common.session_ids import compose, escape, unescape
from perdure.adapters.common.sync_async import AnyStore, asynchronous
from perdure.adapters.common.transactions import delete_if_there, lost_race, read_own, transact
from perdure.adapters.strands.json_text_diff import RecentTexts, diff_json_text, dumps
from perdure.engine.views import Receipt, View
from perdure.errors import AlreadyExists, Conflict, Deleted, Error, Invalid, NotFound
from perdure.model import ops as op
from perdure.model.diff import diff
from perdure.model.events import Event
from perdure.model.ops import Op
from perdure.model.state import apply

ROOT = "strands/storage/"
WRITTEN = "written"
RECENT_BYTES = 16 << 20
"""Values kept in memory to compare the next ones with."""


class PerdureStorage:
    """Keeps bytes under keys in an open store, which stays the caller's to close; fulfils Strands' `Storage` protocol.

    A write is one commit that holds what changed; earlier values stay in the key's history. Of two writers of one key the last one
    counts, as the protocol says, and both are in the history. Keys follow the rules of Strands' own storages: `/` separates,
    empty keys, `..` and backslashes are refused. Every failure is a `StorageError`.
    """

    def __init__(
        self,
        store: AnyStore,
        *,
        search_strategy: SearchStrategy[PerdureStorage] | None = None,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        """`search_strategy`: indexes each write and answers `search`; without one `search` reads every key and counts words.

        `expire_after`, `keep` and `drop` are the policy that keys begin with, as in `Store.configure`: one that was not written for so
        long (a `timedelta` or seconds) is deleted by a sweeper, and a read is no use of it. `keep` and `drop` are about the history of a
        key: its value always stays. A key that is there keeps the policy that it has.
        """
        self._store = with_policy(asynchronous(store), expire_after=expire_after, keep=keep, drop=drop)
        self._search_strategy = search_strategy
        self._prefix = ""
        self._recent = RecentTexts(RECENT_BYTES)

    async def write(self, key: str, data: bytes) -> None:
        """Set the value of a key. Raises `StorageError`."""
        normalized = _key(key)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise StorageError(f"Failed to write {key!r}: a storage keeps bytes, not {type(data).__name__}.")
        try:
            await self._write(self._session(normalized), bytes(data))
        except Error as error:
            raise StorageError(f"Failed to write {key!r}: {error}") from error
        if self._search_strategy is not None:
            try:
                await self._search_strategy.index(self, normalized, data)
            except Exception as error:
                raise StorageError(f"Wrote {key!r}, but it could not be indexed: {error}") from error

    async def read(self, key: str) -> bytes | None:
        """The value of a key, or `None`. Raises `StorageError`."""
        try:
            view = await self._view(self._session(_key(key)))
        except Error as error:
            raise StorageError(f"Failed to read {key!r}: {error}") from error
        return None if view is None else _decode(view.frozen_state)

    async def delete(self, key: str) -> None:
        """Delete a key; nothing happens if there is none. Its history ends with a tombstone. Raises `StorageError`."""
        try:
            await delete_if_there(self._store, self._session(_key(key)))
        except Error as error:
            raise StorageError(f"Failed to delete {key!r}: {error}") from error

    async def list(self, query: str = "") -> builtins.list[str]:
        """The keys with this prefix, sorted. Raises `StorageError`."""
        start = f"{ROOT}{_escaped(self._prefix)}"
        _check_text(query)
        found = self._store.list(prefix=f"{start}{_escaped(_normalize_prefix(query))}")
        try:
            return sorted([_unescaped(info.session.removeprefix(start)) async for info in found])
        except Error as error:
            raise StorageError(f"Failed to list the keys that start with {query!r}: {error}") from error

    async def search(self, query: str) -> builtins.list[StorageSearchResult]:
        """Keys whose content matches, best first: by the search strategy, or by the words of the query."""
        if self._search_strategy is not None:
            return await self._search_strategy.search(self, query)
        return await KeywordSearchStrategy().search(self, query)

    def namespace(self, prefix: str) -> Self:
        """The same storage, below a prefix."""
        scoped = copy.copy(self)
        normalized = _normalize_prefix(prefix).rstrip("/")
        scoped._prefix = f"{self._prefix}{normalized}/" if normalized else self._prefix
        scoped._namespaced = _NAMESPACED  # type: ignore[attr-defined]  # Strands' own mark: no prefix of its own on top of this one
        return scoped

    def _session(self, key: str) -> str:
        return compose("A Strands storage key", *ROOT.rstrip("/").split("/"), *f"{self._prefix}{key}".split("/"))

    async def _view(self, session: str, *, strong: bool = True) -> View | None:
        return await read_own(self._store, session, "holds no value of a Strands storage", _is_value, strong=strong)

    async def _write(self, session: str, data: bytes) -> None:
        as_json = data[:1] in (b"{", b"[")
        try:
            receipt = await transact(session, partial(self._try_write, session, data, as_json))
        except (Invalid, RecursionError):
            if not as_json:
                raise
            # JSON that the store refuses, too deep for instance, is kept as the text that it is.
            receipt = await transact(session, partial(self._try_write, session, data, False))
        self._recent.put(session, receipt.hash, data)

    async def _try_write(self, session: str, data: bytes, as_json: bool, again: bool) -> Receipt:
        # What this process remembers is mostly current: the append finds out.
        view = await self._view(session, strong=again)
        event = Event(WRITTEN, {"bytes": len(data)}, tuple(self._ops(view, data, as_json=as_json)))
        version = 0 if view is None else view.version
        with lost_race(AlreadyExists, Conflict, NotFound, Deleted):
            return await self._store.append(session, event, expect=version, on_conflict="raise", recreate=view is None)

    def _ops(self, view: View | None, data: bytes, *, as_json: bool) -> builtins.list[Op]:
        """Operations that make the value these bytes."""
        if view is None:
            return [op.set("", _encode(data, as_json=as_json))]
        if as_json and "json" in view.frozen_state:
            held = self._recent.get(view.session, view.hash)
            ops = diff_json_text(dumps(view.frozen_state["json"]) if held is None else held, data, ["json"])
            if ops is not None:
                return ops
        return _difference(view.frozen_state, _encode(data, as_json=as_json))


def _is_value(state: Any) -> bool:
    return isinstance(state, dict) and len(state.keys() & {"json", "text", "base64"}) == 1


def _key(key: str) -> str:
    _check_text(key)
    return _normalize_key(key)


def _check_text(key: object) -> None:
    if not isinstance(key, str):
        raise StorageError(f"A storage key is a string, not {type(key).__name__}.")


def _escaped(text: str) -> str:
    return "/".join(map(escape, text.split("/")))


def _unescaped(text: str) -> str:
    return "/".join([part if (found := unescape(part)) is None else found for part in text.split("/")])


def _encode(data: bytes, *, as_json: bool) -> dict[str, Any]:
    """The state that stands for these bytes."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    if as_json:
        try:
            value = msgspec.json.decode(data)
            if dumps(value) == data:
                return {"json": value}
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass  # The quick parser refuses, or rounds, some of what Python's own reads: that one decides.
        try:
            value = json.loads(text, parse_constant=_no_number)
            if dumps(value) == data:
                return {"json": value}
        except (ValueError, RecursionError):
            return {"text": text}
    return {"text": text}


def _no_number(name: str) -> None:
    raise ValueError(name)


def _decode(state: dict[str, Any]) -> bytes:
    if "json" in state:
        return dumps(state["json"])
    if "text" in state:
        return str(state["text"]).encode()
    return base64.b64decode(state["base64"])


def _difference(old: Any, new: dict[str, Any]) -> list[Op]:
    """Operations that make the old state the new one, down to the order of members: the bytes must come back as they were."""
    if "json" in old and "json" in new:
        new = reuse_equal(old, new)
        ops = diff(old, new)
        if _same_text(apply(old, ops), new):
            return ops
    return [op.set("", new)]


def _same_text(one: Any, other: Any) -> bool:
    """Whether two values give the same JSON text. Objects that they share are not compared."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(map(_same_text, one.values(), other.values()))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(a is b or _same_text(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and repr(one) == repr(other)
