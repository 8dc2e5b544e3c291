"""The envelope around every stored payload: what it is, how it is written, and where it ends.

    byte 0   magic: 0xD5 events, 0xD6 an erased body, 0xD7 a snapshot; 0xD8: see `codec.out_of_line`
    byte 1   envelope version, 1
    byte 2   format: 1 JSON, 2 MessagePack
    byte 3   compression: 0 none, 1 zstd, 2 zstd with the dictionary of `codec.compress`
    then     events:   the payload
             erased:   SHA-256 of the body that stood here (32 bytes); the chain still verifies
             snapshot: SHA-256 over position and payload (32 bytes), then the payload

Decoding never trusts: unknown numbers, a size over the limit, a damaged frame or wrong types are `Corrupt`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.codec.compress import compress, decompress, decompressed_bytes
from perdure.codec.out_of_line import is_reference
from perdure.errors import Corrupt
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.record import Snapshot
from perdure.model.values import no_room

EVENTS, ERASED, SNAPSHOT = 0xD5, 0xD6, 0xD7
FORMAT = 2
"""Where a body says its format."""
_VERSION = 1
_PREFIX = 4
_DIGEST = 32

Decode = Callable[[bytes, int], Any]
"""From a payload and the code of its format to what it says."""


def wrap_events(payload: bytes, format: int) -> bytes:
    """A commit's body."""
    return _wrap(EVENTS, payload, format)


def unwrap_events(body: bytes, bytes_max: int, decode: Decode) -> tuple[Event, ...]:
    """The events of a body that was not erased. Raises `Corrupt`."""
    return tuple(_unwrap(body, EVENTS, _PREFIX, bytes_max, decode))


def is_erased(body: bytes) -> bool:
    """Whether only the digest of this body is left."""
    return body[:1] == bytes((ERASED,))


def body_digest(body: bytes) -> bytes:
    """SHA-256 of a body as it was first stored: an erased one, and the reference to one that lies elsewhere, still know it."""
    known = is_erased(body) or is_reference(body)
    return body[_PREFIX : _PREFIX + _DIGEST] if known else hashlib.sha256(body).digest()


def payload_bytes(body: bytes) -> int:
    """How many bytes the payload of events or of a snapshot has, uncompressed. Nothing is decompressed; 0 for a body that has none here."""
    start = _PREFIX + (_DIGEST if body[:1] == bytes((SNAPSHOT,)) else 0)
    return 0 if is_erased(body) or is_reference(body) or len(body) < start else decompressed_bytes(body[start:], body[3])


def erase_body(body: bytes) -> bytes:
    """What stays of a body whose content must go: its digest, so that the chain still verifies."""
    return bytes((ERASED, _VERSION, 0, 0)) + body_digest(body)


def wrap_snapshot(session: SessionKey, version: int, hash: bytes, payload: bytes, format: int) -> bytes:
    """A snapshot's body: the digest in it covers the place in the chain too."""
    wrapped = _wrap(SNAPSHOT, payload, format)
    return wrapped[:_PREFIX] + _seal(session, version, hash, wrapped) + wrapped[_PREFIX:]


def unwrap_snapshot(session: SessionKey, snapshot: Snapshot, bytes_max: int, decode: Decode) -> Any:
    """The state. Raises `Corrupt` if the snapshot was damaged, or belongs to another place or session."""
    body, start = snapshot.body, _PREFIX + _DIGEST
    seal = _seal(session, snapshot.version, snapshot.hash, body[:_PREFIX] + body[start:])
    if len(body) < start or body[_PREFIX:start] != seal:
        raise Corrupt(f"The snapshot of session {session.id!r} at version {snapshot.version} is damaged.")
    return _unwrap(body, SNAPSHOT, start, bytes_max, decode)


def _seal(session: SessionKey, version: int, hash: bytes, wrapped: bytes) -> bytes:
    tenant, id = session.tenant.encode(), session.id.encode()
    position = b"".join((len(tenant).to_bytes(2, "big"), tenant, len(id).to_bytes(2, "big"), id, version.to_bytes(8, "big"), hash))
    return hashlib.sha256(position + wrapped).digest()


def _wrap(magic: int, payload: bytes, format: int) -> bytes:
    stored, compression = compress(payload)
    return bytes((magic, _VERSION, format, compression)) + stored


def _unwrap(body: bytes, magic: int, start: int, bytes_max: int, decode: Decode) -> Any:
    def attempt() -> Any:
        try:
            found, version, format, compression = body[:_PREFIX]
            if found != magic or version != _VERSION:
                raise ValueError("the envelope is not one that this version knows")
            return decode(decompress(body[start:], compression, bytes_max), format)
        except (ValueError, KeyError, msgspec.DecodeError) as error:
            raise Corrupt(f"Stored bytes cannot be decoded: {error}.") from error

    try:
        return attempt()
    except RecursionError:
        return _on_new_stack(attempt)


def _on_new_stack(attempt: Callable[[], Any]) -> Any:
    """Decode in a thread of its own. Only there it shows whether the bytes nest too deep, or the caller's stack was nearly full."""
    made: list[Any] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            made.append(attempt())
        except RecursionError as error:
            failed.append(Corrupt(f"Stored bytes cannot be decoded: {error}."))
        except Exception as error:  # noqa: BLE001 - carried to the thread that asked
            failed.append(error)

    try:
        thread = threading.Thread(target=run, name="perdure-decode")
        thread.start()
        thread.join()
    except RecursionError:
        raise no_room() from None
    if failed:
        raise failed[0]
    return made[0]
