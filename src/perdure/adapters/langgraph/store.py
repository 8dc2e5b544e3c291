"""`PerdureStore`: LangGraph's long-term memory, with namespaces, filters, expiry and vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    tokenize_path,
)

from perdure.adapters.common.beginning import with_policy
from perdure.adapters.common.sync_async import AnyStore, asynchronous, wait
from perdure.adapters.common.transactions import read_or_none
from perdure.adapters.langgraph import items
from perdure.adapters.langgraph.batches import PartlyStored, checked, texts_of
from perdure.adapters.langgraph.filters import chosen
from perdure.adapters.langgraph.items import Namespace
from perdure.adapters.langgraph.memory import MessageCache
from perdure.adapters.langgraph.values import Codec, serialiser
from perdure.clock import SystemClock
from perdure.codec.codec import Codec as CommitCodec
from perdure.engine.options import check_events
from perdure.engine.store import Store
from perdure.engine.views import to_datetime
from perdure.errors import Conflict, Deleted, Error, Invalid
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.pointer import escape

_Vectors = dict[str, list[float]]
_Put = dict[tuple[Namespace, str], PutOp]


class PerdureStore(BaseStore):
    """LangGraph's store: `graph.compile(store=PerdureStore(store))`. Each namespace is one session, `langgraph-store/users.42`.

    `store` is an open `perdure.Store` or `perdure.sync.Store`; all methods serve any thread and event loop. Puts of one batch to one
    namespace are one commit; of two writers to one key the later wins, and the history shows both.

    `index` turns on search by meaning (`dims`, `embed`, `fields`, as in the framework): vectors are stored in the items, and a search
    compares all of the namespace. `ttl` sets what the framework's `TTLConfig` says: an item that has expired is no longer found, and
    `sweep_ttl` removes it. `allow`: the classes of yours that values may contain; without it any data type that the program has imported.

    `expire_after`, `keep` and `drop` are the policy that namespaces begin with, as in `Store.configure`: a namespace that was not written
    to for so long (a `timedelta` or seconds) is deleted by a sweeper as a whole, whatever the `ttl` of its items; a read that refreshes
    a `ttl` is a write. `keep` and `drop` are about the history of changes: no item goes with it.
    """

    supports_ttl = True

    def __init__(
        self,
        store: AnyStore,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        allow: Sequence[type] | None = None,
        expire_after: timedelta | float | None = None,
        keep: int | timedelta | None = None,
        drop: bool = False,
    ) -> None:
        self._store: Store = with_policy(asynchronous(store), expire_after=expire_after, keep=keep, drop=drop)
        self._codec = Codec(serialiser(allow), MessageCache(), allow)
        self._clock = SystemClock()
        self.ttl_config = ttl
        self.index_config = index
        self.embeddings = None if index is None else ensure_embeddings(index.get("embed"))
        fields: Any = (index or {}).get("fields") or (index or {}).get("text_fields") or ["$"]
        self._fields = [path if path == "$" else tokenize_path(path) for path in fields]

    def __repr__(self) -> str:
        return f"<PerdureStore on {self._store!r}>"

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations together, blocking: the reads see what was there before; puts to one namespace are one commit."""
        todo = checked(ops)
        texts = self._texts(todo)
        vectors = _paired(texts, self.embeddings.embed_documents(texts)) if texts and self.embeddings else {}
        queries = {query: self.embeddings.embed_query(query) for query in _queries(todo)} if self.embeddings else {}
        return wait(self._run(todo, vectors, queries))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, without blocking."""
        todo = checked(ops)
        texts = self._texts(todo)
        vectors = _paired(texts, await self.embeddings.aembed_documents(texts)) if texts and self.embeddings else {}
        queries = {query: await self.embeddings.aembed_query(query) for query in _queries(todo)} if self.embeddings else {}
        return await self._run(todo, vectors, queries)

    def sweep_ttl(self) -> int:
        """Remove the items that have expired, in all namespaces; how many there were."""
        return wait(self.asweep_ttl())

    async def asweep_ttl(self) -> int:
        """As `sweep_ttl`, without blocking."""
        count, now = 0, self._now()
        for namespace, state in await self._namespaces(()):
            expired = [key for key, item in state.get("items", {}).items() if items.is_expired(item, now)]
            if expired:
                guards = [op.test(f"/items/{escape(key)}/expires", state["items"][key]["expires"]) for key in expired]
                gone = op.merge("", {"items": dict.fromkeys(expired)})
                try:
                    await self._store.append(items.session_of(namespace), Event("expired", {"keys": expired}, (*guards, gone)))
                except (Conflict, Deleted):
                    continue  # one of them was put or read meanwhile: the next sweep removes the others
                count += len(expired)
        return count

    def _now(self) -> datetime:
        return to_datetime(self._clock.now())

    def _texts(self, todo: Sequence[Op]) -> list[str]:
        """Every text of the batch that needs a vector, once."""
        return list(dict.fromkeys(text for put in todo if isinstance(put, PutOp) for text in self._texts_of(put)))

    def _texts_of(self, put: PutOp) -> list[str]:
        if self.embeddings is None or put.index is False or put.value is None:
            return []
        return texts_of(put.value, self._fields if put.index is None else [tokenize_path(path) for path in put.index])

    async def _run(self, todo: Sequence[Op], vectors: _Vectors, queries: _Vectors) -> list[Result]:
        results: list[Result] = []
        puts: _Put = {}
        for one in todo:
            if isinstance(one, GetOp):
                results.append(await self._get(one))
            elif isinstance(one, SearchOp):
                results.append(await self._search(one, queries))
            elif isinstance(one, ListNamespacesOp):
                results.append(await self._list(one))
            else:
                puts[tuple(one.namespace), one.key] = one
                results.append(None)
        await self._put_all(list(puts.values()), vectors)
        return results

    async def _put_all(self, puts: Sequence[PutOp], vectors: _Vectors) -> None:
        """Store puts, one commit for each namespace. All are encoded before one is stored, so that an error in one refuses them all."""
        changes: dict[Namespace, list[tuple[PutOp, dict[str, Any] | None]]] = {}
        now = self._now()
        for put in puts:
            changes.setdefault(tuple(put.namespace), []).append((put, None if put.value is None else self._item(put, vectors, now)))
        if len(changes) > 1:
            commit_codec = CommitCodec()
            for namespace, change in changes.items():
                items.session_of(namespace)
                commit_codec.encode_events(check_events([_event({}, change)]))
        stored: list[Namespace] = []
        for namespace, change in changes.items():
            try:
                await self._put(namespace, change, now)
            except Error as error:
                if stored:
                    raise PartlyStored(f"Puts to {namespace} failed: {error.detail}", stored=stored) from error
                raise
            stored.append(namespace)

    def _item(self, put: PutOp, vectors: _Vectors, now: datetime) -> dict[str, Any]:
        """An item as it is stored, except for when it was created."""
        value = dict(put.value or {})
        item: dict[str, Any] = {"value": self._codec.encode(value, f"Item {put.key!r:.100} of {'.'.join(put.namespace)}")}
        item["created"] = item["updated"] = now.isoformat()
        if put.ttl is not None:
            item |= {"ttl": put.ttl, "expires": items.expiry(put.ttl, now)}
        if packed := [vectors[text] for text in self._texts_of(put) if text in vectors]:
            item["vectors"] = items.pack_vectors(packed)
        return item

    async def _state(self, namespace: Namespace) -> Mapping[str, Any]:
        session = items.session_of(namespace)
        view = await read_or_none(self._store, session)
        if view is None:
            return {}
        items.check_layout(view.frozen_state, session)
        return view.frozen_state  # type: ignore[no-any-return]

    async def _namespaces(self, prefix: Namespace) -> list[tuple[Namespace, Mapping[str, Any]]]:
        prefix = tuple(prefix)
        start = items.session_of(prefix) if prefix else items.PREFIX
        found = [items.namespace_of(info.session) async for info in self._store.list(prefix=start)]
        return [(namespace, await self._state(namespace)) for namespace in found if namespace[: len(prefix)] == prefix]

    async def _put(self, namespace: Namespace, change: Sequence[tuple[PutOp, dict[str, Any] | None]], now: datetime) -> None:
        state = await self._state(namespace)
        held: Mapping[str, Any] = state.get("items", {})
        for put, item in change:
            old = held.get(put.key)
            if item is not None and old is not None and not items.is_expired(old, now):
                item["created"] = old["created"]
        if any(item is not None or put.key in held for put, item in change):
            await self._store.append(items.session_of(namespace), _event(state, change), recreate=True)

    async def _get(self, get: GetOp) -> Item | None:
        now = self._now()
        item = (await self._state(get.namespace)).get("items", {}).get(get.key)
        if item is None or items.is_expired(item, now):
            return None
        if get.refresh_ttl:
            await self._refresh(get.namespace, {get.key: item}, now)
        return Item(**self._fields_of(get.namespace, get.key, item))

    async def _refresh(self, namespace: Namespace, read: Mapping[str, Mapping[str, Any]], now: datetime) -> None:
        """Begin the time to live of items again, for they were read."""
        operations = []
        for key, item in read.items():
            if "ttl" in item:
                place = f"/items/{escape(key)}/expires"
                operations += [op.test(place, item["expires"]), op.set(place, items.expiry(item["ttl"], now))]
        if operations:
            try:
                await self._store.append(items.session_of(namespace), Event("refreshed", None, tuple(operations)))
            except (Conflict, Deleted):
                return  # another writer put or read one of them since, which began their time again

    def _fields_of(self, namespace: Namespace, key: str, item: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "namespace": tuple(namespace),
            "key": key,
            "value": self._codec.decode(item["value"]),
            "created_at": datetime.fromisoformat(item["created"]),
            "updated_at": datetime.fromisoformat(item["updated"]),
        }

    async def _search(self, search: SearchOp, queries: _Vectors) -> list[SearchItem]:
        now = self._now()
        query = queries.get(search.query) if search.query else None
        found: list[tuple[float | None, Namespace, str, Mapping[str, Any]]] = []
        for namespace, state in await self._namespaces(search.namespace_prefix):
            for key, item in items.current(state, now):
                if chosen(self._codec.decode(item["value"]) if search.filter else {}, search.filter):
                    found.append((None if query is None else items.similarity(item, query), namespace, key, item))
        # By similarity, those without vectors last; else by the time of the last change, newest first.
        found.sort(key=lambda entry: (entry[0] is not None, entry[0] or 0.0, entry[3]["updated"]), reverse=True)
        page = found[search.offset : search.offset + search.limit]
        if search.refresh_ttl:
            for namespace in dict.fromkeys(entry[1] for entry in page):
                await self._refresh(namespace, {key: item for _, other, key, item in page if other == namespace}, now)
        return [SearchItem(**self._fields_of(namespace, key, item), score=score) for score, namespace, key, item in page]

    async def _list(self, listing: ListNamespacesOp) -> list[Namespace]:
        now, conditions = self._now(), listing.match_conditions or ()
        found = {
            namespace[: listing.max_depth]
            for namespace, state in await self._namespaces(())
            if items.matches(namespace, conditions) and any(True for _ in items.current(state, now))
        }
        return sorted(found)[listing.offset : listing.offset + listing.limit]


def _event(state: Mapping[str, Any], change: Sequence[tuple[PutOp, dict[str, Any] | None]]) -> Event:
    """What puts, and deletes, of one namespace are in its session."""
    kept = [put.key for put, item in change if item is not None]
    gone = [put.key for put, item in change if item is None]
    first: dict[str, Any] = {} if state else {"langgraph_store": items.LAYOUT}
    head = [op.merge("", first | {"items": dict.fromkeys(gone)})] if gone or not state else []
    data = {name: keys for name, keys in (("put", kept), ("deleted", gone)) if keys}
    return Event("items", data, (*head, *[op.set(f"/items/{escape(put.key)}", item) for put, item in change if item is not None]))


def _paired(texts: Sequence[str], vectors: Sequence[list[float]]) -> _Vectors:
    if len(texts) != len(vectors):
        raise Invalid(f"The embeddings gave {len(vectors)} vectors for {len(texts)} texts.")
    return dict(zip(texts, vectors, strict=True))


def _queries(todo: Sequence[Op]) -> list[str]:
    return list(dict.fromkeys(one.query for one in todo if isinstance(one, SearchOp) and one.query))
