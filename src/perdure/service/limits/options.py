"""The limits of a node, with units and defaults."""

from __future__ import annotations

import msgspec

from perdure.errors import Invalid

_MIB = 1 << 20


class LimitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much each tenant may ask of this node; 0: as much as it likes. Rates allow a burst of one second's worth."""

    requests: float = 10_000.0
    """Requests a second, those of event streams too."""
    commits: float = 20_000.0
    """Commits a second that it asks for, whether they are stored or not."""
    bytes: float = 128.0 * _MIB
    """Bytes a second of bodies, in requests and in answers."""
    watchers: int = 15_000
    """Event streams and long polls at once."""
    open: int = 2_000
    """Other requests at once, those that wait for their turn too."""
    turns: int = 256
    """Requests of all tenants that the engine works on at once."""
    turn_seconds: float = 10.0
    """Seconds that a request waits for its turn at most; then it is 503, and nothing was done."""

    def __post_init__(self) -> None:
        for name in ("requests", "commits", "bytes", "watchers", "open"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise Invalid(f"--limit-{name} takes 0 (no limit) or more.", advice="")
        if self.turns < 1:
            raise Invalid("--turns takes 1 or more.", advice="")
        if not 0 < self.turn_seconds <= 86_400:
            raise Invalid("--turn-seconds takes more than 0 and at most 86,400.", advice="")
