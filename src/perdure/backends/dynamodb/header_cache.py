"""What the header items of sessions looked like when they were last read or written."""

from __future__ import annotations

from perdure.backends.dynamodb.layout import Top
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

BYTES_MAX = 16 << 20
"""Bytes of records that are remembered, most."""
_WEIGHT = 512
"""What a header costs beside its records, about."""


class Tops:
    """Remembers the headers that were used last. Only ever a guess: each write is conditioned on what it took from here."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._tops = LruMap[SessionKey, Top](bytes_max, lambda top: top.tail_bytes + _WEIGHT)

    def get(self, session: SessionKey) -> Top | None:
        return self._tops.get(session)

    def remember(self, session: SessionKey, top: Top) -> None:
        """Remember this, unless a newer one is known."""
        known = self._tops.get(session)
        if known is None or known.head.version <= top.head.version:
            self._tops.put(session, top)

    def forget(self, session: SessionKey) -> None:
        self._tops.pop(session)
