"""Idempotency keys: where one was applied, and the receipt of the call that used it first. A key ends with the life that used it."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.backends.spi import Backend, Durability, Known
from perdure.codec.out_of_line import is_reference
from perdure.codec.records import request_digest
from perdure.engine.options import Options
from perdure.engine.read.bodies import Bodies
from perdure.engine.read.reader import Reader
from perdure.engine.views import Receipt
from perdure.engine.write.request import WriteRequest
from perdure.engine.write.resolve import Incarnation
from perdure.errors import Corrupt, KeyReused
from perdure.model.epoch import raised
from perdure.model.events import Event
from perdure.model.ids import SessionKey, life_key


def digest_of(options: Options, events: Sequence[Event]) -> bytes:
    """What is stored beside a key to compare later requests with; nothing without a key."""
    return b"" if options.key is None else request_digest(events)


class Keys:
    """Looks up the keys of one connection's sessions. Safe from any thread and loop."""

    def __init__(self, backend: Backend, reader: Reader, bodies: Bodies) -> None:
        self._backend, self._reader, self._bodies = backend, reader, bodies

    async def find(self, session: SessionKey, key: str, *, include_deleted: bool = False) -> tuple[Known, str] | None:
        """Where this key was applied in the session's present life, and how it is stored there. With `include_deleted` its first use in an
        earlier life counts too."""
        await self._reader.settled(session)
        known = await self._backend.find_key(session, key)
        if known is None:
            return None
        tombstone = await self._reader.incarnation_start(session, known.head)
        if known.version > tombstone:
            return known, key
        again = await self._backend.find_key(session, life_key(key, tombstone))
        if again is not None:
            return again, life_key(key, tombstone)
        return (known, key) if include_deleted else None

    async def find_receipt(self, session: SessionKey, key: str, durability: Durability, *, include_deleted: bool = False) -> Receipt | None:
        """The receipt of the first call with this key, if there was one."""
        known = await self.find(session, key, include_deleted=include_deleted)
        return None if known is None else await self.receipt(session, *known, durability)

    async def applied(self, request: WriteRequest) -> Receipt | None:
        """The receipt of the first call with the request's key, if there was one: a retry must find it, though its operations may not fit
        any more. Raises `KeyReused` if that call asked for something else."""
        known = None if request.options.key is None else await self.find(request.session, request.options.key)
        return None if known is None else await self.replayed(request, *known)

    async def repeated(self, session: SessionKey, options: Options, durability: Durability) -> Receipt | None:
        """The receipt of the first call with the key of these options, if there was one. Raises `KeyReused` where the caller has said what
        it asks for, and that call asked for something else."""
        key, payload = options.key, options.payload
        known = None if key is None else await self.find(session, key)
        if known is None:
            return None
        receipt = await self.receipt(session, *known, durability)
        if payload is not None:
            _require_same(session, options, known[0], payload)
        return receipt

    async def replayed(self, request: WriteRequest, known: Known, key: str) -> Receipt:
        """The receipt of the call that the request repeats. `key` is as it is stored. Raises `KeyReused` if it asked for something else."""
        receipt = await self.receipt(request.session, known, key, request.durability)
        if request.compare_request:
            _require_same(request.session, request.options, known, request.asked or request.events)
        return receipt

    async def began_after(self, session: SessionKey, known: Known) -> int:
        """The version of the tombstone that the present life began after, seen from where a key was found; 0 for a first life."""
        return await self._reader.incarnation_start(session, known.head)

    async def later_incarnation(self, session: SessionKey, known: Known) -> Incarnation | None:
        """The session's present life, if the key was used before it only."""
        tombstone = await self._reader.incarnation_start(session, known.head)
        return None if known.version > tombstone else Incarnation(tombstone, raised(known.head.epoch, 0))

    async def receipt(self, session: SessionKey, known: Known, key: str, durability: Durability) -> Receipt:
        """The receipt of the commit that a key was applied by. Raises `Corrupt` if that commit does not have the key."""
        record = await self._reader.record(session, known.version)
        self._reader.saw(session, known.version)
        durability = self._backend.capabilities.proven(durability)
        if record is None:  # It was truncated.
            return Receipt(known.version, b"", b"", 0, durability, duplicate=True)
        if (record.key, record.request) != (key, known.request):
            raise Corrupt(f"Version {known.version} of session {session.id!r} is not what its key was applied by.", session=session.id)
        if is_reference(record.body):
            durability = min(durability, self._bodies.durability)
        return Receipt(known.version, record.id, record.head.hash, record.head.at, durability, duplicate=True)


def _require_same(session: SessionKey, options: Options, known: Known, asked: Sequence[Event]) -> None:
    """Raise `KeyReused` unless the call that used the key first asked for the same."""
    if known.request != digest_of(options, asked):
        raise reused(session, str(options.key), known)


def reused(session: SessionKey, key: str, known: Known) -> KeyReused:
    """The error for a key that was used for something else."""
    message = f"The idempotency key {key!r} was used in session {session.id!r} for something else, at version {known.version}."
    return KeyReused(message, session=session.id, version=known.version)
