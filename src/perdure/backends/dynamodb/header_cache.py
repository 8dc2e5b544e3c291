"""What the top items of sessions looked like when they were last read or written."""

from __future__ import annotations

from collections import OrderedDict

from perdure.backends.dynamodb.layout import Top
from perdure.model.ids import SessionKey

BYTES_MAX = 16 << 20
"""Bytes of records that are remembered, most."""
_WEIGHT = 512
"""What a top costs beside its records, about."""


class Tops:
    """Remembers the tops used last. Only ever a guess: each write is conditioned on what it took from here."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max, self._bytes = bytes_max, 0
        self._tops: OrderedDict[SessionKey, Top] = OrderedDict()

    def get(self, session: SessionKey) -> Top | None:
        return self._tops.get(session)

    def remember(self, session: SessionKey, top: Top) -> None:
        """Remember this, unless a newer one is known."""
        known = self._tops.get(session)
        if known is not None and known.head.version > top.head.version:
            return
        self.forget(session)
        self._tops[session] = top
        self._bytes += top.tail_bytes + _WEIGHT
        while self._bytes > self._bytes_max:
            self.forget(next(iter(self._tops)))

    def forget(self, session: SessionKey) -> None:
        top = self._tops.pop(session, None)
        if top is not None:
            self._bytes -= top.tail_bytes + _WEIGHT
