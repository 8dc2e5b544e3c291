"""From a request to a receipt: resolve it on the newest state, append it where the head allows that, and try again where the head moved.

A control commit (tags, a pin, a fork's start) changes no state, so nothing conflicts with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from perdure.backends.common.pacing import Pacing
from perdure.backends.spi import Append, Appended, Backend, Head, Refused
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.codec.records import Proposal
from perdure.concurrency.replies import Reply
from perdure.config import Settings
from perdure.engine.live.watch import Watchers
from perdure.engine.read.bodies import Bodies, StoredBody, nothing
from perdure.engine.read.cache import Cache, CachedState
from perdure.engine.read.reader import Reader
from perdure.engine.read.sizes import StateSizes
from perdure.engine.views import Receipt
from perdure.engine.write.keys import Keys, digest_of
from perdure.engine.write.prefixes import PrefixPolicies
from perdure.engine.write.quotas import Quotas
from perdure.engine.write.request import NOTHING, Mode, WriteRequest, has_ops
from perdure.engine.write.resolve import (
    RECREATED,
    Incarnation,
    OtherLife,
    Plan,
    applied,
    check_writable,
    conflict,
    finisher,
    fits,
    following,
    lost_commit,
    missing_after,
    resolve,
    rewound,
)
from perdure.engine.write.session_queue import SessionQueue, Slot
from perdure.engine.write.snapshots import Snapshots
from perdure.engine.write.starting import Start, first_state, refusing_start, start_with, starting
from perdure.engine.write.writer import Writer
from perdure.errors import AlreadyExists, Busy, Conflict, Deleted, Error, Fenced, KeyReused, Moved, NotFound, Rewound, Unknown
from perdure.model.commit import Kind, Status
from perdure.model.epoch import raised
from perdure.model.fence import is_undecided
from perdure.model.ids import SessionKey, life_key, uuid7
from perdure.model.state import MISSING
from perdure.telemetry import Telemetry, traceparent

CONFLICT_COMMITS_MAX = 100
"""Most commits that a `Conflict` carries."""
UNDECIDED_PAUSE = 0.05
"""Seconds until a write is tried again that came while its lease was taking its next grant."""
_REFUSALS = (AlreadyExists, Conflict, Deleted, Fenced, Moved, NotFound, Rewound)
"""What a head answers that a commit does not fit: then it was certainly not stored."""


class _Tries:
    """One request on its way: what changes from try to try."""

    state: Any = MISSING
    """The state that the commit makes, once it is resolved."""
    head: Head | None = None
    """The head that refused the last try."""
    incarnation: Incarnation | None = None
    """Set where an earlier life has used the key."""
    proposal: Proposal | None = None
    start: Start | None = None
    """What the session begins with, if this is to start it."""
    begun = False
    """Whether what the session begins with was looked up."""
    refuses_start = False
    """Whether the try may not start a session, because that has to be looked up."""
    now: int | None = None
    """The time of such a try, which the next one has too."""
    body: StoredBody | None = None
    """What is sent in place of the proposal, whose body is stored out of line."""
    sent = False
    """Whether a try may have been stored that was not answered."""
    proven: tuple[int, bytes] | None = None
    """The head on whose chain the expected commit is known to be, where its hash matters."""
    counted = False
    """Whether it was counted against the tenant's quota."""
    lost = 0
    since = began = 0.0

    def __init__(self, request: WriteRequest, id: bytes) -> None:
        self.request, self.id = request, id
        self.seen, self.expected = request.base, request.expected_version
        self.life = 0
        """The session's grant, as far as it is known."""
        self.bodies: list[str] = []
        """The names of all bodies that were stored out of line."""

    @property
    def key(self) -> str | None:
        """The idempotency key as it is stored."""
        key = self.request.options.key
        return key if key is None or self.incarnation is None else life_key(key, self.incarnation.tombstone)

    def take(self, plan: Plan) -> None:
        """Go on with the plan. What was encoded for other events is encoded again."""
        if plan.request.events is not self.request.events:
            self.proposal = self.body = None
        self.request, self.seen, self.state = plan


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
        self._queue = SessionQueue(clock.monotonic)
        self._pacing = Pacing(clock.monotonic, clock.bits)

    def new_id(self) -> bytes:
        """A UUIDv7."""
        return uuid7(self._clock.now(), self._clock.bits(74))

    def commit(self, request: WriteRequest) -> Coroutine[Any, Any, Receipt]:
        """Write a request, once the coroutine is awaited.

        Raises `Conflict`, `Busy`, `Invalid`, `Deleted`, `AlreadyExists`, `NotFound`, `Unknown`, `Unavailable`, `TooLarge`.
        """
        if request.mode is Mode.events and not self._queue.is_reserved(request.session):
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
        return self._with_bodies(request) if self._bodies.stores else self._try(request, _Tries(request, self.new_id()))

    async def _with_bodies(self, request: WriteRequest) -> Receipt:
        """Store it, and remove the bodies out of line that were stored for tries which were refused."""
        tries = _Tries(request, self.new_id())
        if (known := self._cache.get(request.session)) is not None:
            tries.life = raised(known.head.epoch, 0)
        try:
            receipt = await self._try(request, tries)
        except Error as error:
            if not tries.sent or isinstance(error, KeyReused):
                await self._bodies.remove(tries.bodies)
            raise
        if receipt.id == tries.id and tries.sent:
            await self._bodies.remove([name for name in tries.bodies if tries.body is None or name != tries.body.name])
        elif receipt.id not in (b"", tries.id):  # Else the commit that has the key may be this one.
            await self._bodies.remove(tries.bodies)
        return receipt

    async def _try(self, request: WriteRequest, tries: _Tries) -> Receipt:
        session = request.session
        while True:
            if request.mode is not Mode.events:
                if (receipt := await self._resolve(request, tries)) is not None:
                    return receipt
                if tries.seen is None and tries.start is None:
                    await self._begin(tries)
                if request.options.expect_hash is not None and tries.seen is not None:
                    await self._require_on_chain(tries, tries.seen.head)
            proposal = self._proposed(request, tries)
            if self._bodies.is_large(proposal.body):
                proposal = await self._out_of_line(tries, proposal)
            append = self._append_of(request, tries, proposal)
            sent = self.now()
            try:
                tries.sent = True
                outcome = await self._writer.submit(append)
                if isinstance(outcome, OtherLife):
                    self._enter_life(tries, outcome.life)
                    continue
                if isinstance(outcome, BaseException):
                    tries.sent = not isinstance(outcome, _REFUSALS)
                    raise outcome
            except Unknown as lost_answer:
                receipt = None if "settled" in lost_answer.facts else await self._find(request, tries)
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
                self._cache.saw(session, head.version)
                if tries.state is not MISSING or session in self._cache:
                    await self._remember(tries, outcome, sent)
                level = outcome.durability if tries.body is None else min(outcome.durability, self._bodies.durability)
                return Receipt(head.version, tries.id, head.hash, head.at, level)
            if isinstance(outcome, Refused):
                tries.sent = False
                if self.restore is not None and outcome.head is not None and outcome.head.status == Status.archived:
                    await self.restore(session)
                elif outcome.head is None and tries.refuses_start:
                    await self._begin(tries)
                else:
                    tries.start = None
                    await self._lost(tries, outcome.head)
                continue
            incarnation = await self._keys.later_incarnation(session, outcome)
            if incarnation is None:
                return await self._keys.replayed(request, outcome, str(append.key))
            tries.incarnation, tries.proposal, tries.body = incarnation, None, None
            tries.bodies.clear()  # One may be that of the commit which has the key.

    async def _resolve(self, request: WriteRequest, tries: _Tries) -> Receipt | None:
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
                newer = await self._newer_head(session, tries.head)
                if newer is None:
                    raise
                tries.head = newer
            else:
                return None

    async def _plan(self, tries: _Tries) -> Plan:
        request, seen = tries.request, tries.seen
        current = await self._reader.cached(request.session, head=tries.head)
        if seen is not None and seen is not NOTHING and request.mode is not Mode.any_state:
            current = await self._require_seen(request, seen.head, current)
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
            raise await self._explained(request, None if current is None else current.head, found)
        return found

    async def _require_seen(self, request: WriteRequest, seen: Head, current: CachedState | None) -> CachedState | None:
        """The newest state, at least as new as what the caller saw; the cached one may be older. Raises `Rewound`."""
        if current is not None and current.head.version < seen.version:
            current = await self._reader.read_head(request.session)
        if (
            current is None
            or current.head.version < seen.version
            or (current.head.version == seen.version and current.head.hash != seen.hash)
        ):
            raise rewound(request, seen)
        return current

    async def _newer_head(self, session: SessionKey, head: Head | None) -> Head | None:
        """The head in the engine, if the head that was judged is older: only the newest state may refuse a request."""
        known = self._cache.get(session)
        newest = (await self._backend.heads([session]))[0]
        if newest is None or newest == head or (known is not None and known.head == newest):
            return None
        return newest

    def _proposed(self, request: WriteRequest, tries: _Tries) -> Proposal:
        """The next try, encoded; what was encoded for an earlier one is used again where it is the same. Raises `QuotaExceeded`."""
        proposal = tries.proposal
        if proposal is None:
            proposal = tries.proposal = self._codec.propose(
                request.session,
                tries.request.events,
                id=tries.id,
                actor=request.options.actor,
                key=tries.key,
                request=digest_of(request.options, request.asked or request.events),
                trace=request.trace or traceparent(),
            )
            if self._quotas is not None and not tries.counted:
                self._quotas.take(request.session.tenant, len(proposal.body))
                tries.counted = True
        return proposal

    async def _begin(self, tries: _Tries) -> None:
        """Look up what the session begins with, if this write starts it."""
        request = tries.request
        tries.begun = True
        policy = await self._prefixes.begins(request.session)
        if policy is not None:
            tries.start = start_with(self._codec, request.session, policy, self.new_id(), self._clock.now())

    async def _out_of_line(self, tries: _Tries, proposal: Proposal) -> Proposal:
        """The try with a reference to its body, which is stored before it is sent."""
        if tries.body is None:
            tries.body = await self._bodies.store(tries.request.session, proposal, tries.request.events, tries.life)
            tries.bodies.append(tries.body.name)
        return tries.body.proposal

    def _enter_life(self, tries: _Tries, life: int) -> None:
        """The session was deleted, and perhaps purged, since the body was stored: it has to be stored again. Raises `Busy`."""
        tries.life, tries.body, tries.sent = life, None, False
        tries.lost, tries.since = tries.lost + 1, tries.since or tries.began or self.now()
        if tries.lost >= self._settings.attempts:
            raise self.busy(tries.request.session, tries.lost, tries.since)

    def _append_of(self, request: WriteRequest, tries: _Tries, proposal: Proposal) -> Append:
        """The next try, for the engine."""
        life, now = None if tries.body is None else tries.body.life, self._clock.now() if tries.now is None else tries.now
        tries.now = None
        finish = finisher(request, tries.seen, tries.expected, tries.incarnation, proposal, now, life)
        if request.options.expect_hash is not None:
            finish = following(request, tries.proven, finish)
        if tries.start is not None:
            finish = starting(finish, tries.start, proposal, now)
            return Append(request.session, finish, tries.key, tries.start.index, request.durability)
        tries.refuses_start = request.mode is Mode.events and not tries.begun and self._prefixes.may_apply(request.session)
        if tries.refuses_start:
            finish, tries.now = refusing_start(finish), now
        return Append(request.session, finish, tries.key, None, request.durability)

    async def _remember(self, tries: _Tries, outcome: Appended, sent: float) -> None:
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
        made = msgspec.structs.replace(known, head=outcome.head, state=state, log_bytes=log_bytes, state_bytes=state_bytes)
        self._cache.put(session, made, sent)
        if changes:
            self._sizes.check(session, made)
        if self._snapshots.is_due(made):
            await self._snapshots.store(session, made)

    async def _lost(self, tries: _Tries, head: Head | None) -> None:
        """A head has refused the try. Raises `Conflict` where the request may not be tried again, and `Busy` after too many tries."""
        request = tries.request
        session = request.session
        tries.lost, tries.since, tries.head = tries.lost + 1, tries.since or tries.began or self.now(), head
        if request.mode is not Mode.events:
            self._pacing.lost(session, self.now() - tries.began)
            self._queue.reserve(session)
        if head is not None and request.options.expect_hash is not None:
            await self._require_on_chain(tries, head)
        if head is None and tries.incarnation is not None:
            raise await self._explained(request, head, conflict(request, head, RECREATED))
        if head is not None and fits(request, head, tries.seen, tries.expected):
            await self._await_grant(tries, head)
        elif request.mode is Mode.exact or (request.options.on_conflict == "raise" and request.expected_version is not None):
            raise await self._explained(request, head, conflict(request, head))
        elif request.mode is Mode.events and head is not None and tries.expected is not None:
            await self._require_same_incarnation(request, tries.expected, head)
            tries.expected = head.version
        if tries.lost >= self._settings.attempts:
            raise self.busy(session, tries.lost, tries.since)

    async def _require_on_chain(self, tries: _Tries, head: Head) -> None:
        """Note that the commit on which the caller decided is on the chain of this head. Raises `Rewound` if it is not."""
        session, expect, hash = tries.request.session, tries.request.options.expect or 0, tries.request.options.expect_hash
        if (head.version, head.hash) == tries.proven:
            return
        first, last = (hash, head.hash) if head.version == expect else (None, None)
        if head.version > expect:
            async with aclosing(self._reader.commits(session, after=expect, before=head.version + 1, need=nothing)) as commits:
                async for commit in commits:
                    first, last = commit.prev if first is None else first, commit.hash
        if first != hash or (head.version == expect and head.hash != hash):
            raise lost_commit(tries.request)
        if last == head.hash:  # Else the chain has moved on to another one meanwhile, and the next head is looked at.
            tries.proven = head.version, head.hash

    async def _await_grant(self, tries: _Tries, head: Head) -> None:
        """The head has what the write was made for, but another grant. A lease that was taken or released has changed nothing else; a
        tombstone ended the life that the write was meant for: raises `Conflict`."""
        request, grant = tries.request, raised(head.epoch, 0)
        if tries.incarnation is not None and tries.incarnation.grant != grant:
            if await self._reader.incarnation_start(request.session, head) != tries.incarnation.tombstone:
                raise await self._explained(request, head, conflict(request, head, RECREATED))
            tries.incarnation = Incarnation(tries.incarnation.tombstone, grant)
        if is_undecided(head, request.options.fence):
            await Reply[None]().within(UNDECIDED_PAUSE)

    async def _require_same_incarnation(self, request: WriteRequest, since: int, head: Head) -> None:
        """Raise `Conflict` if the session was deleted, and created again, after the version that the caller decided on."""
        async with aclosing(self._reader.commits(request.session, after=since, before=head.version + 1, need=nothing)) as commits:
            async for commit in commits:
                if commit.kind is Kind.tombstone:
                    raise await self._explained(request, head, conflict(request, head, RECREATED))

    async def _find(self, request: WriteRequest, tries: _Tries) -> Receipt | None:
        """After a lost answer: is the commit in the chain, at the durability asked for? Only its id proves it."""
        with suppress(Error):
            async with aclosing(self._reader.commits(request.session, newest_first=True, need=nothing)) as commits:
                async for commit in commits:
                    if commit.id == tries.id:
                        level = self._backend.capabilities.proven(request.durability)
                        self._reader.saw(request.session, commit.version)
                        if level < request.durability:
                            return None
                        level = level if tries.body is None else min(level, self._bodies.durability)
                        return Receipt(commit.version, commit.id, commit.hash, commit.at, level)
                    if tries.seen is not None and commit.version <= tries.seen.head.version:
                        break
        return None

    async def _explained(self, request: WriteRequest, head: Head | None, error: Conflict) -> Conflict:
        """The conflict, with the commits that the caller has not seen."""
        known = self._cache.get(request.session)
        if known is not None and head is not None and known.head.hash != head.hash:
            self._cache.drop(request.session)  # The cached state is old: a caller that tries again must not get the same conflict.
        seen = request.expected_version or 0
        if head is not None:
            seen = max(seen, await self._reader.incarnation_start(request.session, head) - 1)  # The tombstone itself counts.
        unseen = []
        async with aclosing(self._reader.commits(request.session, after=seen)) as commits:
            async for commit in commits:
                unseen.append(commit)
                if len(unseen) == CONFLICT_COMMITS_MAX:
                    break
        error.facts["commits"] = tuple(unseen)
        return error
