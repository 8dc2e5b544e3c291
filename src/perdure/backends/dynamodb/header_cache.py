"""What the header items of sessions looked like when they were last read or written."""

from __future__ import annotations

from perdure.backends.dynamodb.layout import SessionHeader
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

BYTES_MAX = 16 << 20
"""Bytes of records that are remembered, most."""
_WEIGHT = 512
"""What a header costs beside its records, about."""


class HeaderCache:
    """Remembers the headers that were used last. Only ever a guess: each write is conditioned on what it took from here."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._headers = LruMap[SessionKey, SessionHeader](bytes_max, lambda header: header.tail_bytes + _WEIGHT)

    def get(self, session: SessionKey) -> SessionHeader | None:
        return self._headers.get(session)

    def remember(self, session: SessionKey, header: SessionHeader) -> None:
        """Remember this, unless a newer one is known."""
        known = self._headers.get(session)
        if known is None or known.head.version <= header.head.version:
            self._headers.put(session, header)

    def forget(self, session: SessionKey) -> None:
        self._headers.pop(session)
