"""Bodies out of line: a large body is an object of a place, made before its commit; the record has a reference in its place.

Name     blobs/<tenant>/<session>/<life>-<commit id>-<digest>; `life` is the session's grant. A tombstone raises the grant, and a commit is
         finished only on a head with the grant that its body's name has. So a purge, which removes the lives before a tombstone, never
         removes the body of a later one
Sharing  no two commits share an object, no two sessions, and no two stores: the place keeps the id of the store that uses it
Orphans  a body whose commit was refused is removed by the process that stored it; one whose process ended in between, by `purge`
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import msgspec

from perdure.backends.spi import Durability, Record
from perdure.codec.out_of_line import BodyReference, check_body, is_reference, unwrap_reference
from perdure.codec.records import Proposal
from perdure.engine.read.chains import Chains
from perdure.errors import Corrupt, Deleted, Error, Truncated, Unsupported
from perdure.model.anchor import anchor_of
from perdure.model.control import decode_control
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.places.names import object_name

if TYPE_CHECKING:  # It loads the buckets of the engines, which most stores do not need.
    from perdure.places.place import Place

FETCH_MAX = 16
"""Most bodies that are fetched at once."""
FETCH_BYTES = 32 << 20
"""Most bytes of bodies that are fetched at once, unless one alone has more."""
FOLDER = "blobs"
"""Where bodies lie in a place. Other things that lie beside a store have other folders."""

Need = Callable[[BodyReference], bool]
"""Whether a reader needs the events of such a body. A commit whose body it does not need comes without events."""


def everything(_: BodyReference) -> bool:
    """For readers that show commits."""
    return True


def operations(reference: BodyReference) -> bool:
    """For readers that fold."""
    return reference.has_ops


def nothing(_: BodyReference) -> bool:
    """For readers that look at kinds, times and hashes."""
    return False


class StoredBody(msgspec.Struct, frozen=True):
    """A commit whose body was stored: its object's name, and the commit with the reference."""

    name: str
    proposal: Proposal
    life: int


class Bodies:
    """Stores and fetches the bodies out of line of one connection. Without a place it stores none, and refuses to read any."""

    def __init__(self, chains: Chains, place: Place | None, bytes_max: int) -> None:
        """`bytes_max`: larger bodies are stored out of line."""
        self._chains, self._place = chains, place
        self._bytes_max = bytes_max if place is not None else -1

    @property
    def stores(self) -> bool:
        """Whether there is a place for bodies."""
        return self._place is not None

    @property
    def durability(self) -> Durability:
        """What a body that was stored out of line survives, and so the most that its commit does."""
        return Durability.quorum if self._place is None else self._place.durability

    def is_large(self, body: bytes) -> bool:
        """Whether this body is to be stored out of line."""
        return len(body) > self._bytes_max >= 0

    async def store(self, session: SessionKey, proposal: Proposal, events: Sequence[Event], life: int) -> StoredBody:
        """Store a commit's body in this life of its session, durably. Raises `Unavailable`, `Unauthorized`, `Invalid`."""
        place = self._required()
        reference, made = proposal.out_of_line(life, events)
        name = _name(session, proposal.id, reference)
        await place.put(name, proposal.body)
        return StoredBody(name, made, life)

    async def remove(self, names: Sequence[str]) -> None:
        """Remove bodies whose commits were refused. One that cannot be removed now stays until its session is purged."""
        if names:
            with suppress(Error):
                await self._required().delete_many(names)

    async def drop(self, session: SessionKey, records: Sequence[Record]) -> None:
        """Remove the bodies of records that are about to be dropped. Raises `Unavailable`, and `Unsupported` without a place."""
        names = [_name(session, record.id, _reference(session, record)) for record in records if is_reference(record.body)]
        if names:
            await self._required().delete_many(names)

    async def purge(self, session: SessionKey, life: int) -> None:
        """Remove the bodies of the session's lives before this one. Raises `Unavailable`: call it again."""
        if self._place is None:
            return
        folder, after = object_name(FOLDER, *session), ""
        while names := await self._place.list(folder, after):
            after = names[-1]
            await self._place.delete_many([name for name in names if int(name.rpartition("/")[2].partition("-")[0], 16) < life])

    async def fetch(self, session: SessionKey, records: Sequence[Record], need: Need) -> Mapping[int, bytes]:
        """The bodies that are needed, by version. Raises as `windows`."""
        found: dict[int, bytes] = {}
        async with aclosing(self.windows(session, records, need)) as windows:
            async for _, bodies in windows:
                found |= bodies
        return found

    async def windows(
        self, session: SessionKey, records: Sequence[Record], need: Need
    ) -> AsyncGenerator[tuple[Sequence[Record], Mapping[int, bytes]], None]:
        """The records in order, as many at once as their bodies allow, with the bodies that are needed, by version.

        Raises `Unsupported` without a place, `Corrupt` naming a body that is missing or damaged, `Deleted` where its session was purged in
        between, `Unavailable`.
        """
        start, size = 0, 0
        wanted: list[tuple[Record, BodyReference]] = []
        for number, record in enumerate(records):
            if not is_reference(record.body):
                continue
            reference = _reference(session, record)
            if not need(reference):
                continue
            if self._place is None:
                raise Unsupported(
                    f"Version {record.head.version} of session {session.id!r} has its body out of line: open the store with blobs=, "
                    "the place that it was written to.",
                    advice="",
                    session=session.id,
                )
            if wanted and (len(wanted) == FETCH_MAX or size + reference.size > FETCH_BYTES):
                yield records[start:number], await self._fetched(session, wanted)
                start, size, wanted = number, 0, []
            wanted.append((record, reference))
            size += reference.size
        if start < len(records):
            yield records[start:], await self._fetched(session, wanted) if wanted else {}

    async def _fetched(self, session: SessionKey, wanted: Sequence[tuple[Record, BodyReference]]) -> Mapping[int, bytes]:
        place = self._required()
        names = [_name(session, record.id, reference) for record, reference in wanted]
        found: dict[int, bytes] = {}
        for name, (record, reference), body in zip(names, wanted, await place.get_many(names), strict=True):
            version = record.head.version
            what = f"The body of version {version} of session {session.id!r}, the object {name} of {place.shown},"
            if body is None:
                await self._check_there(session, record)
                raise Corrupt(f"{what} is missing.", session=session.id, version=version, name=name)
            try:
                check_body(reference, body)
            except Corrupt as error:
                raise Corrupt(f"{what} is damaged. {error.detail}", session=session.id, version=version, name=name) from error
            found[version] = body
        return found

    async def _check_there(self, session: SessionKey, record: Record) -> None:
        """Raise `Deleted` unless the record is still in the chain: the session was purged while it was read. Raise `Truncated` where an
        anchor says that it may go."""
        version = record.head.version
        loaded = await self._chains.load(session)
        anchor = None if loaded is None else anchor_of(decode_control(loaded.row.control))
        if anchor is not None and anchor.dropped and version <= anchor.version:
            message = f"Version {version} of session {session.id!r} is being dropped; the first that is left is {anchor.version + 1}."
            raise Truncated(message, session=session.id, first=anchor.version + 1)
        records = await self._chains.read(session, after=version - 1, before=version + 1, limit=1)
        if not records or records[0].head.hash != record.head.hash:
            raise Deleted(f"Session {session.id!r} was deleted and purged while it was read.", session=session.id)

    def _required(self) -> Place:
        if self._place is None:
            raise Unsupported("This store was opened without a place for bodies: open it with blobs=.", advice="")
        return self._place

    def refuse_unreachable(self, _: BodyReference) -> bool:
        """A `Need` of a caller who is about to remove the session: nothing is needed, but without a place its bodies would be left."""
        return self._place is None

    async def close(self) -> None:
        """Let go of the place."""
        if self._place is not None:
            await self._place.close()


def _reference(session: SessionKey, record: Record) -> BodyReference:
    try:
        return unwrap_reference(record.body)
    except Corrupt as error:
        raise Corrupt(f"Version {record.head.version} of session {session.id!r}: {error.detail}", session=session.id) from error


def _name(session: SessionKey, id: bytes, reference: BodyReference) -> str:
    return object_name(FOLDER, *session, f"{reference.life:016x}-{id.hex()}-{reference.digest.hex()}")
