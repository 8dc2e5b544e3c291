"""Reads from MongoDB. A session's document comes first and its pages after it, so a record that is on its way from one to the other is
met in one of both places; records never change, so what was read in two steps is of one moment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from perdure.backends.common.pages import VERSION_END, GapError, check_dense, one_page, version_range, without_gaps
from perdure.backends.common.schema import read_due_cursor, write_due_cursor
from perdure.backends.mongodb import layout
from perdure.backends.mongodb.connections import Connections
from perdure.backends.mongodb.layout import CHUNK, HEAD, KEY, LOG, SESSION, SNAPSHOT, Doc, Entry, head_of
from perdure.backends.spi import Head, Known, Loaded, Page, Query, Record, Row, Snapshot
from perdure.model.commit import Status
from perdure.model.ids import SessionKey

PAGES = 16
"""Most pages of a log that come with a session's document: an answer has 16 MiB at most."""
TRIES = 4
"""How often a session is read that is truncated meanwhile."""


class Reader:
    """The reading half of the driver."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    async def heads(self, sessions: Sequence[SessionKey]) -> list[Head | None]:
        """See `spi.Backend.heads`."""
        names = [layout.name_of(session) for session in sessions]
        found = await self.connections.find(SESSION, {"_id": {"$in": names}}, HEAD, certain=True)
        heads = {doc["_id"]: head_of(doc) for doc in found}
        return [heads.get(name) for name in names]

    async def load(self, session: SessionKey, at: int | None) -> Loaded | None:
        """One round trip while the snapshot is no further back than `PAGES` pages and nothing is large; else one more for each of these."""
        name, upto = layout.name_of(session), VERSION_END if at is None else at
        snapshots = [
            {"$match": {"_id": {"$gte": f"{name}\t", "$lte": layout.at(name, upto)}}},
            {"$match": {"$expr": {"$gte": ["$version", {"$subtract": ["$$first", 1]}]}}},
            {"$sort": {"_id": -1}},
            {"$limit": 1},
        ]
        newest = {"$ifNull": [{"$first": "$snapshot._id"}, {"$literal": layout.at(name, 0)}]}
        start = {"$concat": [{"$substrBytes": [newest, 0, len(layout.at(name, 0).encode()) - 1]}, "0"]}
        pages = [
            {"$match": {"_id": {"$lte": layout.at(name, upto)}, "$expr": {"$gte": ["$_id", "$$start"]}}},
            {"$sort": {"_id": 1}},
            {"$limit": PAGES},
        ]
        pipeline: list[Doc] = [
            {"$match": {"_id": name}},
            {"$lookup": {"from": self._full(SNAPSHOT), "let": {"first": "$first"}, "pipeline": snapshots, "as": "snapshot"}},
            {"$lookup": {"from": self._full(LOG), "let": {"start": start}, "pipeline": pages, "as": "pages"}},
        ]

        async def look() -> Loaded | None:
            docs = await self.connections.join(SESSION, pipeline)
            return await self._loaded(session, docs[0], upto) if docs else None

        return await without_gaps(look, session, "MongoDB", TRIES)

    async def _loaded(self, session: SessionKey, doc: Doc, upto: int) -> Loaded:
        name, snapshot = doc["_id"], None
        for found in doc["snapshot"]:
            snapshot = Snapshot(found["version"], found["hash"], await self._snapshot_body(name, found))
        after = snapshot.version if snapshot else 0
        pages = doc["pages"]
        if len(pages) == PAGES:
            rest = {"_id": {"$gt": pages[-1]["_id"], "$lte": layout.at(name, min(upto, doc["moved"]))}}
            pages += await self.connections.find(LOG, rest, sort={"_id": 1})
        entries = _between(doc, pages, after, upto + 1)
        check_dense([*map(_version, entries)], max(after + 1, doc["first"]), min(upto, doc["version"]))
        return Loaded(_row(session, doc), snapshot, await self.filled(name, entries))

    async def read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> list[Record]:
        """One round trip, and one more where records lie in chunks."""
        name, end = layout.name_of(session), VERSION_END if before is None else before
        if limit < 1 or end <= after + 1:
            return []
        count = min(PAGES, limit // layout.PAGE + 2)
        pages = [
            {"$match": {"_id": {"$gte": layout.page_at(name, after + 1), "$lt": layout.at(name, end)}}},
            {"$sort": {"_id": -1 if reverse else 1}},
            {"$limit": count},
        ]
        inside = {"$and": [{"$gt": ["$$this.v", after]}, {"$lt": ["$$this.v", end]}]}
        pipeline: list[Doc] = [
            {"$match": {"_id": name}},
            {"$set": {"tail": {"$filter": {"input": "$tail", "cond": inside}}}},
            {"$lookup": {"from": self._full(LOG), "pipeline": pages, "as": "pages"}},
        ]

        async def look() -> list[Record]:
            docs = await self.connections.join(SESSION, pipeline)
            return await self._chosen(docs[0], after, before, limit, count, reverse=reverse) if docs else []

        return await without_gaps(look, session, "MongoDB", TRIES)

    async def _chosen(self, doc: Doc, after: int, before: int | None, limit: int, count: int, *, reverse: bool) -> list[Record]:
        """The records of a page of `read` from what was found of a session, of whose log at most `count` pages. Raises `GapError`."""
        found = doc["pages"]
        if not reverse and len(found) == count and layout.version_in(found[-1]["_id"]) + layout.PAGE < doc["moved"]:
            doc["tail"] = []  # There are more pages before it.
        entries = _between(doc, found[::-1] if reverse else found, after, VERSION_END if before is None else before)
        chosen = one_page(reversed(entries) if reverse else entries, limit)
        first, last = version_range(after, before, doc["first"], doc["version"])
        if chosen:
            first, last = (_version(chosen[-1]), last) if reverse else (first, _version(chosen[-1]))
        check_dense(sorted(map(_version, chosen)), first, last)
        return await self.filled(doc["_id"], chosen)

    async def find_key(self, session: SessionKey, key: str) -> Known | None:
        """One round trip: the tail, and then the keys that have left it."""
        name = layout.name_of(session)
        moved = [{"$match": {"_id": layout.key_of(name, key)}}]
        docs = await self.connections.join(
            SESSION,
            [
                {"$match": {"_id": name}},
                {"$set": {"tail": {"$filter": {"input": "$tail", "cond": {"$eq": ["$$this.k", {"$literal": key}]}}}}},
                {"$lookup": {"from": self._full(KEY), "pipeline": moved, "as": "keys"}},
            ],
        )
        return known_in(docs[0], docs[0]["keys"]).get(key) if docs else None

    async def scan(self, query: Query, cursor: str | None, limit: int) -> Page[Row]:
        """By id, from the index of names; a tag, and a status other than active, have indexes of their own, and so has what is due."""
        hidden = [int(Status.deleted), int(Status.moved)]
        where: list[Doc] = [{"status": {"$nin": hidden} if query.status is None else query.status}]
        tags = layout.encode_tags(query.tags)
        where += [{"tags": tag} for tag in tags]
        if query.order == "due":
            where += _due(query, cursor)
            sort, hint = {"due_at": 1, "_id": 1}, "due"
        else:
            names = _names(query.one_tenant, query.prefix)
            if cursor is not None:
                names["$gt"] = f"{query.one_tenant}\t{cursor}"
            where.insert(0, {"_id": names})
            sort, hint = {"_id": 1}, "tags" if tags else "status" if query.status else "_id_"
        fields = {**HEAD, **layout.CELLS, "tags": 1, "created": 1}
        docs = await self.connections.find(SESSION, {"$and": where}, fields, sort=sort, limit=limit, hint=hint)
        rows = [_row(layout.session_of(doc["_id"]), doc) for doc in docs]
        if len(rows) < limit:
            return Page(rows, None)
        last = rows[-1]
        return Page(rows, last.session.id if query.order == "id" else write_due_cursor(last.due_at or 0, last.session))

    async def _snapshot_body(self, name: str, found: Doc) -> bytes:
        if not found["chunks"]:
            return found["body"]  # type: ignore[no-any-return]
        names = [layout.chunk_name(found["version"], found["hash"].hex(), number) for number in range(found["chunks"])]
        return b"".join((await self._chunks(name, names)).values())

    async def filled(self, name: str, entries: Sequence[Entry]) -> list[Record]:
        """The records, with what lies in chunks."""
        wanted = [chunk for entry in entries for chunk in entry.chunk_names]
        if not wanted:
            return [entry.record for entry in entries]
        chunks, records = await self._chunks(name, wanted), []
        for entry in entries:
            record = entry.record
            if entry.chunks:
                whole = b"".join(chunks[chunk] for chunk in entry.chunk_names)
                record = msgspec.structs.replace(record, meta=whole[: entry.meta_bytes], body=whole[entry.meta_bytes :])
            records.append(record)
        return records

    async def _chunks(self, name: str, wanted: Iterable[str]) -> dict[str, bytes]:
        names = [name + chunk for chunk in wanted]
        found = {doc["_id"]: doc["data"] for doc in await self.connections.find(CHUNK, {"_id": {"$in": names}})}
        if len(found) < len(names):
            raise GapError
        return {full.removeprefix(name): found[full] for full in names}

    def _full(self, collection: str) -> str:
        return self.connections.collection(collection)


def _version(entry: Entry) -> int:
    return entry.record.head.version


def _between(doc: Doc, pages: Iterable[Doc], after: int, before: int) -> list[Entry]:
    """What pages and tail hold with `after < version < before`, oldest first. What was truncated is not there any more, what is still in
    the tail comes from there, and a purge's stub has no body."""
    name, first, moved = doc["_id"], doc["first"], doc["moved"]
    kept = [entry for page in pages for entry in page["records"] if first <= entry["v"] < moved] + doc["tail"]
    return [layout.decode_entry(name, entry) for entry in kept if after < entry["v"] < before]


def _row(session: SessionKey, doc: Doc) -> Row:
    return Row(session, head_of(doc), layout.decode_tags(doc.get("tags", ())), layout.created_of(doc), *layout.cells_of(doc))


def _names(tenant: str, prefix: str) -> Doc:
    """The condition for names of a tenant's sessions that begin so."""
    start = f"{tenant}\t{prefix}"
    return {"$gte": start, "$lt": start + "\U0010ffff" * 64}


def _due(query: Query, cursor: str | None) -> list[Doc]:
    """The conditions of what is due, behind the row that the cursor names. Names sort as tenants and ids do."""
    where: list[Doc] = [{"due_at": {"$exists": True}}]
    if query.due_before is not None:
        where.append({"due_at": {"$lt": query.due_before}})
    if cursor is not None:
        due_at, session = read_due_cursor(cursor)
        where.append({"due_at": {"$gte": due_at}})
        where.append({"$or": [{"due_at": {"$gt": due_at}}, {"_id": {"$gt": layout.name_of(session)}}]})
    if query.tenant is not None:
        where.append({"_id": _names(query.tenant, query.prefix)})
    elif query.prefix:
        where.append({"_id": {"$regex": f"^[^\t]*\t{re.escape(query.prefix)}"}})
    return where


def known_in(doc: Doc, moved: Iterable[Doc]) -> dict[str, Known]:
    """The keys that a session's document, and documents of keys that have left its tail, say were applied."""
    head = head_of(doc)
    found: dict[str, Known] = {}
    for key in moved:
        if key["v"] > doc.get("purged", 0):
            found[key["_id"].rpartition("\t")[2]] = Known(key["v"], key["r"], head)
    for entry in layout.part_of(doc, "tail"):
        if "k" in entry:
            record = layout.decode_entry(doc["_id"], entry).record
            found[entry["k"]] = Known(record.head.version, record.request, head)
    return found
