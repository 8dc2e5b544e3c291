"""One request on its way to the engine: what changes from try to try."""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.backends.spi import Head
from perdure.codec.codec import Payload
from perdure.codec.records import Proposal
from perdure.engine.read.bodies import StoredBody
from perdure.engine.read.cache import CachedState
from perdure.engine.write.request import WriteRequest
from perdure.engine.write.resolve import Incarnation, Plan
from perdure.engine.write.starting import Finish, Start
from perdure.model.ids import life_key
from perdure.model.state import MISSING


class Tries(msgspec.Struct):
    """One request on its way: what changes from try to try."""

    request: WriteRequest
    id: bytes
    seen: CachedState | None
    expected: int | None
    state: Any = MISSING
    """The state that the commit makes, once it is resolved."""
    head: Head | None = None
    """The head that refused the last try."""
    incarnation: Incarnation | None = None
    """Set where an earlier life has used the key."""
    payload: Payload | None = None
    """The events, encoded."""
    proposal: Proposal | None = None
    start: Start | None = None
    """What the session begins with, if this is to start it."""
    finish: Finish | None = None
    """What gives the commit without that."""
    begun: bool = False
    """Whether what the session begins with was looked up."""
    at: int = 0
    """The time of the last try."""
    now: int | None = None
    """The time of the next try, if it is to be that of the one before, which only asked what the session begins with."""
    digest: bytes = b""
    """What is stored beside the key, of what was asked for."""
    trace: str | None = None
    """The W3C traceparent of the call."""
    body: StoredBody | None = None
    """What is sent in place of the proposal, whose body is stored out of line."""
    sent: bool = False
    """Whether a try may have been stored that was not answered."""
    proven: tuple[int, bytes] | None = None
    """The head on whose chain the expected commit is known to be, where its hash matters."""
    counted: bool = False
    """Whether it was counted against the tenant's quota."""
    lost: int = 0
    since: float = 0.0
    began: float = 0.0
    life: int = 0
    """The session's grant, as far as it is known."""
    bodies: list[str] = []
    """The names of all bodies that were stored out of line."""

    @property
    def key(self) -> str | None:
        """The idempotency key as it is stored."""
        key = self.request.options.key
        return key if key is None or self.incarnation is None else life_key(key, self.incarnation.tombstone)

    @property
    def starts_again(self) -> bool:
        """Whether the session begins with a policy in a later life too."""
        return self.request.options.begin is not None

    def take(self, plan: Plan) -> None:
        """Go on with the plan. What was encoded for other events is encoded again."""
        if plan.request.events is not self.request.events:
            self.payload = self.proposal = self.body = None
        self.request, self.seen, self.state = plan
