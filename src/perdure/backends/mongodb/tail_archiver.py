"""Moves records out of sessions' tails, a page at a time, and sweeps away what truncation and purge have cut off.

    1  read the session's document: its tail holds one page or more that is complete
    2  write those pages, and the keys in them, and wait until a majority has them on disk
    3  take the records out of the tail

So a record is always in a page or in the tail, a key always among the keys or in the tail, whichever process dies between the steps: the
next one that completes a page begins again, and what was written twice is the same. No append waits for this, and none depends on it.
A writer that the store takes no more moves nothing: it would do so in its own layout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import groupby

from perdure.backends.mongodb import layout
from perdure.backends.mongodb.connections import Connections
from perdure.backends.mongodb.layout import CHUNK, KEY, LOG, SESSION, SNAPSHOT, Doc
from perdure.backends.remote import gather_all
from perdure.errors import Error

BATCH = 64
"""Most sessions moved at once."""


class TailArchiver:
    """Runs in the background, one batch at a time."""

    def __init__(self, connections: Connections, check_writer: Callable[[], Awaitable[None]]) -> None:
        """`check_writer` raises `Unsupported` where the store takes this writer no more."""
        self._connections, self._check_writer = connections, check_writer
        self._waiting: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None
        self.failed: Error | None = None
        """Why the last batch was not moved, if it was not. Its sessions' next page takes it along."""

    def add(self, names: Iterable[str]) -> None:
        """Move these sessions' complete pages, soon."""
        self._waiting.update(dict.fromkeys(names))
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def drain(self) -> None:
        """Wait until all is moved that was to be."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = list(self._waiting)[:BATCH]
                for name in batch:
                    del self._waiting[name]
                try:
                    await self._check_writer()
                    await self._move(batch)
                    self.failed = None
                except Error as error:
                    self.failed = error
        finally:
            self._task = None

    async def _move(self, names: list[str]) -> None:
        fields = {"first": 1, "moved": 1, "version": 1, "tail": 1}
        docs = await self._connections.find(SESSION, {"_id": {"$in": names}}, fields)
        pages: list[Doc] = []
        keys: list[Doc] = []
        cuts: list[Doc] = []
        firsts: dict[str, int] = {}
        for doc in docs:
            name, end = doc["_id"], layout.base(doc["version"] + 1)
            leaving = [entry for entry in doc["tail"] if entry["v"] < end]
            if not leaving:
                continue
            pages += [_put_page(name, list(page)) for _, page in groupby(leaving, lambda entry: layout.base(entry["v"]))]
            keys += keys_in(name, leaving)
            firsts[name] = doc["first"]
            cut = {"$max": {"moved": end}, "$pull": {"tail": {"v": {"$lt": end}}}}
            cuts.append({"q": {"_id": name, "first": doc["first"]}, "u": cut})
        if not cuts:
            return
        written, _ = await gather_all(self._connections.update(LOG, pages), self._connections.insert(KEY, keys))
        self._connections.check(written, fine=(11000,))
        if (await self._connections.update(SESSION, cuts, lax=True))["n"] < len(cuts):
            for doc in await self._connections.find(SESSION, {"_id": {"$in": list(firsts)}}, {"first": 1, "purged": 1}):
                if doc["first"] != firsts[doc["_id"]]:
                    await self.sweep(doc)  # It was truncated or purged meanwhile: what was just written must go with the rest.

    async def sweep(self, doc: Doc) -> None:
        """Delete what lies below the first version of a session's document: pages, chunks, snapshots; after a purge keys too."""
        name, first, purged = doc["_id"], doc["first"], doc.get("purged", 0)
        await self._connections.delete(LOG, {"_id": layout.below(name, layout.base(first))})
        page = {"_id": layout.page_at(name, first), "from": {"$lt": first}}
        if purged == first:
            await self._connections.delete(LOG, page)
            await self._connections.delete(KEY, {"_id": layout.below(name), "v": {"$lte": purged}})
        else:
            cut = {"$set": {"from": first}, "$pull": {"records": {"v": {"$lt": first}}}}
            self._connections.check(await self._connections.update(LOG, [{"q": page, "u": cut}]))
        gone = first + 1 if purged == first else first
        await self._connections.delete(CHUNK, {"_id": layout.below(name, gone)})
        await self._connections.delete(SNAPSHOT, {"_id": layout.below(name, gone if purged == first else first - 1)})


def _put_page(name: str, records: list[Doc]) -> Doc:
    """Write a page, unless it is there. One that reaches further down than the tail does is from before a truncation: it is replaced.
    One that reaches no further stays, and the statement is refused as a duplicate."""
    start = records[0]["v"]
    id = layout.page_at(name, start)
    return {"q": {"_id": id, "from": {"$lt": start}}, "u": {"_id": id, "from": start, "records": records}, "upsert": True}


def keys_in(name: str, records: Iterable[Doc]) -> list[Doc]:
    """The documents of the keys of these records."""
    return [
        {"_id": layout.key_of(name, entry["k"]), "v": entry["v"], "r": layout.decode_entry(name, entry).record.request}
        for entry in records
        if "k" in entry
    ]
