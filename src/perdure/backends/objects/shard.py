"""One shard: a log of numbered segments, folded into an index of its sessions; a writer puts the next number.

Every call first learns what others put, by asking for the next number (one request, shared by calls that wait for it). A put that loses
its number folds the winner's segment and is judged again. A put without an answer is settled by reading its number: mine, another's, or
free, and then the identical bytes are put again; whatever lands late finds its number taken or is seen by the next reader.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import msgspec

from perdure.backends.common.schema import check_writer
from perdure.backends.objects import segment as form
from perdure.backends.objects.bucket import Bucket
from perdure.backends.objects.index import ShardIndex
from perdure.backends.objects.segment import REQUIRE, Chain, Entry, Segment, Written
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Record
from perdure.errors import Corrupt, Error, Unavailable, Unknown
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

CHECKPOINT_BYTES_MIN = 1 << 20
"""A checkpoint is put when the segments since the last one outweigh it, and this."""
FETCHED = 16
"""Segments fetched at once."""
SETTLE_WAITS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between tries to settle a put; the last one repeats."""

Make = Callable[[], tuple[Entry, ...]]
"""The entries to put on the index as it is now; called again after each lost number. None left: nothing is put."""


class Shard:
    """One log. Used on one event loop."""

    def __init__(
        self,
        bucket: Bucket,
        number: int,
        timeout: float,
        new_id: Callable[[], bytes],
        cache_bytes: int,
        *,
        saves: bool,
        writer: int,
        min_writer: int,
    ) -> None:
        """`cache_bytes`: of segments kept in memory. `saves`: whether checkpoints may be put, also while reading. `writer`: the version of
        this handle. `min_writer`: the least that the store took when it was opened."""
        self._bucket, self._timeout, self._new_id = bucket, timeout, new_id
        self._log, self._checkpoints = f"log/{number:04x}", f"index/{number:04x}"
        self.position = 0
        """The last number that is taken, as far as is known."""
        self.index = ShardIndex(min_writer)
        self._writer = writer
        self._lock = asyncio.Lock()
        self._started, self._known = 0, 0
        """How many looks at the store were started, and which of them is the newest that succeeded."""
        self._cold = True
        self._segments = LruMap[int, tuple[Segment, int]](cache_bytes, lambda kept: kept[1], keep_newest=True)
        self._log_bytes, self._checkpoint_bytes = 0, 0
        self._saving: asyncio.Task[None] | None = None
        self.saves = saves
        self.puts = 0
        """Segments put by this shard, for tests that count them."""

    def name(self, position: int) -> str:
        """The object of a number."""
        return f"{self._log}/{position:016d}"

    @property
    def chains(self) -> dict[SessionKey, Chain]:
        """What is known of each session."""
        return self.index.chains

    def check_writer(self) -> None:
        """Raise `Unsupported` where this handle is too old to write, as far as the log is known."""
        check_writer(self._bucket.place, self._writer, self.index.min_writer)

    async def sync(self) -> None:
        """Know every segment that was put before this call. One request when there is nothing new."""
        before = self._started
        async with self._lock:
            if self._known <= before:
                await self._look()

    async def _look(self) -> None:
        self._started += 1
        look = self._started
        if self._cold:
            await self._start()
            self._cold = False
        elif (data := await self._bucket.get(self.name(self.position + 1))) is not None:
            self._fold(self.position + 1, data)
            await self._follow()
        self._known = look

    async def _start(self) -> None:
        """The newest whole checkpoint, and what came after it."""
        for name in reversed(await self._bucket.list(self._checkpoints)):
            data = await self._bucket.get(f"{self._checkpoints}/{name}")
            try:
                found = form.decode_checkpoint(data or b"")
            except (ValueError, TypeError, msgspec.DecodeError):
                continue
            self.position = found.position
            self.index.restore(found)
            self._checkpoint_bytes = len(data or b"")
            break
        await self._follow()

    async def _follow(self) -> None:
        """Fold everything after the position."""
        names = await self._bucket.list(self._log, f"{self.position:016d}")
        for start in range(0, len(names), FETCHED):
            some = names[start : start + FETCHED]
            found = await gather_all(*[self._bucket.get(f"{self._log}/{name}") for name in some])
            for name, data in zip(some, found, strict=True):
                if name != f"{self.position + 1:016d}" or data is None:
                    raise Corrupt(f"The object {self.name(self.position + 1)} of {self._bucket.place} is gone: restore it from a backup.")
                self._fold(self.position + 1, data)

    def _fold(self, position: int, data: bytes) -> Segment:
        found = form.decode_segment(data, self.name(position))
        for entry in found.entries:
            self.index.apply(entry, position)
        self.position = position
        self._log_bytes += len(data)
        self._keep(position, found, len(data))
        self._checkpoint()
        return found

    def _keep(self, position: int, found: Segment, size: int) -> None:
        self._segments.put(position, (found, size))

    async def put(self, make: Make) -> None:
        """Put the entries as the next segment; `make` raises or drops what the index no longer allows.

        The log itself says which writers it takes, and a process that puts a number knows all of the log below it.

        Raises `Unavailable` (nothing was put), `Unknown` (it may have been), `Unsupported` (the handle is too old), and what `make` raises.
        """
        async with self._lock:
            if self._cold:
                await self._look()
            while entries := make():
                self.check_writer()
                segment = Segment(self._new_id(), entries)
                if await self._put(segment, form.encode_segment(segment)):
                    return

    async def require_writer(self, version: int) -> None:
        """Have the log say that it takes no writer below this version, unless it says so already."""
        await self.sync()
        while self.index.logged_writer < version:
            async with self._lock:
                segment = Segment(self._new_id(), (Entry(REQUIRE, "", "", below=version),))
                await self._put(segment, form.encode_segment(segment))

    async def _put(self, segment: Segment, data: bytes) -> bool:
        """Whether the next number became this segment's; if not, another's has it and was folded."""
        position = self.position + 1
        name, until = self.name(position), time.monotonic() + self._timeout
        lost: Unknown | None = None
        self._started += 1
        look = self._started
        for wait in itertools.chain(SETTLE_WAITS, itertools.repeat(SETTLE_WAITS[-1])):
            try:
                self.puts += 1
                made = await self._bucket.create(name, data)
                found = data if made else await self._bucket.get(name)
            except Unknown as error:
                lost = error
                found = await self._settle(name, until)
            except Error:
                if lost is None:
                    raise
                found = await self._settle(name, until)
            if found is not None:
                try:
                    mine = self._fold(position, found).id == segment.id
                except Corrupt as error:
                    if lost is None:
                        raise
                    raise Unknown(f"A put to {self._bucket.place} had no answer, and what is read there is none ({error})") from error
                if not mine:
                    await self._follow()
                self._known = look
                return mine
            if time.monotonic() > until:
                raise lost or Unavailable(f"{self._bucket.place} says that {name} is there, and does not give it.")
            await asyncio.sleep(wait)
        raise AssertionError("The waits have no end.")

    async def _settle(self, name: str, until: float) -> bytes | None:
        """What has the number, once the store can be asked. Raises `Unknown` when it could not be until then."""
        for wait in itertools.chain(SETTLE_WAITS, itertools.repeat(SETTLE_WAITS[-1])):
            try:
                return await self._bucket.get(name)
            except Error as error:
                if time.monotonic() > until or not isinstance(error, Unavailable):
                    raise Unknown(f"A put to {self._bucket.place} had no answer, and the store cannot be asked ({error})") from error
            await asyncio.sleep(wait)
        raise AssertionError("The waits have no end.")

    async def segment(self, position: int) -> Segment:
        """A segment, from memory or fetched."""
        kept = self._segments.get(position)
        if kept is not None:
            return kept[0]
        data = await self._bucket.get(self.name(position))
        if data is None:
            raise Corrupt(f"The object {self.name(position)} of {self._bucket.place} is gone: restore it from a backup.")
        found = form.decode_segment(data, self.name(position))
        self._keep(position, found, len(data))
        return found

    async def records(self, session: SessionKey, versions: Sequence[int]) -> list[Record]:
        """These versions' records, in this order, of a session whose index holds them all."""
        chain = self.chains[session]
        first, blank = chain.first, chain.blank
        if versions and min(versions) < first:
            raise Corrupt(f"Session {session.id!r} has no version {min(versions)} any more.")
        places = {version: chain.positions[version - first] for version in versions}
        wanted = sorted({*places.values()})
        segments: dict[int, dict[int, Written]] = {}
        for start in range(0, len(wanted), FETCHED):
            some = wanted[start : start + FETCHED]
            for position, found in zip(some, await gather_all(*[self.segment(position) for position in some]), strict=True):
                segments[position] = {record.version: record for entry in found.entries if entry.key == session for record in entry.records}
        records = []
        for version in versions:
            stored = segments[places[version]].get(version)
            record = None if stored is None else stored.record()
            if record is None:
                raise Corrupt(f"The object {self.name(places[version])} lacks version {version} of session {session.id!r}.")
            records.append(msgspec.structs.replace(record, body=b"") if version == blank else record)
        return records

    async def clean(self, session: SessionKey) -> None:
        """Take what was dropped of a session out of its segments, which keep their numbers. Started again, it goes on where it stopped."""
        chain = self.chains[session]

        def cleaned(data: bytes) -> bytes:
            return form.cleaned(data, self._log, session, chain.first, chain.blank)

        while chain.unclean:
            position = chain.unclean[0]
            data = await self._bucket.change(self.name(position), cleaned)
            self._keep(position, form.decode_segment(data, self.name(position)), len(data))
            if position in chain.unclean:
                chain.unclean.remove(position)

    async def renew(self) -> None:
        """Put a checkpoint of now in place of all others: they hold what is purged."""
        async with self._lock:
            if not (old := await self._bucket.list(self._checkpoints)):
                return
            name, data = f"{self.position:016d}", form.encode_checkpoint(self.index.checkpoint(self.position, self._writer))
            await self._bucket.put(f"{self._checkpoints}/{name}", data)
        for other in old:
            if other != name:
                await self._bucket.delete(f"{self._checkpoints}/{other}")

    def _checkpoint(self) -> None:
        if (
            not self.saves
            or self._writer < self.index.min_writer
            or self._log_bytes <= max(CHECKPOINT_BYTES_MIN, self._checkpoint_bytes)
            or self._saving is not None
        ):
            return
        data = form.encode_checkpoint(self.index.checkpoint(self.position, self._writer))
        self._log_bytes, self._checkpoint_bytes = 0, len(data)
        self._saving = asyncio.get_running_loop().create_task(self._save(f"{self.position:016d}", data))

    async def _save(self, name: str, data: bytes) -> None:
        """Put a checkpoint and drop all but the one before. It is derived: one that cannot be put is done without."""
        try:
            await self._bucket.put(f"{self._checkpoints}/{name}", data)
            for old in (await self._bucket.list(self._checkpoints))[:-2]:
                await self._bucket.delete(f"{self._checkpoints}/{old}")
        except Error:
            return
        finally:
            self._saving = None

    async def drain(self) -> None:
        """Wait for a checkpoint that is being put."""
        if self._saving is not None:
            await asyncio.wait([self._saving])
