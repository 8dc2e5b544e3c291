"""The leases of one connection: those that it holds, and the challenges that it has seen.

A holder asks nobody for permission to go on. It looks at its heads now and then (see `keeper`), and answers who has challenged it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import msgspec

from perdure.backends.spi import Backend, Durability, Head
from perdure.clock import Clock
from perdure.concurrency.critical_section import CriticalSection
from perdure.concurrency.replies import FORKED, Reply
from perdure.engine.leasing import rules
from perdure.engine.leasing.keeper import Keeper
from perdure.engine.leasing.lease import AGAIN_AFTER, LOOKS, Lease, reused_for_lease
from perdure.engine.leasing.rules import Claim, Seen
from perdure.engine.live.watch import HEADS_MAX, Watch, Watchers
from perdure.engine.read.cache import Cache
from perdure.engine.views import LeaseInfo
from perdure.engine.write.controls import Basis, ControlChange, ControlCommit, ControlCommits
from perdure.engine.write.keys import Keys
from perdure.engine.write.once import KeyAppliedError, Keyed, look_up
from perdure.engine.write.snapshots import Snapshots
from perdure.engine.write.starting import begin_event
from perdure.errors import Closed, Corrupt, Deleted, Error, Fenced, NotFound, Unavailable, Unknown
from perdure.lru import LruMap
from perdure.model.commit import Kind
from perdure.model.control import NOTHING_SET
from perdure.model.epoch import grant_of, is_challenged, is_held
from perdure.model.events import Event
from perdure.model.fence import Fence, lost
from perdure.model.ids import SessionKey, check_name
from perdure.model.lease import RELEASED, LeaseSection
from perdure.model.lifecycle import Policy, first_due
from perdure.telemetry import Telemetry

SEEN_MAX = 4_096
"""Sessions of which it is remembered since when their lease has been seen challenged."""
HEARD = 0.5
"""For so much of its ttl a process answers for a holder that it has heard."""
ASK_PAUSE = 0.5
"""A holder that has answered is asked again after so much of its ttl."""
_JITTER_BITS = 16
_NOBODY = Claim("", "", 0.0)


Extend = Callable[[Basis, ControlChange], ControlChange]
"""What adds to the commits of a take, or of a release. Pure."""


class Attempt(NamedTuple):
    """What one look of somebody who wants a lease has come to."""

    fence: Fence | None
    """The lease is taken; `None`: `holder` has it."""
    holder: LeaseSection
    head: Head
    again_in: float
    """Seconds until there is something to do, unless the session moves on before."""


class Leases:
    """Takes, answers and releases leases. Safe from any thread and loop."""

    def __init__(
        self,
        backend: Backend,
        controls: ControlCommits,
        cache: Cache,
        snapshots: Snapshots,
        watchers: Watchers,
        clock: Clock,
        durability: Durability,
        telemetry: Telemetry,
        keys: Keys,
    ) -> None:
        """`durability` is that of answers and releases; a take has the strongest that the engine reaches."""
        self._backend, self._controls, self._cache, self._snapshots = backend, controls, cache, snapshots
        self._watchers, self._clock, self._durability, self._telemetry = watchers, clock, durability, telemetry
        self._keys = keys
        self._pid = os.getpid()
        self._seen = LruMap[SessionKey, Seen](SEEN_MAX)
        self._section = CriticalSection()
        self.keeper = Keeper(self.look, clock.monotonic)

    def check_process(self) -> None:
        """Raise `Closed` in a forked child, which has no thread that keeps leases."""
        if self._pid != os.getpid():
            raise Closed(FORKED)

    def monotonic(self) -> float:
        """Seconds on this process's own clock."""
        return self._clock.monotonic()

    def jitter(self, seconds: float) -> float:
        """Between 0.8 and 1.0 times as many seconds, so that processes which began together do not go on together."""
        return seconds * (1 - self._clock.bits(_JITTER_BITS) / (1 << _JITTER_BITS) / 5)

    async def attempt(self, session: SessionKey, claim: Claim, *, ask: bool, extend: Extend | None = None) -> Attempt:
        """Look once, and take the lease if that is allowed; else challenge its holder, with `ask`, if that is due. Nothing is waited for.

        `extend` adds to the append that takes it; what it raises stops the attempt.
        Raises `Deleted`, `Moved`, `Busy`, `Unavailable`, `Unknown`: then the next attempt with the same claim knows whether it has taken;
        `KeyReused` where a claim by the same key has taken it for something else.
        """
        looked: list[tuple[Basis, bool]] = []
        step, at = self._controls.grant_step(), self._clock.now()

        def decide(basis: Basis) -> ControlChange | None:
            seen, now = self._seen.get(session), self.monotonic()
            taking = not rules.is_own(basis, claim) and rules.may_take(basis, seen, now)
            looked.append((basis, taking))
            if taking:
                change = rules.take(basis, claim, step, at)
                return change if extend is None else extend(basis, change)
            if ask and not rules.is_own(basis, claim) and rules.may_challenge(basis, seen, now, ASK_PAUSE):
                return rules.challenge(basis, claim.owner)
            return None

        strongest = self._backend.capabilities.durability
        made = await self._controls.change(session, decide, actor=claim.owner, durability=strongest, create=True)
        basis, taking = looked[-1]
        head = basis.head if made is None else made.head
        if not taking and rules.is_own(basis, claim) and not rules.is_as_claimed(basis, claim):
            raise reused_for_lease(session, claim)
        if taking or rules.is_own(basis, claim):
            with self._section:
                self._seen.pop(session)
            if is_held(basis.head.epoch) and taking:
                self._telemetry.lease_taken_over()
            await self._store_snapshot(session)
            holder = LeaseSection(claim.owner, claim.ttl, at, claim.id, grant_of(head.epoch))
            return Attempt(Fence(session, grant_of(head.epoch)), holder, head, 0.0)
        if made is not None:
            self._telemetry.lease_challenged()
        if basis.holder is None:
            raise Corrupt(f"Session {session.id!r} is held, and nothing says by whom.", session=session.id)
        return Attempt(None, basis.holder, head, self._again_in(session, basis.holder, head.epoch))

    def begun(self, policy: Policy, change: ControlChange) -> ControlChange:
        """The change that starts a session, with the commit that says the policy which it begins with before it."""
        if policy.says_nothing:
            return change
        configured = ControlCommit(kind=Kind.configure, event=begin_event(policy))
        return msgspec.structs.replace(change, commits=(configured, *change.commits), due_at=first_due(policy, self._clock.now()))

    def _again_in(self, session: SessionKey, holder: LeaseSection, epoch: int) -> float:
        """Note what was seen; seconds until it says something new."""
        now = self.monotonic()
        with self._section:
            seen = rules.see(self._seen.get(session), epoch, now)
            self._seen.put(session, seen)
        if is_challenged(epoch):
            return seen.since + holder.ttl - now
        return 0.0 if seen.challenged is None else max(seen.challenged + ASK_PAUSE * holder.ttl - now, 0.0)

    async def _store_snapshot(self, session: SessionKey) -> None:
        """A session that is leased and nothing else gets a long log too."""
        known = self._cache.get(session)
        if known is not None and self._snapshots.is_due(known):
            await self._snapshots.store(session, known)

    @contextmanager
    def waiting(self, session: SessionKey) -> Iterator[Watch]:
        """For `moved`."""
        with self._watchers.waiting(session) as watch:
            yield watch

    async def moved(self, watch: Watch, head: Head, seconds: float) -> None:
        """Return soon after the session is at another head, after about so many seconds at the latest. Raises `Closed`."""
        try:
            await self._watchers.listen()
            await self._watchers.moved(watch, head, seconds)
        except (Unavailable, Unknown):
            await Reply[None]().within(min(seconds, self.jitter(AGAIN_AFTER)))

    def hold(self, fence: Fence, claim: Claim, max_hold: float | None, head: Head | None = None) -> Lease:
        """The lease of an attempt that has taken it, with the head that the attempt has made. From now on challenges of it are answered."""
        lease = Lease(self, fence, claim, self._clock.now(), max_hold)
        lease._name = "" if head is None else f"{head.version}-{head.hash.hex()}"
        now = self.monotonic()
        lease.looking(now, now + self.jitter(claim.ttl / LOOKS))
        lease.reached(now)
        self._watchers.add(lease._watch)
        self.keeper.add(lease)
        self._telemetry.leases_held(1)
        return lease

    def lost(self, session: SessionKey, claim: Claim = _NOBODY) -> Lease:
        """A lease that holds nothing: what is written under it finds its key, or is `Fenced`."""
        return Lease(self, Fence(session, -1), claim, self._clock.now(), None)

    def abandon(self, session: SessionKey, claim: Claim) -> None:
        """Nobody wants the lease of this claim, which may have been taken, or is about to be: the keeper releases it, if it can."""
        self.check_process()
        lease = self.lost(session, claim)
        lease._abandoned = True
        with suppress(Unavailable):
            self.keeper.add(lease)

    def hear(self, lease: Lease) -> None:
        """The holder of this lease has spoken to this process, and may speak to another one next: challenges are answered here for half a
        ttl from now on. So a holder that has died is found out, whichever process it spoke to."""
        lease._answers_until = self.monotonic() + HEARD * lease.ttl

    async def confirm(self, lease: Lease) -> None:
        """See `Lease.confirm`."""
        self._check(lease)
        began, head, reads = self.monotonic(), None, self._backend.capabilities.linearizable_reads
        if reads:
            (head,) = await self._backend.heads([lease._fence.session])
        if head is None or not lease._fence.admits(head) or is_challenged(head.epoch):
            await self._answer(lease, head, always=not reads)
        lease.reached(began)

    async def release(self, lease: Lease, key: str | None = None) -> None:
        """See `Lease.release`."""
        self.check_process()
        if lease._released:
            return
        keyed = None
        if key is not None:
            found = await self.released(lease._fence.session, lease.grant, key)
            if found is None:
                return
            keyed = found
        self._drop(lease)
        step = self._controls.grant_step()

        def decide(basis: Basis) -> ControlChange:
            if not rules.is_own(basis, lease._claim):
                raise lost(lease._fence.session, lease.token, basis.head)
            change = rules.let_go(basis, step)
            return change if lease._at_release is None else lease._at_release(basis, change)

        try:
            await self._controls.change(lease._fence.session, decide, actor=lease.owner, durability=self._durability, keyed=keyed)
        except KeyAppliedError:
            await self.released(lease._fence.session, lease.grant, str(key))
        lease._released = True

    async def released(self, session: SessionKey, grant: str, key: str) -> Keyed | None:
        """`None`: the lease of this grant was released by a call with this key; else how a release keeps the key. Raises `KeyReused`."""
        check_name("An idempotency key", key)
        found = await look_up(self._keys, session, key, Event(RELEASED, {"grant": grant}), self._durability)
        return found if isinstance(found, Keyed) else None

    async def look(self, leases: Sequence[Lease]) -> None:
        """Look at these leases: answer challenges, end those that are lost. After what the engine raises the next look comes in time."""
        now = self.monotonic()
        for lease in leases:
            if now >= lease._until:
                self._end(lease)
                self.abandon(lease._fence.session, lease._claim)
            elif now >= lease._answers_until:
                self._drop(lease)
        held = [lease for lease in leases if not lease._over]
        for start in range(0, len(held), HEADS_MAX):
            part = held[start : start + HEADS_MAX]
            began = self.monotonic()
            for lease in part:
                lease.looking(began, began + self.jitter(lease.ttl / LOOKS))
            with suppress(Error):
                heads = await self._backend.heads([lease._fence.session for lease in part])
                for lease, head in zip(part, heads, strict=True):
                    with suppress(Error):
                        await self._judge(lease, head, began)
            for lease in part:
                self._end_late(lease)

    async def _judge(self, lease: Lease, head: Head | None, began: float) -> None:
        fence = lease._fence
        if lease._over:
            return
        if lease._abandoned:
            await self._let_go_abandoned(lease)
            return
        if head is not None and fence.admits(head):
            lease.reached(began)
            lease._watch.version = max(lease._watch.version, head.version)
            if not is_challenged(head.epoch):
                return
        await self._answer(lease, head)
        lease.reached(began)

    async def _answer(self, lease: Lease, head: Head | None, *, always: bool = False) -> None:
        """Answer a challenge; with `always` write even where there is none. Raises `Fenced`, after the lease was ended, if it is lost."""
        fence, claim = lease._fence, lease._claim
        step = self._controls.grant_step()
        basis = None
        if head is not None and fence.admits(head) and not rules.needs_grant(head.epoch):
            # An answer changes nothing but the epoch: no state has to be read for it.
            basis = Basis(head, NOTHING_SET, 0, LeaseSection(claim.owner, claim.ttl, lease._since, claim.id, fence.grant))

        def decide(basis: Basis) -> ControlChange | None:
            if not rules.is_own(basis, claim):
                raise lost(fence.session, fence.grant, basis.head)
            fence.grant, fence.deciding = grant_of(basis.head.epoch), False
            if rules.needs_grant(basis.head.epoch):
                fence.deciding = True
                return rules.take(basis, claim, step, lease._since)
            return rules.answer(basis) if always or is_challenged(basis.head.epoch) else None

        try:
            made = await self._controls.change(fence.session, decide, actor=lease.owner, durability=self._durability, basis=basis)
        except (Fenced, NotFound, Deleted) as error:
            fence.deciding = False
            self._end(lease)
            raise error if isinstance(error, Fenced) else lost(fence.session, fence.grant, None) from error
        if made is not None:
            fence.grant, fence.deciding = grant_of(made.head.epoch), False
            fence.wrote(made.head)

    async def _let_go_abandoned(self, lease: Lease) -> None:
        step = self._controls.grant_step()

        def decide(basis: Basis) -> ControlChange | None:
            return rules.let_go(basis, step) if rules.is_own(basis, lease._claim) else None

        with suppress(NotFound, Deleted):
            if await self._controls.change(lease._fence.session, decide, actor=lease.owner, durability=self._durability) is not None:
                self._drop(lease)

    async def break_lease(self, session: SessionKey, actor: str | None, durability: Durability) -> LeaseInfo | None:
        """End the lease of a session by force; whose it was, or `None`. Raises `NotFound`, `Deleted`."""
        step = self._controls.grant_step()
        broken: list[LeaseInfo] = []

        def decide(basis: Basis) -> ControlChange | None:
            broken[:] = [LeaseInfo.of(session.id, basis.head.epoch, basis.holder)]
            return rules.let_go(basis, step, by_force=True) if is_held(basis.head.epoch) else None

        made = await self._controls.change(session, decide, actor=actor, durability=durability)
        return None if made is None else broken[0]

    def _check(self, lease: Lease) -> None:
        """Raise `Closed` in a child, and `Fenced` for a lease that has ended."""
        self.check_process()
        if lease._over:
            raise lease.ended_error()

    def _end_late(self, lease: Lease) -> None:
        """End what could not be looked at for a ttl. It may still be held, but its holder cannot know."""
        if lease._abandoned:
            if self.monotonic() >= lease._reached + lease.ttl:
                self._drop(lease)
        elif lease.lost.is_set() and not lease._over:
            self._end(lease)

    def _end(self, lease: Lease) -> None:
        if not lease._over:
            self._telemetry.lease_lost()
        self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        """The lease is held no more: nobody looks at it, and `lost` is set."""
        if lease._over:
            return
        self.keeper.remove(lease)
        self._watchers.remove(lease._watch)
        if not lease._abandoned:
            self._telemetry.leases_held(-1)
        lease._end()

    async def close(self) -> None:
        """Answer no challenge any more. What is still held is lost; others wait for its ttl."""
        for lease in self.keeper.held():
            self._drop(lease)
        await self.keeper.close()
