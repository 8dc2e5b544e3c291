"""Notifications by a change stream over the sessions' documents: the server sends of each commit its session's name and the version.

Only what a majority has is notified, so no more than what was acknowledged. A stream that breaks is not resumed: the next one begins with
now, and those who wait are notified that they have to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pymongo
from pymongo.asynchronous.client_session import AsyncClientSession

from perdure.backends.mongodb import layout
from perdure.backends.mongodb.connections import Connections
from perdure.backends.mongodb.layout import SESSION, Doc
from perdure.backends.remote import Notice
from perdure.errors import Error, Unavailable

WAIT = 5.0
"""Seconds after which the server answers though there is no news."""
LAST_WORDS = 1.0
"""Seconds that closing takes at most for the message to the server that the stream has ended."""
_UPDATED = "updateDescription.updatedFields.version"
_PIPELINE = [
    {"$changeStream": {}},
    {"$match": {"$or": [{"operationType": {"$in": ["insert", "replace"]}}, {_UPDATED: {"$exists": True}}]}},
    {"$project": {"name": "$documentKey._id", "version": {"$ifNull": [f"${_UPDATED}", "$fullDocument.version"]}}},
]
"""Commits alone: moving a tail's records and noting for the feed leave the version as it is."""


async def notices(connections: Connections) -> AsyncGenerator[Notice, None]:
    """See `remote.listening.NotificationSource`. Takes a connection of the pool, for as long as it runs."""
    collection = connections.collection(SESSION)
    begin = {"aggregate": collection, "pipeline": _PIPELINE, "cursor": {}, "readConcern": {"level": "majority"}}
    async with connections.client.start_session(causal_consistency=False) as session:
        asked = _ask(connections, session, begin)
        cursor = 0
        try:
            while True:
                page = await _answer(connections, asked)
                if not cursor:
                    yield None, 0
                cursor = page["id"]
                for change in page.get("firstBatch") or page.get("nextBatch", ()):
                    yield layout.session_of(change["name"]), change["version"]
                if not cursor:
                    raise Unavailable(f"The collection {collection!r} of MongoDB at {connections.place} was dropped or renamed.")
                asked = _ask(connections, session, {"getMore": cursor, "collection": collection, "maxTimeMS": int(WAIT * 1000)})
        finally:
            await _let_go(connections, asked, {"killCursors": collection, "cursors": [cursor]})


def _ask(connections: Connections, session: AsyncClientSession, command: Doc) -> asyncio.Task[Doc]:
    async def ask() -> Doc:
        with pymongo.timeout(0):  # The time that the client library allows for a call would be the server's for waiting, too.
            page: Doc = (await connections.command(command, session))["cursor"]
            return page

    return asyncio.get_running_loop().create_task(ask())


async def _answer(connections: Connections, asked: asyncio.Task[Doc]) -> Doc:
    done, _ = await asyncio.wait({asked}, timeout=WAIT + connections.timeout)
    if not done:
        raise Unavailable(f"MongoDB at {connections.place} did not answer within {WAIT + connections.timeout:g} s.")
    return asked.result()


async def _let_go(connections: Connections, asked: asyncio.Task[Doc], kill: Doc) -> None:
    """End a request that the server has yet to answer. The server notices that its stream is killed when it next looks for news, and the
    client library closes the connection of a request that is cancelled."""
    if not asked.done():
        with suppress(Error), pymongo.timeout(LAST_WORDS):
            await connections.command(kill)
        asked.cancel()
        await asyncio.wait({asked})
    if not asked.cancelled():
        asked.exception()
