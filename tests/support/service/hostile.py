"""What a hostile client sends: real records, with one thing about each that is false."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

import perdure
from perdure.backends.spi import Head, Record
from perdure.codec.codec import Codec
from perdure.codec.records import Base, encode_meta
from perdure.engine.core import Core
from perdure.model.commit import GENESIS, Kind, commit_hash, static_header
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.service.hooks import Credential, Scope
from perdure.service.records.verified import VerifiedFace
from perdure.wire import records as wire

TENANT = "default"
CODEC = Codec()
OWNER = Credential(TENANT)


def everything(backend: Any) -> dict[SessionKey, list[Record]]:
    """What a memory engine holds."""
    return {session: list(chain.records) for session, chain in backend._chains.items()}


class Client:
    """Makes records as the codec does, and sends them straight to a node's face."""

    def __init__(self, core: Core) -> None:
        self.core, self.face = core, VerifiedFace(core)
        self._ids = 0

    async def head(self, session: str) -> Head | None:
        """Where a session stands."""
        return (await self.core.backend.heads([SessionKey(TENANT, session)]))[0]

    def record(
        self,
        session: str,
        head: Head | None,
        *events: Event,
        kind: Kind = Kind.data,
        epoch: int | None = None,
        base: Base | None = None,
        tenant: str = TENANT,
        at: int | None = None,
        **columns: Any,
    ) -> Record:
        """A sound record after a head."""
        self._ids += 1
        id = hashlib.sha256(f"{session}{self._ids}".encode()).digest()[:16]
        proposal = CODEC.propose(SessionKey(tenant, session), events or (Event("note"),), id=id, kind=kind, **columns)
        return proposal.finish(head, self.core.clock.now() if at is None else at, base=base, epoch=epoch)

    def attempt(self, session: str, head: Head | None, *records: Record, tenant: str = TENANT, **fields: Any) -> wire.Attempt:
        """An attempt with them."""
        expected = None if head is None else (head.version, head.hash)
        key = next((record.key for record in records if record.key is not None), None)
        return wire.Attempt(SessionKey(tenant, session), expected, records, **{"key": key, **fields})

    async def send(self, *attempts: wire.Attempt, credential: Credential = OWNER) -> Sequence[Any]:
        """The answers."""
        answers = (await self.face.append(credential, wire.Append(attempts))).answers
        await self.face.settled()
        return answers

    async def write(self, session: str, *events: Event, **columns: Any) -> Record:
        """An honest append, which is stored."""
        head = await self.head(session)
        made = self.record(session, head, *events, **columns)
        (answer,) = await self.send(self.attempt(session, head, made))
        assert isinstance(answer, wire.Stored), answer
        return made


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    """A client of a node over a fresh memory engine."""
    async with perdure.open("memory:") as store:
        yield Client(store._context.core)


def rehashed(
    session: str, record: Record, *, actor: str | None = None, trace: str | None = None, tenant: str = TENANT, **columns: Any
) -> Record:
    """The record with other columns, and the hash that they give: only its content is false then."""
    head = msgspec.structs.replace(record.head, **{name: columns.pop(name) for name in ("version", "at", "epoch") if name in columns})
    prev = columns.pop("prev", record.meta[:32])
    record = msgspec.structs.replace(record, **columns)
    format = record.body[2] if len(record.body) > 2 else 1
    static = static_header(tenant, session, record.id, record.kind, actor, record.key, record.request, trace, format)
    hash = commit_hash(prev, head.version, head.at, head.epoch, static, hashlib.sha256(record.body).digest())
    return msgspec.structs.replace(record, head=msgspec.structs.replace(head, hash=hash), meta=prev + encode_meta(actor, trace, format))


def only(*scopes: Scope, actor: str | None = None) -> Credential:
    """A credential with these scopes."""
    return Credential(TENANT, frozenset({Scope.read, *scopes}), actor=actor)


__all__ = ["CODEC", "GENESIS", "OWNER", "TENANT", "Client", "client", "everything", "only", "rehashed"]
