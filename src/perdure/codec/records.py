"""A commit before it is a record: encoded once; its position and hash are set where the head is certain."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.codec.envelope import FORMAT, payload_bytes
from perdure.codec.out_of_line import BodyReference, refer, wrap_reference
from perdure.errors import Invalid
from perdure.model.commit import GENESIS, Kind, Status, commit_hash
from perdure.model.epoch import raised
from perdure.model.events import Event
from perdure.model.record import Head, Record

AT_MAX = (1 << 63) - 1
"""Latest time of a commit, in nanoseconds since 1970."""
PREV_BYTES = 32
"""A record's `meta` begins with the hash of the commit before: so many bytes."""
_META = msgspec.msgpack.Encoder()
_META_DECODER = msgspec.msgpack.Decoder(tuple[str | None, str | None, int])


class Base(NamedTuple):
    """What a fork's chain goes on from: its parent's commit."""

    version: int
    hash: bytes
    at: int
    epoch: int


_DATA = Kind.data
_BEFORE_FIRST = Head(0, GENESIS, 0, 0, int(Status.active), 0)


class Proposal(msgspec.Struct, frozen=True, gc=False):
    """A commit before it has a position: everything that a lost race does not change, encoded once.

    `digest` is the body's, `static` the header's fixed part; `meta` is the record's without the hash of the commit before.
    """

    id: bytes
    kind: Kind
    key: str | None
    request: bytes
    body: bytes
    digest: bytes
    static: bytes
    meta: bytes

    @property
    def payload_bytes(self) -> int:
        """How many bytes the body has, uncompressed."""
        return payload_bytes(self.body)

    def out_of_line(self, life: int, events: Sequence[Event]) -> tuple[BodyReference, Proposal]:
        """The same commit with a reference to its body, which has these events, and that reference. Its hash stays the same."""
        reference = refer(self.body, self.body[FORMAT], life, events)
        return reference, msgspec.structs.replace(self, body=wrap_reference(reference))

    def finish(
        self, head: Head | None, now: int, *, status: int | None = None, base: Base | None = None, epoch: int | None = None
    ) -> Record:
        """The record that follows `head` (`None`: the first of a chain, after `base` for a fork).

        `at` is `max(now, head.at + 1)`, so time rises along a chain. `epoch`: the one after this commit, where it changes.
        """
        if head is None:
            head = _BEFORE_FIRST if base is None else _parent(base)
        version, at = head.version + 1, now if now > head.at else head.at + 1
        epoch = head.epoch if epoch is None else epoch
        if not -AT_MAX <= at <= AT_MAX:
            raise Invalid(f"The clock says {now} ns since 1970, or a commit before did: a commit's time ends in the year 2262.")
        hash = commit_hash(head.hash, version, at, epoch, self.static, self.digest)
        data = version if self.kind is _DATA else head.data
        made = Head(version, hash, at, epoch, head.status if status is None else status, data)
        return Record(made, self.id, int(self.kind), self.key, self.request, head.hash + self.meta, self.body)


def _parent(base: Base) -> Head:
    return Head(base.version, base.hash, base.at, raised(base.epoch, 0), int(Status.active), base.version)


def encode_meta(actor: str | None, trace: str | None, format: int) -> bytes:
    """What a record's `meta` says after the hash of the commit before."""
    return _META.encode((actor, trace, format))


def decode_meta(meta: bytes) -> tuple[str | None, str | None, int]:
    """Actor, trace and format of a record's `meta`. Raises `msgspec.DecodeError`, `TypeError`."""
    return _META_DECODER.decode(meta[PREV_BYTES:])


def request_digest(events: Sequence[Event]) -> bytes:
    """What a keyed call asked for, in 16 bytes: object order does not count, a changed value does."""
    return hashlib.sha256(msgspec.json.encode(events, order="sorted")).digest()[:16]


def state_digest(state: Any) -> bytes:
    """SHA-256 of a state, whatever format a snapshot has it in: object order does not count, a changed value does."""
    return hashlib.sha256(msgspec.json.encode(state, order="sorted")).digest()
