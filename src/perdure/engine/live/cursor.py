"""Cursors of `changes`: the engine's place, what of the page there was delivered, and a commit that proves that nothing was lost.

An engine gives a place for each page and not for each record, and a page that is read again may have more in it. So a cursor from within a
page names the page's beginning and the newest version that was passed of each session in it; what is up to that is not given again.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from hashlib import blake2b

import msgspec

from perdure.errors import Invalid

CURSOR_CHARACTERS_MAX = 1 << 20
"""Longest text that is looked into as a cursor. Those of a usual page have at most 5,000 characters."""
HASH_BYTES = 8
"""So much of a commit's hash stands in a cursor: enough to see by accident alone that it is another one."""
_MARK = "c1."
"""What each begins with: a text that begins with a hyphen would be an option in a shell."""
_FORMAT = 1
_CHECK_BYTES = 8
_PASSED = struct.Struct(f">8sQ{HASH_BYTES}s")


class Proof(msgspec.Struct, frozen=True, array_like=True):
    """A commit that was seen: session id, version, and the beginning of its hash."""

    session: str
    version: int
    hash: bytes


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a follower stands: the engine's cursor of a page, the newest commit seen, and what was passed of that page (see `passed`)."""

    feed: str | None
    proof: Proof | None
    passed: bytes
    format: int = _FORMAT


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Place).decode


class Cursors:
    """Writes and reads the cursors of one store and tenant."""

    def __init__(self, store_id: str, tenant: str) -> None:
        self._tenant = tenant
        self._key = blake2b(f"{store_id}\x1f{tenant}".encode()).digest()

    def mark(self, session: str) -> bytes:
        """A session's short name in a cursor."""
        return blake2b(session.encode(), key=self._key, digest_size=8).digest()

    def write(self, place: Place) -> str:
        """The place as a text."""
        body = _ENCODE(place)
        return _MARK + urlsafe_b64encode(self._check(body) + body).rstrip(b"=").decode()

    def read(self, cursor: object) -> Place:
        """The place of a text. Raises `Invalid`."""
        if not isinstance(cursor, str):
            raise Invalid(f"after must be a cursor of `changes`, which is a string, not {type(cursor).__name__}.")
        try:
            coded = cursor[:CURSOR_CHARACTERS_MAX].removeprefix(_MARK)
            data = urlsafe_b64decode(coded + "=" * (-len(coded) % 4)) if cursor.startswith(_MARK) else b""
            check, body = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
            place = _DECODE(body)
        except (ValueError, msgspec.MsgspecError):
            raise Invalid(f"{cursor[:40]!r} is no cursor of `changes`. Pass one that a change had, or leave it out.") from None
        if check != self._check(body) or place.format != _FORMAT or len(place.passed) % _PASSED.size:
            message = f"This cursor is of another store or tenant than {self._tenant!r} here, or it was changed."
            raise Invalid(f"{message} Pass one that a change of this tenant had, or leave it out to begin at the start.")
        return place

    def _check(self, body: bytes) -> bytes:
        return blake2b(body, key=self._key, digest_size=_CHECK_BYTES).digest()


def passed(mark: bytes, version: int, hash: bytes) -> bytes:
    """The entry in `Place.passed` of a session's newest version that was passed."""
    return _PASSED.pack(mark, version, hash)


def all_passed(entries: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """The mark, version and hash of each entry, oldest first."""
    return _PASSED.iter_unpack(entries)
