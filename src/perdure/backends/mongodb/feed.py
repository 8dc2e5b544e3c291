"""The feed of all sessions' commits: numbered without a gap by those who read it.

An append marks its session's document (`news`) in the same write that is the commit: so no commit can be too late to be found. A reader
at the end of the feed looks up the marks, notes how far those sessions have come under the next number, which only one can insert, and
takes the marks away from sessions that have not gone on since. Dying between the steps repeats a note; no note is passed over.

Where records are dropped, the entries about them are swept from the notes. So a number is not free because no note has it: it is taken in a
document of its own, together with the note, which lies there until it is put in its place, if need be by the next reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from perdure.backends.common.refusals import bad_cursor
from perdure.backends.mongodb import layout
from perdure.backends.mongodb.layout import FEED, SESSION, Doc
from perdure.backends.mongodb.reader import Reader
from perdure.backends.remote.change_log import Ranges, sweep
from perdure.backends.spi import Change, Page, Record
from perdure.errors import Error
from perdure.model.ids import SessionKey

NOTE_SESSIONS = 256
"""Most sessions in one note."""
NEXT, SWEPT = "next", "swept"
"""Documents beside the notes: the newest note, and the number from which the next sweep looks."""
STEP = 16
"""Notes read at once."""


class Feed:
    """Notes and reads; see the module."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._connections = reader, reader.connections
        self._last = 0
        """The newest note, when the last sweep began."""

    async def page(self, cursor: str | None, limit: int) -> Page[Change]:
        """See `spi.Backend.feed`. A cursor is a note's number, how many of its sessions are done, and the last version of the next one."""
        if cursor is not None and not re.fullmatch(r"\d{1,18}:\d{1,9}:\d{1,18}", cursor):
            raise bad_cursor(cursor)
        number, place, version = map(int, (cursor or "1:0:0").split(":"))
        while True:
            notes = await self._notes(number)
            if not notes:
                return Page([], f"{number}:{place}:{version}")
            changes: list[Change] = []
            for note in notes:
                if note["_id"] != number:
                    number, place, version = note["_id"], 0, 0
                tails = await self._tails([moved for moved in note["news"][place:] if moved is not None])
                for moved in note["news"][place:]:
                    if moved is None:  # It was swept.
                        place, version = place + 1, 0
                        continue
                    done = await self._changes(moved, tails.get(moved["s"]), max(moved["from"], version), limit - len(changes))
                    changes += done
                    if len(changes) >= limit and done and done[-1].record.head.version < moved["to"]:
                        return Page(changes, f"{number}:{place}:{done[-1].record.head.version}")
                    place, version = place + 1, 0
                    if len(changes) >= limit:
                        return Page(changes, f"{number}:{place}:0")
                number, place = number + 1, 0
            if changes:
                return Page(changes, f"{number}:0:0")

    async def _notes(self, number: int) -> list[Doc]:
        """Notes from this number on; where there is none, the one that is made of the news."""
        found = await self._connections.find(FEED, {"_id": {"$gte": number}}, sort={"_id": 1}, limit=STEP)
        if not found and await self._note():
            found = await self._connections.find(FEED, {"_id": {"$gte": number}}, sort={"_id": 1}, limit=STEP)
        return found

    async def _note(self) -> bool:
        """Note the news under the next number, if there are any; whether there may be more notes now. Another who does so at once may note
        the same."""
        found = await self._connections.find(FEED, {"_id": NEXT})
        put = (
            bool(found) and await self._connections.insert(FEED, [found[0]["note"]]) > 0
        )  # The process that took its number may have died.
        fields = {"version": 1, "noted": 1}
        docs = await self._connections.find(SESSION, {"news": True}, fields, limit=NOTE_SESSIONS, hint="news")
        if not docs:
            return put
        moved = [{"s": doc["_id"], "from": doc.get("noted", 0), "to": doc["version"]} for doc in docs]
        if found:
            number = found[0]["note"]["_id"] + 1
            change = {"q": {"_id": NEXT, "note._id": number - 1}, "u": {"$set": {"note": {"_id": number, "news": moved}}}}
            answer = await self._connections.update(FEED, [change])
            self._connections.check(answer)
            taken = answer["n"]
        else:
            last = await self._connections.find(FEED, {"_id": {"$gte": 0}}, {"_id": 1}, sort={"_id": -1}, limit=1)
            number = last[0]["_id"] + 1 if last else 1
            taken = await self._connections.insert(FEED, [{"_id": NEXT, "note": {"_id": number, "news": moved}}])
        if not taken:
            return True  # Another's note has that number, with other sessions: these keep their marks.
        await self._connections.insert(FEED, [{"_id": number, "news": moved}])
        heard = [
            {
                "q": {"_id": doc["_id"]},
                "u": [
                    {"$set": {"noted": {"$max": ["$noted", doc["version"]]}}},
                    {"$set": {"news": {"$cond": [{"$gt": ["$version", "$noted"]}, True, "$$REMOVE"]}}},
                ],
            }
            for doc in docs
        ]
        self._connections.check(await self._connections.update(SESSION, heard))
        return True

    async def sweep(self, dropped: int) -> None:
        """Sweep the notes after so many records were dropped, which stays done where this fails: a later sweep comes by again. The last
        note stays: the next reader would put it again."""
        with suppress(Error):
            found = {doc["_id"]: doc for doc in await self._connections.find(FEED, {"_id": {"$in": [NEXT, SWEPT]}})}
            if NEXT in found:
                self._last = found[NEXT]["note"]["_id"]
                await sweep(self, found.get(SWEPT, {}).get("place", 0), dropped)

    async def entries(self, low: int, limit: int) -> Sequence[tuple[int, Ranges]]:
        """See `Log`."""
        found = await self._connections.find(FEED, {"_id": {"$gte": low, "$lt": self._last}}, sort={"_id": 1}, limit=limit)
        return [(doc["_id"], [one and (layout.session_of(one["s"]), one["from"], one["to"]) for one in doc["news"]]) for doc in found]

    async def firsts(self, sessions: Sequence[SessionKey]) -> Mapping[SessionKey, int]:
        """See `Log`."""
        names = [layout.name_of(session) for session in sessions]
        found = await self._connections.find(SESSION, {"_id": {"$in": names}}, {"first": 1})
        return {layout.session_of(doc["_id"]): doc["first"] for doc in found}

    async def replace(self, changed: Mapping[int, Ranges | None], place: int) -> None:
        """See `Log`."""
        statements: list[Doc] = [{"q": {"_id": SWEPT}, "u": {"$set": {"place": place}}, "upsert": True}]
        for number, ranges in changed.items():
            moved = [one and {"s": layout.name_of(one[0]), "from": one[1], "to": one[2]} for one in ranges or ()]
            statements.append({"q": {"_id": number}, "u": {"$set": {"news": moved}}})
        self._connections.check(await self._connections.update(FEED, statements))
        if gone := [number for number, ranges in changed.items() if ranges is None]:
            await self._connections.delete(FEED, {"_id": {"$in": gone}})

    async def _tails(self, moved: list[Doc]) -> dict[str, Doc]:
        """Of each session what its tail still has of the news."""
        names = [one["s"] for one in moved]
        least = min((one["from"] for one in moved), default=0)
        fields = {"moved": 1, "tail": {"$filter": {"input": "$tail", "cond": {"$gt": ["$$this.v", least]}}}}
        return {doc["_id"]: doc for doc in await self._connections.find(SESSION, {"_id": {"$in": names}}, fields)}

    async def _changes(self, moved: Doc, doc: Doc | None, after: int, limit: int) -> list[Change]:
        session, before = layout.session_of(moved["s"]), moved["to"] + 1
        if doc is None or limit < 1:
            return []
        entries = [layout.decode_entry(moved["s"], entry) for entry in doc["tail"] if after < entry["v"] < before]
        if after + 1 >= doc["moved"] and not any(entry.chunks for entry in entries):
            return [Change(session, entry.record) for entry in entries[:limit]]
        records: list[Record] = []
        while len(records) < limit and (page := await self._reader.read(session, after, before, limit - len(records), reverse=False)):
            records += page
            after = page[-1].head.version
        return [Change(session, record) for record in records]
