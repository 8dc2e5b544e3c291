"""States that have grown large: each session is logged and counted once, with the path that has most of its bytes.

What is compared at each commit is a bound that is known anyway: no state has more bytes than the operations that made it. Only where the
bound passes the limit the state is measured, and then not again until the bound has grown by a part of the limit.
"""

from __future__ import annotations

import logging

from perdure.codec.codec import Codec
from perdure.engine.read.cache import CachedState
from perdure.errors import Error
from perdure.lru import LruMap
from perdure.model.ids import SessionKey
from perdure.model.weights import heaviest_path
from perdure.telemetry import Telemetry

SESSIONS_MAX = 65_536
"""Sessions of which it is remembered that they were measured. One that is forgotten may be logged again."""
MEASURE_SHARE = 4
"""A state that is not too large is measured again when the bound has grown by a quarter of the limit."""
_log = logging.getLogger("perdure")


class StateSizes:
    """Looks after the sizes of one connection's states. Safe from any thread."""

    def __init__(self, codec: Codec, bytes_max: int, telemetry: Telemetry) -> None:
        """`bytes_max`: a larger state, encoded, is logged."""
        self._codec, self._bytes_max, self._telemetry = codec, bytes_max, telemetry
        self._again = LruMap[SessionKey, float](SESSIONS_MAX)
        """The bound from which a session is measured again; infinite for one that was logged."""

    def check(self, session: SessionKey, cached: CachedState) -> None:
        """Log the session, if its state is too large and that was not said yet."""
        if cached.state_bytes > self._bytes_max and cached.state_bytes > (self._again.get(session) or 0):
            self._measure(session, cached)

    def _measure(self, session: SessionKey, cached: CachedState) -> None:
        try:
            size = self._codec.state_bytes(cached.state)
        except Error:  # The caller has too little room on its stack; the next one may have more.
            return
        if size <= self._bytes_max:
            room = max(self._bytes_max - size, self._bytes_max // MEASURE_SHARE)
            self._again.put(session, cached.state_bytes + room)
            return
        self._again.put(session, float("inf"))
        self._telemetry.large_state()
        heaviest = heaviest_path(cached.state)
        _log.warning(
            "The state of session %r in tenant %r has %d bytes, more than warn_bytes=%d; %d of them are at %s. "
            "Every reader loads all of it: keep what only grows in events, and large values elsewhere.",
            session.id,
            session.tenant,
            size,
            self._bytes_max,
            heaviest.bytes,
            heaviest.path or "its root",
        )
