"""The envelope around every stored payload: what it is, how it is written, and where it ends.

    byte 0   magic: 0xD5 events, 0xD6 an erased body, 0xD7 a snapshot
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
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perdure.codec import formats
from perdure.codec.compress import compress, decompress
from perdure.errors import Corrupt, TooLarge
from perdure.model.events import Event
from perdure.model.ids import SessionKey
from perdure.model.values import no_room

BODY_BYTES_MAX = 16 << 20
"""Largest encoded body of a commit, before compression: 16 MiB."""
STATE_BYTES_MAX = 256 << 20
"""Largest encoded state in a snapshot, before compression: 256 MiB."""

_EVENTS, _ERASED, _SNAPSHOT = 0xD5, 0xD6, 0xD7
_VERSION = 1
_PREFIX = 4


def encode_events(events: Sequence[Event], code: int) -> bytes:
    """A commit's body. Raises `TooLarge` over `BODY_BYTES_MAX`, `Invalid` for what no format can hold."""
    payload, code = formats.encode(events, code)
    if len(payload) > BODY_BYTES_MAX:
        raise TooLarge(f"This commit has {len(payload):,} bytes; the limit is {BODY_BYTES_MAX:,}.", size=len(payload), limit=BODY_BYTES_MAX)
    return _wrap(_EVENTS, payload, code, b"")


def decode_events(body: bytes) -> tuple[Event, ...]:
    """The events of a body; none of an erased one. Raises `Corrupt`."""
    if body[:1] == bytes((_ERASED,)):
        return ()
    return tuple(_decode(body, _EVENTS, _PREFIX, BODY_BYTES_MAX, formats.decode_events))


def body_digest(body: bytes) -> bytes:
    """SHA-256 of a body as it was first stored: an erased one still knows it."""
    if body[:1] == bytes((_ERASED,)):
        return body[_PREFIX : _PREFIX + 32]
    return hashlib.sha256(body).digest()


def erase_body(body: bytes) -> bytes:
    """What stays of a body whose content must go: its digest, so that the chain still verifies."""
    return bytes((_ERASED, _VERSION, 0, 0)) + body_digest(body)


def encode_snapshot(session: SessionKey, version: int, hash: bytes, state: Any, code: int) -> bytes:
    """A sealed state at a version of a session's chain. Raises `TooLarge` over `STATE_BYTES_MAX`."""
    payload, code = formats.encode(state, code)
    if len(payload) > STATE_BYTES_MAX:
        raise TooLarge(
            f"This state has {len(payload):,} bytes; the limit is {STATE_BYTES_MAX:,}.", size=len(payload), limit=STATE_BYTES_MAX
        )
    wrapped = _wrap(_SNAPSHOT, payload, code, b"")
    return wrapped[:_PREFIX] + _seal(session, version, hash, wrapped) + wrapped[_PREFIX:]


def decode_snapshot(session: SessionKey, version: int, hash: bytes, body: bytes) -> Any:
    """The state. Raises `Corrupt` if the snapshot was damaged or belongs to another position or session."""
    if len(body) < _PREFIX + 32 or body[_PREFIX : _PREFIX + 32] != _seal(session, version, hash, body[:_PREFIX] + body[_PREFIX + 32 :]):
        raise Corrupt(f"The snapshot of session {session.id!r} at version {version} is damaged.")
    return _decode(body, _SNAPSHOT, _PREFIX + 32, STATE_BYTES_MAX, formats.decode_value)


def _seal(session: SessionKey, version: int, hash: bytes, wrapped: bytes) -> bytes:
    tenant, id = session.tenant.encode(), session.id.encode()
    position = b"".join((len(tenant).to_bytes(2, "big"), tenant, len(id).to_bytes(2, "big"), id, version.to_bytes(8, "big"), hash))
    return hashlib.sha256(position + wrapped).digest()


def _wrap(magic: int, payload: bytes, code: int, middle: bytes) -> bytes:
    stored, compression = compress(payload)
    return bytes((magic, _VERSION, code, compression)) + middle + stored


def _decode(body: bytes, magic: int, start: int, bytes_max: int, decode: Callable[[bytes, int], Any]) -> Any:
    def attempt() -> Any:
        try:
            found, version, code, compression = body[:_PREFIX]
            if found != magic or version != _VERSION:
                raise ValueError("the envelope is not one that this version knows")
            return decode(decompress(body[start:], compression, bytes_max), code)
        except (ValueError, KeyError, msgspec.DecodeError) as error:
            raise Corrupt(f"Stored bytes cannot be decoded: {error}.") from error

    try:
        return attempt()
    except RecursionError:
        return _afresh(attempt)


def _afresh(attempt: Callable[[], Any]) -> Any:
    """Decode with a stack of one's own: only there it is seen whether the bytes nest too deep, or the caller stood too deep."""
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
