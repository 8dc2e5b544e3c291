"""A lease: one holder of a session at a time. See `rules` for why it is one."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from perdure.backends.spi import Head
from perdure.concurrency.replies import Reply
from perdure.engine.leasing.lease_end import LeaseEnd
from perdure.engine.leasing.rules import Claim
from perdure.engine.live.watch import Watch
from perdure.engine.unentered import Asynchronous
from perdure.engine.write.controls import Basis, ControlChange
from perdure.errors import Busy, Deleted, Error, Fenced, Held, Invalid, KeyReused, NotFound, Unavailable, Unknown
from perdure.model.epoch import is_challenged
from perdure.model.fence import Fence
from perdure.model.ids import SessionKey
from perdure.model.lease import LeaseSection
from perdure.model.lifecycle import Policy
from perdure.model.timestamps import shown, to_datetime

if TYPE_CHECKING:
    from perdure.engine.leasing.leases import Attempt, Extend, Leases

LOOK_PAUSE = 0.2
"""Seconds, at least, between two looks of one who waits: a busy session moves all the time."""
LOOKS = 3
"""A holder looks at its leases so often in a ttl."""
AGAIN_AFTER = 0.25
"""Seconds until an engine that was away is asked again by one who waits."""
BY_KEY = "key "
"""What the id of a claim by an idempotency key begins with."""


class Lease:
    """A session that is held. Made by `store.lease`; passed to `append`, `edit`, `update`, `merge` and `configure` as `lease=`.

    `session`, `owner`, `ttl` (seconds) and `exclusive` are as they were asked for; `lost` is an event to wait for. It is of use in its
    process, its store and its tenant only.
    """

    def __init__(self, leases: Leases, fence: Fence, claim: Claim, since: int, max_hold: float | None) -> None:
        self._leases, self._fence, self._claim, self._since = leases, fence, claim, since
        now = leases.monotonic()
        self._until = math.inf if max_hold is None else now + max_hold
        self._looked = self._look_at = self._reached = now
        """When the last look was begun, when the next one is due, and when the last one was begun that found the lease held."""
        self._away: float | None = None
        """Since when the engine has not answered."""
        self._watch = _Hints(self)
        self._over = self._released = self._abandoned = False
        self._name = ""
        """See `grant`."""
        self._answers_until = math.inf
        """Until when challenges are answered here: a holder that speaks to several processes has to be heard by this one."""
        self._at_release: Extend | None = None
        """What the release writes besides."""
        self.lost = LeaseEnd(self._seconds_left, leases.monotonic)

    @property
    def session(self) -> str:
        """The session's id."""
        return self._fence.session.id

    @property
    def owner(self) -> str:
        """Who holds it, in the words of `store.lease`."""
        return self._claim.owner

    @property
    def ttl(self) -> float:
        """Seconds for which a challenge has to stand unanswered before somebody else may take the lease."""
        return self._claim.ttl

    @property
    def exclusive(self) -> bool:
        """Whether writes that are not made under the lease are `Fenced`."""
        return self._claim.exclusive

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every lease of this session before. It rises once more in a lease that was challenged
        about 2,000 times, which then takes itself over."""
        return self._fence.grant

    @property
    def grant(self) -> str:
        """The version and the hash of a commit that was made under the lease, by which another process goes on with it: see
        `Store.adopt`."""
        return self._name

    def __repr__(self) -> str:
        state = "ended" if self._over or self.lost.is_set() else "held"
        return f"<Lease [{state}] {self.session} token={self.token} owner={self.owner} since {shown(to_datetime(self._since))}>"

    async def confirm(self) -> None:
        """Ask the engine whether the lease still holds: before a side effect outside of the store. One round trip, and a write only where
        somebody waits for the lease, or where reads of the engine may be old.

        When it returns, nobody takes the lease over within `ttl` seconds from the call's start, by any clock that runs as fast as this
        one; except by force, and by deleting the session. Raises `Fenced`, `Unavailable`, `Unknown`, `Closed`.
        """
        await self._leases.confirm(self)

    async def release(self, *, key: str | None = None) -> None:
        """Let go, so that others need not wait. The end of the block does it too. `key`: an idempotency key of the session, by which a
        second call finds the first one, in another process too. Raises `Fenced` if the lease was lost, `KeyReused`, `Unavailable`,
        `Unknown`, `Closed`; a second call does nothing."""
        await self._leases.release(self, key)

    def _give_up(self) -> None:
        """Release it soon, as at the end of `max_hold`. Nothing is waited for: a finaliser may call this."""
        self._until = -math.inf
        self._leases.keeper.look_now(self)

    def looking(self, now: float, next: float) -> None:
        """The keeper looks at it now, and will look at `next`."""
        self._looked, self._look_at = now, next if self._until <= now else min(next, self._until)
        self._away = now if self._away is None else self._away

    def reached(self, began: float) -> None:
        """A look that began then has found it held."""
        self._reached, self._away = max(self._reached, began), None

    def ended_error(self) -> Fenced:
        """The error for one who goes on with it."""
        how = "was released" if self._released else "has ended"
        return Fenced(
            f"The lease of session {self.session!r} with token {self.token} {how}. Take it again, then decide again.",
            advice="",
            session=self.session,
            token=self.token,
        )

    def _seconds_left(self) -> float:
        """Until the engine will not have answered for a ttl. A process that was paused asks first."""
        if self._over:
            return -1.0
        now, look = self._leases.monotonic(), self.ttl / LOOKS
        left = self._reached + self.ttl - now
        return max(left, look) if self._away is None else max(left, self._away + look - now)

    def _end(self) -> None:
        self._over = True
        self.lost.is_set()


class _Hints(Watch):
    """Gives the keeper a hint when the session has moved on, other than by writes under the lease."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(lease._fence.session, 0)
        self._lease = lease
        lease._fence.wrote = self._wrote

    def _wrote(self, head: Head) -> None:
        self.version = head.version
        if is_challenged(head.epoch):
            self.notify()

    def notify(self) -> None:
        self._lease._leases.keeper.hint(self._lease)


class Leasing(Asynchronous):
    """`async with store.lease(...) as lease`: waits for the lease, and lets go of it at the end of the block.

    A lease that was lost in the block raises nothing at its end: what mattered was written under it, and `Fenced`.
    """

    _right = "async with store.lease(...) as lease"

    def __init__(
        self,
        leases: Leases,
        session: SessionKey,
        claim: Claim,
        wait: float,
        max_hold: float | None,
        begins: Callable[[], Awaitable[Policy | None]] | None,
    ) -> None:
        """`begins`: looks up the policy of a session that the take starts; `None`: there is none."""
        self._leases, self._session, self._claim, self._wait, self._max_hold = leases, session, claim, wait, max_hold
        self._begins, self._policy = begins, Policy()
        self._lease: Lease | None = None
        self._entered = self._repeated = False

    def repeats(self, key: str) -> None:
        """A second request with this key that wants the lease gets the one that the first has taken, while that holds. Then one that wants
        it with another owner, ttl or `exclusive` is `KeyReused`. What was taken for a lost answer is not released here: the second request
        may have come to another process, and its client holds it."""
        self._claim, self._repeated = msgspec.structs.replace(self._claim, id=BY_KEY + key), True

    async def __aenter__(self) -> Lease:
        if self._entered:
            raise Invalid("A lease is entered once: call store.lease again.")
        self._entered = True
        try:
            self._lease = await self._take()
        except (Held, Deleted, NotFound):
            raise
        except BaseException:
            self._abandon()
            raise
        return self._lease

    def _abandon(self) -> None:
        """A take may be on its way; if it lands, nobody wants it."""
        if not self._repeated:
            self._leases.abandon(self._session, self._claim)

    async def _take(self) -> Lease:
        leases, session = self._leases, self._session
        until = leases.monotonic() + self._wait
        unsure: Error | None = None
        with leases.waiting(session) as watch:
            while True:
                looked = leases.monotonic()
                try:
                    attempt = await self._attempt()
                except (Busy, Unavailable, Unknown) as error:
                    unsure, left = error, until - leases.monotonic()
                    if left <= 0:
                        raise
                    await Reply[None]().within(min(left, leases.jitter(AGAIN_AFTER)))
                    continue
                if attempt.fence is not None:
                    return leases.hold(attempt.fence, self._claim, self._max_hold, attempt.head)
                left = until - leases.monotonic()
                if left <= 0:
                    if isinstance(unsure, Unknown):
                        self._abandon()
                    raise held(session, attempt.holder)
                await leases.moved(watch, attempt.head, min(left, attempt.again_in))
                rest = leases.jitter(LOOK_PAUSE) - (leases.monotonic() - looked)
                if rest > 0:
                    await Reply[None]().within(rest)

    async def _attempt(self) -> Attempt:
        try:
            return await self._leases.attempt(self._session, self._claim, ask=self._wait > 0, extend=self._begun)
        except _PolicyNeededError:
            found = None if self._begins is None else await self._begins()
            self._policy, self._begins = found or Policy(), None
            return await self._attempt()

    def _begun(self, basis: Basis, change: ControlChange) -> ControlChange:
        """The take, with the policy that a session begins with which it starts."""
        if basis.head.version:
            return change
        if self._begins is not None:
            raise _PolicyNeededError
        return self._leases.begun(self._policy, change)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        lease = self._lease
        if lease is None:
            return
        self._leases.check_process()
        try:
            with suppress(Fenced, Deleted, NotFound):
                await lease.release()
        except Error:
            self._leases.abandon(self._session, self._claim)
        except BaseException:
            self._leases.abandon(self._session, self._claim)
            raise


class _PolicyNeededError(Exception):
    """The take would start the session, and it is not known yet what that begins with."""


def held(session: SessionKey, holder: LeaseSection) -> Held:
    """The error for a lease that somebody else has held for the whole wait."""
    since = to_datetime(holder.since)
    return Held(
        f"Session {session.id!r} is held by {holder.owner!r} since {shown(since)}, with a ttl of {holder.ttl:g} s.",
        session=session.id,
        owner=holder.owner,
        since=since,
        ttl=holder.ttl,
    )


def reused_for_lease(session: SessionKey, claim: Claim) -> KeyReused:
    """The error for a key whose first request has taken the lease for another owner, or with another ttl or `exclusive`."""
    key = claim.id.removeprefix(BY_KEY)
    what = f"The idempotency key {key!r} has taken the lease of session {session.id!r} for another owner, ttl or `exclusive`."
    return KeyReused(what, session=session.id)
