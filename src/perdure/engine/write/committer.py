"""From an intent to a receipt: propose, append where the head allows it, rebase where it moved.

    events only      need the head alone: any head is accepted
    with operations  are validated against the state at the head; when others came first they are carried over (`rebase`)

A control commit (tags, a pin, a fork's start) changes no state: nothing conflicts with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from perdure.backends.common.pacing import Pacing
from perdure.backends.spi import Append, Appended, Backend, Durability, Head, Index, Known, Record
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.codec.records import Base, Proposal, request_digest
from perdure.concurrency.replies import FORKED, Reply
from perdure.config import Settings
from perdure.engine.live.watch import Watchers
from perdure.engine.options import Options, ask
from perdure.engine.read.cache import Cache, CachedState
from perdure.engine.read.reader import Reader, configured
from perdure.engine.views import Receipt
from perdure.engine.write.request import NOTHING, WriteRequest, check_head, has_ops, same_state, seen, with_answer, with_parts
from perdure.engine.write.session_queue import SessionQueue, Slot
from perdure.engine.write.writer import Writer
from perdure.errors import Busy, Closed, Conflict, Corrupt, Error, KeyReused, Rewound, Unknown
from perdure.model.commit import GRANT_STEP_BITS, Commit, Kind, Status, raised
from perdure.model.events import Event
from perdure.model.ids import SessionKey, life_key, uuid7
from perdure.model.merge import rebase
from perdure.model.ops import Op
from perdure.model.policy import Clash, snapshot_due
from perdure.model.state import MISSING, TestFailed, apply
from perdure.model.values import same
from perdure.telemetry import Telemetry, traceparent

RECREATED = "It was deleted and created again in between; "
"""What a conflict says first when a tombstone lies between."""
CONFLICT_COMMITS_MAX = 100
"""Most commits that a `Conflict` carries."""


class Committer:
    """Writes commits for one store, of any tenant."""

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        writer: Writer,
        reader: Reader,
        cache: Cache,
        watchers: Watchers,
        clock: Clock,
        settings: Settings,
        telemetry: Telemetry,
    ) -> None:
        self._backend, self._codec, self._writer, self._reader, self._cache = backend, codec, writer, reader, cache
        self._watchers, self._clock, self._settings, self._telemetry = watchers, clock, settings, telemetry
        self._queue = SessionQueue(clock.monotonic)
        self._pacing = Pacing(clock.monotonic, clock.bits)
        self._pid = os.getpid()

    def new_id(self) -> bytes:
        """A UUIDv7."""
        return uuid7(self._clock.now(), self._clock.bits(74))

    def commit(self, request: WriteRequest) -> Coroutine[Any, Any, Receipt]:
        """Write a request, once the coroutine is awaited.

        Raises `Conflict`, `Busy`, `Invalid`, `Deleted`, `AlreadyExists`, `NotFound`, `Unknown`, `Unavailable`, `TooLarge`.
        """
        self._check_process()
        on_state = request.strict or bool(request.requires) or request.decide is not None or has_ops(request.events)
        if on_state or self._queue.is_reserved(request.session):
            return self._in_slot(request, on_state=on_state)
        return self._commit(request, on_state=False)

    async def _in_slot(self, request: WriteRequest, *, on_state: bool) -> Receipt:
        async with self._queue.slot(request.session):
            return await self._commit(request, on_state=on_state)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(FORKED)

    def slot(self, session: SessionKey) -> Slot:
        """`async with`: no other commit of this session in this process, events alone included, for as long as they wait for a slot."""
        self._queue.reserve(session)
        return self._queue.slot(session)

    async def pause(self, session: SessionKey) -> bool:
        """Hold back where other processes win the races for this session; whether it did, so that what is remembered may be old."""
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

    async def _commit(self, request: WriteRequest, *, on_state: bool) -> Receipt:
        digest = request_digest(request.asked or request.events) if request.options.key is not None else b""
        id = self.new_id()
        lost, since, began = 0, 0.0, 0.0
        head: Head | None = None
        while True:
            after: Any = MISSING
            if on_state:
                if not request.strict and await self.pause(request.session):
                    head = (await self._backend.heads([request.session]))[0]
                began = self.now()
                try:
                    after = await self._rebase_onto(request, head)
                except Error:
                    known = await self._applied(request)
                    if known is not None:
                        return await self._known(request, *known, digest)
                    newer = await self._newer_head(request.session, head)
                    if newer is None:
                        raise
                    head = newer
                    continue
            proposal = self._propose(request, id, digest)
            append = Append(request.session, self._finisher(request, proposal, on_state), request.key, None, request.durability)
            try:
                outcome = await self._writer.append(append)
            except Unknown as lost_answer:
                receipt = None if "settled" in lost_answer.facts else await self._find(request, proposal)
                if receipt is None:
                    raise
                return receipt
            except Error:
                raise
            except BaseException:  # Cancelled: the append may still be on its way.
                self._reader.doubt(request.session)
                raise
            if isinstance(outcome, Known):
                if await self._in_earlier_incarnation(request, outcome):
                    continue
                return await self._known(request, outcome, str(append.key), digest)
            if isinstance(outcome, Appended):
                self._telemetry.committed(request.operation, lost)
                self._pacing.won(request.session)
                self._watchers.notify(request.session, outcome.head.version)
                if after is not MISSING or request.session in self._cache:
                    await self._remember(request.session, proposal, outcome, after)
                return Receipt(outcome.head.version, id, outcome.head.hash, outcome.head.at, outcome.durability)
            lost, since = lost + 1, since or began or self.now()
            head = outcome.head
            if on_state:
                self._pacing.lost(request.session, self.now() - began)
                self._queue.reserve(request.session)
            if request.strict or (request.options.on_conflict == "raise" and not request.blind):
                raise await self._conflict(request, head, ())
            if not on_state and head is not None and request.since is not None:
                await self._require_same_incarnation(request, request.since, head)
                request.since = head.version
            if lost >= self._settings.attempts:
                raise self.busy(request.session, lost, since)

    def _propose(self, request: WriteRequest, id: bytes, digest: bytes) -> Proposal:
        options = request.options
        return self._codec.propose(
            request.session,
            request.events,
            id=id,
            actor=options.actor,
            key=request.key,
            request=digest,
            trace=traceparent(),
        )

    async def _rebase_onto(self, request: WriteRequest, head: Head | None) -> Any:
        """Bring the change onto the newest state known, and give the state that it makes. `head` is one that refused it."""
        now = await self._reader.cached(request.session, head=head)
        base = request.base
        if base is not None and base is not NOTHING and not request.blind and (now is None or now.head.version <= base.head.version):
            now = await self._require_seen(request.session, base.head, now)
        if request.decide is not None:
            check_head(request.session, None if now is None else now.head, request.options)
            request.base, request.events = now, await request.decide(now or NOTHING)
            return self._apply(request, (now or NOTHING).state)
        if now is not None:
            check_head(request.session, now.head, request.options)
            was_deleted = now.head.status == Status.deleted and base is not None and base.head.status != Status.deleted
            if was_deleted and request.ops and not request.blind:
                raise await self._conflict(request, now.head, ())
        if base is None and now is not None and not request.blind and now.head.status != Status.deleted:
            base = NOTHING  # The session was started while this change was made: what others wrote counts from its beginning.
        if request.blind or now is None or base is None or now.head.version <= base.head.version:
            if base is None or now is None or base.head.hash != now.head.hash:
                request.base = base = now
            return self._apply(request, {} if base is None else base.state)
        if request.strict and now.head.data > base.head.version:
            raise await self._conflict(request, now.head, ())
        theirs: list[Op] = []
        async for commit in self._reader.commits(request.session, after=base.head.version, before=now.head.version + 1):
            if commit.version == base.head.version + 1 and commit.prev != base.head.hash and base is not NOTHING:
                raise _rewound(request.session, base.head)
            if commit.kind is Kind.tombstone:
                raise await self._conflict(request, now.head, (), RECREATED)
            if commit.kind is Kind.data:
                theirs += [op for event in commit.events for op in event.ops]
        if request.options.on_conflict == "raise" and now.head.data > base.head.version:
            raise await self._conflict(request, now.head, ())
        touched = tuple(path for path in request.requires if not same(seen(base.state, path), seen(now.state, path)))
        if touched:
            raise await self._conflict(request, now.head, touched)
        after = await self._rebase(request, base, now, theirs)
        request.base = now
        return after

    async def _require_seen(self, session: SessionKey, seen: Head, now: CachedState | None) -> CachedState | None:
        """The newest state, at least as new as what the caller saw; what is remembered may be older. Raises `Rewound`."""
        if now is not None and now.head.version < seen.version:
            now = await self._reader.read_head(session)
        if now is None or now.head.version < seen.version or (now.head.version == seen.version and now.head.hash != seen.hash):
            raise _rewound(session, seen)
        return now

    async def _require_same_incarnation(self, request: WriteRequest, since: int, head: Head) -> None:
        """Raise `Conflict` if the session was deleted, and created again, after the version that the caller decided on."""
        async for commit in self._reader.commits(request.session, after=since, before=head.version + 1):
            if commit.kind is Kind.tombstone:
                raise await self._conflict(request, head, (), RECREATED)

    async def _rebase(self, request: WriteRequest, base: CachedState, now: CachedState, theirs: Sequence[Op]) -> Any:
        mine = request.ops
        result = rebase(base.state, mine, theirs, now.state)
        if not result.clashes:
            request.events = with_parts(request.events, result.parts)
            return result.state
        if not callable(request.options.on_conflict):
            raise await self._conflict(request, now.head, result.clashes)
        answer = ask(request.options.on_conflict, Clash(base.state, now.state, mine, theirs, result.clashes))
        request.events = with_answer(request.events, answer)
        return self._apply(request, now.state)

    def _apply(self, request: WriteRequest, state: Any) -> Any:
        try:
            return apply(state, request.ops)
        except TestFailed as error:
            raise Conflict(
                f"A test on {error.path!r} does not hold in session {request.session.id!r}.",
                session=request.session.id,
                expected=request.seen,
                actual=request.base.head.version if request.base else 0,
                commits=(),
                paths=(error.path,),
            ) from None

    def _finisher(self, request: WriteRequest, proposal: Proposal, on_state: bool) -> Callable[[Head | None], Sequence[Record] | None]:
        options, now, base = request.options, self._clock.now(), request.base

        def finish(head: Head | None) -> Sequence[Record] | None:
            check_head(request.session, head, options)
            if request.incarnation is not None and (head is None or raised(head.epoch, 0) != request.incarnation[1]):
                raise _conflict(request, head, RECREATED)
            if on_state:
                if head is None and base is not None:
                    raise _rewound(request.session, base.head)
                if head is not None and not same_state(base, head):
                    return None
            elif head is not None and request.since is not None and head.data > request.since:
                return None
            status = int(Status.active) if head is not None and head.status == Status.deleted else None
            return (proposal.finish(head, now, status=status),)

        return finish

    async def _remember(self, session: SessionKey, proposal: Proposal, outcome: Appended, after: Any) -> None:
        """Keep the state that this commit made; snapshot it when the log outweighs the last one."""
        known = self._cache.get(session)
        previous = outcome.previous
        if known is None and after is MISSING:
            return  # Events alone need no state: nothing is kept for a session that only appends.
        if previous is None:
            cached = CachedState(outcome.head, {}, 0, 0, {}, outcome.head.at)
        elif known is not None and known.head.hash == previous.hash:
            cached = known
        else:
            return
        if after is MISSING:
            after = {} if previous is not None and previous.status != outcome.head.status else cached.state
        weight = cached.log_bytes + len(proposal.body) + len(proposal.meta) + 128
        cached = CachedState(outcome.head, after, weight, cached.snapshot_bytes, cached.tags, cached.created_at)
        self._cache.put(session, cached)
        if self.is_snapshot_due(cached):
            await self.snapshot(session, cached)

    def is_snapshot_due(self, cached: CachedState) -> bool:
        """Whether the log outweighs the last snapshot."""
        return snapshot_due(cached.log_bytes, cached.snapshot_bytes, self._settings.snapshot_bytes_min)

    async def snapshot(self, session: SessionKey, cached: CachedState, *, keep: bool = True) -> None:
        """Store a snapshot of this state, and count its log from zero.

        A snapshot is never the truth: one that cannot be stored (too large, a full disk) is done without until the next is due.
        `keep` is false for a state that is not to be shared with the cache.
        """
        head, size = cached.head, cached.snapshot_bytes
        with suppress(Error):
            snapshot = self._codec.encode_snapshot(session, head.version, head.hash, cached.state)
            size = len(snapshot.body)
            await self._backend.put_snapshot(session, snapshot)
        if keep:
            self._cache.put(session, msgspec.structs.replace(cached, log_bytes=0, snapshot_bytes=size))

    async def control(
        self,
        session: SessionKey,
        kind: Kind,
        event: Event,
        *,
        status: Status | None = None,
        index: Index | None = None,
        actor: str | None = None,
        key: str | None = None,
        durability: Durability,
        base: Base | None = None,
        seen: Head | None = None,
    ) -> Receipt:
        """Write a control commit on whatever live head there is, of the same life as `seen`; with `base`, as the first commit of a fork."""
        digest = request_digest((event,)) if key is not None else b""
        proposal = self._codec.propose(
            session, (event,), id=self.new_id(), kind=kind, actor=actor, key=key, request=digest, trace=traceparent()
        )
        options = Options(expect=0 if base is not None else None, create=False)
        now = self._clock.now()
        step = 1 + self._clock.bits(GRANT_STEP_BITS) if kind is Kind.tombstone else 0

        def finish(head: Head | None) -> Sequence[Record]:
            check_head(session, head, options, starting=base is not None)
            if seen is not None and head is not None and raised(head.epoch, 0) != raised(seen.epoch, 0):
                raise Conflict(f"{RECREATED}nothing was written to session {session.id!r}.", session=session.id)
            return (proposal.finish(head, now, status=status, base=base, step=step),)

        try:
            outcome = await self._writer.append(Append(session, finish, key, index, durability))
        except Error:
            raise
        except BaseException:
            self._reader.doubt(session)
            raise
        if isinstance(outcome, Known):
            request = WriteRequest(session=session, events=(event,), options=options, durability=durability)
            return await self._known(request, outcome, str(key), digest)
        if not isinstance(outcome, Appended):
            raise Conflict(f"Session {session.id!r} moved on.", session=session.id)
        self._watchers.notify(session, outcome.head.version)
        known = self._cache.get(session)
        if known is not None and outcome.previous is not None and known.head.hash == outcome.previous.hash:
            state = {} if kind is Kind.tombstone else known.state
            tags: Mapping[str, str] = {} if kind is Kind.tombstone else configured((event,)).get("tags", known.tags)
            self._cache.put(session, CachedState(outcome.head, state, known.log_bytes + 256, known.snapshot_bytes, tags, known.created_at))
        return Receipt(outcome.head.version, outcome.id, outcome.head.hash, outcome.head.at, outcome.durability)

    async def _newer_head(self, session: SessionKey, head: Head | None) -> Head | None:
        """The head in the engine, if the head that was judged is older: only the newest state may refuse a request."""
        remembered = self._cache.get(session)
        true = (await self._backend.heads([session]))[0]
        if true is None or true == head or (remembered is not None and remembered.head == true):
            return None
        return true

    async def applied(self, request: WriteRequest) -> Receipt | None:
        """The receipt of the first call with the request's key, if there was one. Raises `KeyReused` if that asked for something else."""
        known = await self._applied(request)
        return None if known is None else await self._known(request, *known, request_digest(request.asked or request.events))

    async def _applied(self, request: WriteRequest) -> tuple[Known, str] | None:
        """Where this change's key was applied: a retry must find it, though its operations may not fit any more."""
        return None if request.options.key is None else await self.find_key(request.session, request.options.key)

    async def _find(self, request: WriteRequest, proposal: Proposal) -> Receipt | None:
        """After a lost answer: is the commit in the chain, at the durability asked for? Only its id proves it."""
        with suppress(Error):
            async with aclosing(self._reader.commits(request.session, newest_first=True)) as commits:
                async for commit in commits:
                    if commit.id == proposal.id:
                        level = self._backend.capabilities.proven(request.durability)
                        return None if level < request.durability else Receipt(commit.version, commit.id, commit.hash, commit.at, level)
                    if request.base is not None and commit.version <= request.base.head.version:
                        break
        return None

    async def _known(self, request: WriteRequest, known: Known, key: str, digest: bytes) -> Receipt:
        if request.check_request and known.request != digest:
            await self.first_receipt(request.session, known, key, request.durability)
            raise KeyReused(
                f"The idempotency key {request.options.key!r} was used in session {request.session.id!r} for something else, "
                f"at version {known.version}.",
                session=request.session.id,
                version=known.version,
            )
        return await self.first_receipt(request.session, known, key, request.durability)

    async def _in_earlier_incarnation(self, request: WriteRequest, known: Known) -> bool:
        """Whether the key was used before the last tombstone only, as it was looked up; the change then spells it for this life."""
        tombstone = await self._reader.incarnation_start(request.session, known.head)
        if known.version > tombstone:
            return False
        request.incarnation = (tombstone, raised(known.head.epoch, 0))
        return True

    async def find_key(self, session: SessionKey, key: str, *, include_deleted: bool = False) -> tuple[Known, str] | None:
        """Where this key was applied in the session's present life, if it was, and how it is stored; else, with `include_deleted`, in its
        first use ever."""
        await self._reader.settled(session)
        known = await self._backend.find_key(session, key)
        if known is None:
            return None
        tombstone = await self._reader.incarnation_start(session, known.head)
        if known.version > tombstone:
            return known, key
        again = await self._backend.find_key(session, life_key(key, tombstone))
        if again is not None:
            return again, life_key(key, tombstone)
        return (known, key) if include_deleted else None

    async def find_receipt(self, session: SessionKey, key: str, durability: Durability, *, include_deleted: bool = False) -> Receipt | None:
        """The receipt of the first call with this key, if there was one."""
        known = await self.find_key(session, key, include_deleted=include_deleted)
        return None if known is None else await self.first_receipt(session, *known, durability)

    async def first_receipt(self, session: SessionKey, known: Known, key: str, durability: Durability) -> Receipt:
        """The receipt of a commit that a key, as it is stored, was applied by. Raises `Corrupt` if the commit knows nothing of that."""
        record = await self._reader.record(session, known.version)
        durability = self._backend.capabilities.proven(durability)
        if record is None:  # It was truncated.
            return Receipt(known.version, b"", b"", 0, durability, duplicate=True)
        if (record.key, record.request) != (key, known.request):
            raise Corrupt(f"Version {known.version} of session {session.id!r} is not what its key was applied by.", session=session.id)
        return Receipt(known.version, record.id, record.head.hash, record.head.at, durability, duplicate=True)

    async def _conflict(self, request: WriteRequest, head: Head | None, paths: Sequence[str], why: str = "") -> Conflict:
        known = self._cache.get(request.session)
        if known is not None and head is not None and known.head.hash != head.hash:
            self._cache.drop(request.session)  # The cached state is old: a caller that tries again must not get the same conflict.
        commits = []
        before = 0 if head is None else await self._reader.incarnation_start(request.session, head) - 1  # The tombstone itself counts.
        async with aclosing(self._reader.commits(request.session, after=max(request.seen, before))) as since:
            async for commit in since:
                commits.append(commit)
                if len(commits) == CONFLICT_COMMITS_MAX:
                    break
        return _conflict(request, head, why, commits, paths)


def _conflict(request: WriteRequest, head: Head | None, why: str, commits: Sequence[Commit] = (), paths: Sequence[str] = ()) -> Conflict:
    actual = head.version if head else 0
    where = f" on {', '.join(path or 'the whole state' for path in paths)}" if paths else ""
    return Conflict(
        f"{why}Session {request.session.id!r} moved from version {request.seen} to {actual} and your change does not combine "
        f"with that{where}.",
        session=request.session.id,
        expected=request.seen,
        actual=actual,
        commits=tuple(commits),
        paths=tuple(paths),
    )


def _rewound(session: SessionKey, seen: Head) -> Rewound:
    return Rewound(
        f"Session {session.id!r} no longer has the commit that this change was made on: version {seen.version}, {seen.hash.hex()[:12]}."
    )
