"""From a request to a receipt: resolve it on the newest state, append it where the head allows that, and try again where the head moved.

A control commit (tags, a pin, a fork's start) changes no state, so nothing conflicts with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from perdure.backends.common.pacing import Pacing
from perdure.backends.spi import Append, Appended, Backend, Head, Refused
from perdure.clock import Clock
from perdure.codec.codec import Codec, Payload
from perdure.codec.records import Proposal
from perdure.concurrency.replies import Reply
from perdure.config import Settings
from perdure.engine.live.watch import Watchers
from perdure.engine.read.bodies import Bodies
from perdure.engine.read.cache import Cache
from perdure.engine.read.reader import Reader
from perdure.engine.read.sizes import StateSizes
from perdure.engine.views import Receipt
from perdure.engine.write.keys import Keys, digest_of
from perdure.engine.write.lookups import Lookups
from perdure.engine.write.prefixes import PrefixPolicies
from perdure.engine.write.quotas import Quotas
from perdure.engine.write.request import EVENTS, NOTHING, Mode, WriteRequest, has_ops
from perdure.engine.write.resolve import (
    RECREATED,
    Finish,
    Incarnation,
    OtherLife,
    Plan,
    applied,
    check_writable,
    conflict,
    fits,
    following,
    missing_after,
    resolve,
)
from perdure.engine.write.session_queue import SessionQueue, Slot
from perdure.engine.write.snapshots import Snapshots
from perdure.engine.write.starting import first_state, start_with, started_at, starting, starts
from perdure.engine.write.tries import Tries
from perdure.engine.write.writer import Writer
from perdure.errors import AlreadyExists, Busy, Conflict, Deleted, Error, Fenced, KeyReused, Moved, NotFound, Rewound, Unknown
from perdure.model.commit import Status
from perdure.model.epoch import raised
from perdure.model.fence import is_undecided
from perdure.model.ids import SessionKey, uuid7
from perdure.model.state import MISSING
from perdure.telemetry import Telemetry, traceparent

UNDECIDED_PAUSE = 0.05
"""Seconds until a write is tried again that came while its lease was taking its next grant."""
_REFUSALS = (AlreadyExists, Conflict, Deleted, Fenced, Moved, NotFound, Rewound)
"""What a head answers that a commit does not fit: then it was certainly not stored."""


class Committer:
    """Writes commits for one store, of any tenant."""

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        writer: Writer,
        reader: Reader,
        cache: Cache,
        keys: Keys,
        snapshots: Snapshots,
        prefixes: PrefixPolicies,
        watchers: Watchers,
        clock: Clock,
        settings: Settings,
        telemetry: Telemetry,
        bodies: Bodies,
        quotas: Quotas | None,
        sizes: StateSizes,
    ) -> None:
        self._backend, self._codec, self._writer, self._reader, self._cache = backend, codec, writer, reader, cache
        self._keys, self._snapshots, self._prefixes, self._watchers = keys, snapshots, prefixes, watchers
        self._clock, self._settings, self._telemetry = clock, settings, telemetry
        self.restore: Callable[[SessionKey], Awaitable[object]] | None = None
        """Makes an archived session live. It is set where the parts of a connection are put together, for it writes commits itself."""
        self._bodies, self._quotas, self._sizes = bodies, quotas, sizes
        self._lookups = Lookups(backend, reader, cache, bodies)
        self._queue = SessionQueue(clock.monotonic)
        self._pacing = Pacing(clock.monotonic, clock.bits)

    def new_id(self) -> bytes:
        """A UUIDv7."""
        return uuid7(self._clock.now(), self._clock.bits(74))

    def commit(self, request: WriteRequest) -> Coroutine[Any, Any, Receipt]:
        """Write a request, once the coroutine is awaited.

        Raises `Conflict`, `Busy`, `Invalid`, `Deleted`, `AlreadyExists`, `NotFound`, `Unknown`, `Unavailable`, `TooLarge`.
        """
        if request.mode is EVENTS and not self._queue.is_reserved(request.session):
            return self._commit(request)
        return self._in_slot(request)

    async def _in_slot(self, request: WriteRequest) -> Receipt:
        async with self._queue.slot(request.session):
            return await self._commit(request)

    def slot(self, session: SessionKey) -> Slot:
        """`async with`: no other commit of this session in this process, events alone included, for as long as they wait for a slot."""
        self._queue.reserve(session)
        return self._queue.slot(session)

    async def pause(self, session: SessionKey) -> bool:
        """Hold back where other processes win the races for this session; whether it did, so that the cached state may be old."""
        seconds = self._pacing.pause(session)
        if seconds:
            await Reply[None]().within(seconds)
        return bool(seconds)

    def now(self) -> float:
        """Seconds on the monotonic clock, for `busy`."""
        return self._clock.monotonic()

    def busy(self, session: SessionKey, tries: int, since: float) -> Busy:
        """What to raise when so many tries since a moment of `now` were overtaken."""
        seconds = self.now() - since
        message = f"{tries} tries in {seconds:.1f} s to write to session {session.id!r} were overtaken by other writers."
        return Busy(message, session=session.id, tries=tries, seconds=seconds)

    def _commit(self, request: WriteRequest) -> Coroutine[Any, Any, Receipt]:
        tries = Tries(request, self.new_id(), request.base, request.expected_version)
        return self._with_bodies(tries) if self._bodies.stores else self._try(tries)

    async def _with_bodies(self, tries: Tries) -> Receipt:
        """Store it, and remove the bodies out of line that were stored for tries which were refused."""
        if (known := self._cache.get(tries.request.session)) is not None:
            tries.life = raised(known.head.epoch, 0)
        try:
            receipt = await self._try(tries)
        except Error as error:
            if not tries.sent or isinstance(error, KeyReused):
                await self._bodies.remove(tries.bodies)
            raise
        if receipt.id == tries.id and tries.sent:
            await self._bodies.remove([name for name in tries.bodies if tries.body is None or name != tries.body.name])
        elif receipt.id not in (b"", tries.id):  # Else the commit that has the key may be this one.
            await self._bodies.remove(tries.bodies)
        return receipt

    async def _try(self, tries: Tries) -> Receipt:
        request, session = tries.request, tries.request.session
        tries.trace = request.trace or traceparent()
        tries.digest = digest_of(request.options, request.asked or request.events)
        while True:
            if request.mode is not EVENTS:
                if (receipt := await self._resolve(request, tries)) is not None:
                    return receipt
                if tries.start is None and starts(None if tries.seen is None else tries.seen.head, again=tries.starts_again):
                    await self._begin(tries)
                if request.options.expect_hash is not None and tries.seen is not None:
                    await self._lookups.require_on_chain(tries, tries.seen.head)
            self._encoded(tries)  # Now, and not when it is sent: the caller may change its data while it waits.
            if self._bodies.stores:
                await self._out_of_line(tries)
            sent = self.now()
            try:
                outcome = await self._writer.submit(self._append_of, tries)
                if isinstance(outcome, OtherLife):
                    self._enter_life(tries, outcome.life)
                    continue
                if isinstance(outcome, BaseException):
                    if isinstance(outcome, _REFUSALS):
                        tries.sent = False
                    raise outcome
            except Unknown as lost_answer:
                receipt = None if "settled" in lost_answer.facts else await self._lookups.find(request, tries)
                if receipt is None:
                    raise
                return receipt
            except Error:
                raise
            except BaseException:  # Cancelled: the append may still be in progress.
                self._reader.doubt(session)
                raise
            if isinstance(outcome, Appended):
                head = outcome.head
                self._telemetry.committed(request.operation, tries.lost)
                self._pacing.won(session)
                if request.options.fence is not None:
                    request.options.fence.wrote(head)
                self._watchers.notify(session, head.version)
                if tries.state is not MISSING or session in self._cache:
                    await self._remember(tries, outcome, sent)
                level = outcome.durability if tries.body is None else min(outcome.durability, self._bodies.durability)
                if tries.finish is not None and tries.start is not None:
                    head = started_at(outcome, tries.finish)
                return Receipt(head.version, tries.id, head.hash, head.at, level)
            if isinstance(outcome, Refused):
                tries.sent = False
                if self.restore is not None and outcome.head is not None and outcome.head.status == Status.archived:
                    await self.restore(session)
                elif request.mode is EVENTS and not tries.begun and starts(outcome.head, again=tries.starts_again):
                    tries.now = tries.at
                    await self._begin(tries)
                else:
                    tries.begun, tries.start = tries.begun and tries.start is None, None
                    await self._lost(tries, outcome.head)
                continue
            incarnation = await self._keys.later_incarnation(session, outcome)
            if incarnation is None:
                return await self._keys.replayed(request, outcome, str(tries.key))
            tries.incarnation, tries.proposal, tries.body = incarnation, None, None
            tries.bodies.clear()  # One may be that of the commit which has the key.

    async def _resolve(self, request: WriteRequest, tries: Tries) -> Receipt | None:
        """Bring the request onto the newest state, or find that its key was applied before. What is refused, the newest state refuses."""
        session = request.session
        while True:
            if request.mode is not Mode.exact and await self.pause(session):
                tries.head = (await self._backend.heads([session]))[0]
            tries.began = self.now()
            try:
                tries.take(await self._plan(tries))
            except Error:
                receipt = await self._keys.applied(request)
                if receipt is not None:
                    return receipt
                newer = await self._lookups.newer_head(session, tries.head)
                if newer is None:
                    raise
                tries.head = newer
            else:
                return None

    async def _plan(self, tries: Tries) -> Plan:
        request, seen = tries.request, tries.seen
        current = await self._reader.cached(request.session, head=tries.head)
        if seen is not None and seen is not NOTHING and request.mode is not Mode.any_state:
            current = await self._lookups.require_seen(request, seen.head, current)
        if request.decide is not None:
            check_writable(request, None if current is None else current.head)
            events = await request.decide(current or NOTHING)
            return applied(msgspec.structs.replace(request, events=events), current)
        after = missing_after(request, seen, current)
        theirs = [] if after is None or current is None else await self._reader.between(request.session, after, current.head.version)
        if theirs:
            self._telemetry.rebased(len(theirs))
        found = resolve(request, seen, current, theirs)
        if isinstance(found, Conflict):
            raise await self._lookups.explained(request, None if current is None else current.head, found)
        return found

    def _encoded(self, tries: Tries) -> Payload:
        """The events of the next try, encoded once. Raises `TooLarge`, `Invalid`."""
        if tries.payload is None:
            tries.payload = self._codec.encode(tries.request.events)
        return tries.payload

    def _proposed(self, tries: Tries) -> Proposal:
        """The next try; what was made for an earlier one is used again where it is the same. Raises `QuotaExceeded`."""
        proposal = tries.proposal
        if proposal is None:
            request = tries.request
            proposal = tries.proposal = self._codec.propose_encoded(
                request.session,
                self._encoded(tries),
                id=tries.id,
                actor=request.options.actor,
                key=tries.key,
                request=tries.digest,
                trace=tries.trace,
            )
            if self._quotas is not None and not tries.counted:
                self._quotas.take(request.session.tenant, len(proposal.body))
                tries.counted = True
        return proposal

    async def _begin(self, tries: Tries) -> None:
        """Look up what the session begins with, if this write starts it."""
        request = tries.request
        tries.begun = True
        policy = await self._prefixes.begins(request.session, request.options.begin)
        if policy is not None:
            tries.start = start_with(self._codec, request.session, policy, self.new_id(), self._clock.now())

    async def _out_of_line(self, tries: Tries) -> None:
        """Store the body of the next try, if it is large: a reference to it is sent."""
        proposal = self._proposed(tries)
        if tries.body is None and self._bodies.is_large(proposal.body):
            tries.body = await self._bodies.store(tries.request.session, proposal, tries.request.events, tries.life)
            tries.bodies.append(tries.body.name)

    def _enter_life(self, tries: Tries, life: int) -> None:
        """The session was deleted, and perhaps purged, since the body was stored: it has to be stored again. Raises `Busy`."""
        tries.life, tries.body, tries.sent = life, None, False
        tries.lost, tries.since = tries.lost + 1, tries.since or tries.began or self.now()
        if tries.lost >= self._settings.attempts:
            raise self.busy(tries.request.session, tries.lost, tries.since)

    def _append_of(self, tries: Tries) -> Append:
        """The next try, for the engine."""
        request, body, start = tries.request, tries.body, tries.start
        proposal = self._proposed(tries) if body is None else body.proposal
        tries.at = now = self._clock.now() if tries.now is None else tries.now
        tries.now = None
        begins = None if tries.begun or request.mode is not EVENTS else self._prefixes.may_apply
        life = None if body is None else body.life
        exact = Finish(request, tries.seen, tries.expected, tries.incarnation, proposal, now, life, begins)
        finish = exact if request.options.expect_hash is None else following(request, tries.proven, exact)
        tries.sent = True
        if start is None:
            return Append(request.session, finish, tries.key, None, request.durability)
        tries.finish = finish
        started = starting(finish, start, proposal, now, again=tries.starts_again)
        return Append(request.session, started, tries.key, start.index, request.durability)

    async def _remember(self, tries: Tries, outcome: Appended, sent: float) -> None:
        """Keep the state that this commit made; it was sent at `sent` of `now`. Store a snapshot when the log outweighs the last one."""
        session, proposal, previous = tries.request.session, tries.proposal, outcome.previous
        known = self._cache.get(session)
        if proposal is None or (known is None and tries.state is MISSING):
            return  # Events alone need no state: nothing is kept for a session that only appends.
        if previous is None:
            known = first_state(outcome.head, tries.start)
        elif known is None or known.head.hash != previous.hash:
            return
        state = tries.state
        if state is MISSING:
            state = {} if previous is not None and previous.status != outcome.head.status else known.state
        changes = has_ops(tries.request.events)
        body = proposal.body if tries.body is None or changes else tries.body.proposal.body
        log_bytes = known.log_bytes + len(body) + len(proposal.meta) + 128
        state_bytes = known.state_bytes + proposal.payload_bytes if changes else known.state_bytes
        control = known.control if tries.start is None else tries.start.control
        made = msgspec.structs.replace(known, head=outcome.head, state=state, log_bytes=log_bytes, state_bytes=state_bytes, control=control)
        self._cache.put(session, made, sent)
        if changes:
            self._sizes.check(session, made)
        if self._snapshots.is_due(made):
            await self._snapshots.store(session, made)

    async def _lost(self, tries: Tries, head: Head | None) -> None:
        """A head has refused the try. Raises `Conflict` where the request may not be tried again, and `Busy` after too many tries."""
        request = tries.request
        session = request.session
        tries.lost, tries.since, tries.head = tries.lost + 1, tries.since or tries.began or self.now(), head
        if request.mode is not EVENTS:
            self._pacing.lost(session, self.now() - tries.began)
            self._queue.reserve(session)
        if head is not None and request.options.expect_hash is not None:
            await self._lookups.require_on_chain(tries, head)
        if head is None and tries.incarnation is not None:
            raise await self._lookups.explained(request, head, conflict(request, head, RECREATED))
        if head is not None and fits(request, head, tries.seen, tries.expected):
            await self._await_grant(tries, head)
        elif request.mode is Mode.exact or (request.options.on_conflict == "raise" and request.expected_version is not None):
            raise await self._lookups.explained(request, head, conflict(request, head))
        elif request.mode is EVENTS and head is not None and tries.expected is not None:
            await self._lookups.require_same_incarnation(request, tries.expected, head)
            tries.expected = head.version
        if tries.lost >= self._settings.attempts:
            raise self.busy(session, tries.lost, tries.since)

    async def _await_grant(self, tries: Tries, head: Head) -> None:
        """The head has what the write was made for, but another grant. A lease that was taken or released has changed nothing else; a
        tombstone ended the life that the write was meant for: raises `Conflict`."""
        request, grant = tries.request, raised(head.epoch, 0)
        if tries.incarnation is not None and tries.incarnation.grant != grant:
            if await self._reader.incarnation_start(request.session, head) != tries.incarnation.tombstone:
                raise await self._lookups.explained(request, head, conflict(request, head, RECREATED))
            tries.incarnation = Incarnation(tries.incarnation.tombstone, grant)
        if is_undecided(head, request.options.fence):
            await Reply[None]().within(UNDECIDED_PAUSE)
