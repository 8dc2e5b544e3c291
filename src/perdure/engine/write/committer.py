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
from perdure.concurrency.bridge import FORKED, Reply
from perdure.config import Settings
from perdure.engine.live.watch import Watchers
from perdure.engine.options import Options, ask
from perdure.engine.read.cache import Cache, Working
from perdure.engine.read.reader import Reader, configured
from perdure.engine.views import Receipt
from perdure.engine.write.request import NOTHING, Change, check_head, has_ops, same_state, seen, with_answer, with_parts
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

DIED = "It was deleted and made anew meanwhile; "
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

    def commit(self, change: Change) -> Coroutine[Any, Any, Receipt]:
        """Write a change, once it is awaited.

        Raises `Conflict`, `Busy`, `Invalid`, `Deleted`, `AlreadyExists`, `NotFound`, `Unknown`, `Unavailable`, `TooLarge`.
        """
        self._check_process()
        on_state = change.strict or bool(change.requires) or change.decide is not None or has_ops(change.events)
        if on_state or self._queue.is_reserved(change.session):
            return self._in_slot(change, on_state=on_state)
        return self._commit(change, on_state=False)

    async def _in_slot(self, change: Change, *, on_state: bool) -> Receipt:
        async with self._queue.slot(change.session):
            return await self._commit(change, on_state=on_state)

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

    async def _commit(self, change: Change, *, on_state: bool) -> Receipt:
        request = request_digest(change.asked or change.events) if change.options.key is not None else b""
        id = self.new_id()
        lost, since, began = 0, 0.0, 0.0
        head: Head | None = None
        while True:
            after: Any = MISSING
            if on_state:
                if not change.strict and await self.pause(change.session):
                    head = (await self._backend.heads([change.session]))[0]
                began = self.now()
                try:
                    after = await self._place(change, head)
                except Error:
                    known = await self._applied(change)
                    if known is not None:
                        return await self._known(change, *known, request)
                    behind = await self._behind(change.session, head)
                    if behind is None:
                        raise
                    head = behind
                    continue
            proposal = self._propose(change, id, request)
            append = Append(change.session, self._finisher(change, proposal, on_state), change.key, None, change.durability)
            try:
                outcome = await self._writer.append(append)
            except Unknown as lost_answer:
                receipt = None if "settled" in lost_answer.facts else await self._find(change, proposal)
                if receipt is None:
                    raise
                return receipt
            except Error:
                raise
            except BaseException:  # Cancelled: the append may still be on its way.
                self._reader.doubt(change.session)
                raise
            if isinstance(outcome, Known):
                if await self._in_earlier_life(change, outcome):
                    continue
                return await self._known(change, outcome, str(append.key), request)
            if isinstance(outcome, Appended):
                self._telemetry.committed(change.operation, lost)
                self._pacing.won(change.session)
                self._watchers.tell(change.session, outcome.head.version)
                if after is not MISSING or change.session in self._cache:
                    await self._remember(change.session, proposal, outcome, after)
                return Receipt(outcome.head.version, id, outcome.head.hash, outcome.head.at, outcome.durability)
            lost, since = lost + 1, since or began or self.now()
            head = outcome.head
            if on_state:
                self._pacing.lost(change.session, self.now() - began)
                self._queue.reserve(change.session)
            if change.strict or (change.options.on_conflict == "raise" and not change.blind):
                raise await self._conflict(change, head, ())
            if not on_state and head is not None and change.since is not None:
                await self._same_life(change, change.since, head)
                change.since = head.version
            if lost >= self._settings.attempts:
                raise self.busy(change.session, lost, since)

    def _propose(self, change: Change, id: bytes, request: bytes) -> Proposal:
        options = change.options
        return self._codec.propose(
            change.session,
            change.events,
            id=id,
            actor=options.actor,
            key=change.key,
            request=request,
            trace=traceparent(),
        )

    async def _place(self, change: Change, head: Head | None) -> Any:
        """Bring the change onto the newest state known, and give the state that it makes. `head` is one that refused it."""
        now = await self._reader.current(change.session, head=head)
        base = change.base
        if base is not None and base is not NOTHING and not change.blind and (now is None or now.head.version <= base.head.version):
            now = await self._as_seen(change.session, base.head, now)
        if change.decide is not None:
            check_head(change.session, None if now is None else now.head, change.options)
            change.base, change.events = now, await change.decide(now or NOTHING)
            return self._apply(change, (now or NOTHING).state)
        if now is not None:
            check_head(change.session, now.head, change.options)
            died = now.head.status == Status.deleted and base is not None and base.head.status != Status.deleted
            if died and change.ops and not change.blind:
                raise await self._conflict(change, now.head, ())
        if base is None and now is not None and not change.blind and now.head.status != Status.deleted:
            base = NOTHING  # The session was started while this change was made: what others wrote counts from its beginning.
        if change.blind or now is None or base is None or now.head.version <= base.head.version:
            if base is None or now is None or base.head.hash != now.head.hash:
                change.base = base = now
            return self._apply(change, {} if base is None else base.state)
        if change.strict and now.head.data > base.head.version:
            raise await self._conflict(change, now.head, ())
        theirs: list[Op] = []
        async for commit in self._reader.commits(change.session, after=base.head.version, before=now.head.version + 1):
            if commit.version == base.head.version + 1 and commit.prev != base.head.hash and base is not NOTHING:
                raise _rewound(change.session, base.head)
            if commit.kind is Kind.tombstone:
                raise await self._conflict(change, now.head, (), DIED)
            if commit.kind is Kind.data:
                theirs += [op for event in commit.events for op in event.ops]
        if change.options.on_conflict == "raise" and now.head.data > base.head.version:
            raise await self._conflict(change, now.head, ())
        touched = tuple(path for path in change.requires if not same(seen(base.state, path), seen(now.state, path)))
        if touched:
            raise await self._conflict(change, now.head, touched)
        after = await self._rebase(change, base, now, theirs)
        change.base = now
        return after

    async def _as_seen(self, session: SessionKey, seen: Head, now: Working | None) -> Working | None:
        """The newest state, at least as new as what the caller saw; what is remembered may be older. Raises `Rewound`."""
        if now is not None and now.head.version < seen.version:
            now = await self._reader.strong(session)
        if now is None or now.head.version < seen.version or (now.head.version == seen.version and now.head.hash != seen.hash):
            raise _rewound(session, seen)
        return now

    async def _same_life(self, change: Change, since: int, head: Head) -> None:
        """Raise `Conflict` if the session was deleted, and made anew, after the version that the caller decided on."""
        async for commit in self._reader.commits(change.session, after=since, before=head.version + 1):
            if commit.kind is Kind.tombstone:
                raise await self._conflict(change, head, (), DIED)

    async def _rebase(self, change: Change, base: Working, now: Working, theirs: Sequence[Op]) -> Any:
        mine = change.ops
        result = rebase(base.state, mine, theirs, now.state)
        if not result.clashes:
            change.events = with_parts(change.events, result.parts)
            return result.state
        if not callable(change.options.on_conflict):
            raise await self._conflict(change, now.head, result.clashes)
        answer = ask(change.options.on_conflict, Clash(base.state, now.state, mine, theirs, result.clashes))
        change.events = with_answer(change.events, answer)
        return self._apply(change, now.state)

    def _apply(self, change: Change, state: Any) -> Any:
        try:
            return apply(state, change.ops)
        except TestFailed as error:
            raise Conflict(
                f"A test on {error.path!r} does not hold in session {change.session.id!r}.",
                session=change.session.id,
                expected=change.seen,
                actual=change.base.head.version if change.base else 0,
                commits=(),
                paths=(error.path,),
            ) from None

    def _finisher(self, change: Change, proposal: Proposal, on_state: bool) -> Callable[[Head | None], Sequence[Record] | None]:
        options, now, base = change.options, self._clock.now(), change.base

        def finish(head: Head | None) -> Sequence[Record] | None:
            check_head(change.session, head, options)
            if change.life is not None and (head is None or raised(head.epoch, 0) != change.life[1]):
                raise _conflict(change, head, DIED)
            if on_state:
                if head is None and base is not None:
                    raise _rewound(change.session, base.head)
                if head is not None and not same_state(base, head):
                    return None
            elif head is not None and change.since is not None and head.data > change.since:
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
            working = Working(outcome.head, {}, 0, 0, {}, outcome.head.at)
        elif known is not None and known.head.hash == previous.hash:
            working = known
        else:
            return
        if after is MISSING:
            after = {} if previous is not None and previous.status != outcome.head.status else working.state
        weight = working.log_bytes + len(proposal.body) + len(proposal.meta) + 128
        working = Working(outcome.head, after, weight, working.snapshot_bytes, working.tags, working.created_at)
        self._cache.put(session, working)
        await self.snapshot(session, working)

    async def snapshot(self, session: SessionKey, working: Working, *, keep: bool = True) -> None:
        """Store a snapshot of this state if the log outweighs the last one, and start weighing anew.

        A snapshot is never the truth: one that cannot be stored (too large, a full disk) is done without until the next is due.
        `keep` is false for a state that is not to be shared with the cache.
        """
        if not snapshot_due(working.log_bytes, working.snapshot_bytes, self._settings.snapshot_bytes_min):
            return
        head, size = working.head, working.snapshot_bytes
        with suppress(Error):
            snapshot = self._codec.encode_snapshot(session, head.version, head.hash, working.state)
            size = len(snapshot.body)
            await self._backend.put_snapshot(session, snapshot)
        if keep:
            self._cache.put(session, msgspec.structs.replace(working, log_bytes=0, snapshot_bytes=size))

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
        request = request_digest((event,)) if key is not None else b""
        proposal = self._codec.propose(
            session, (event,), id=self.new_id(), kind=kind, actor=actor, key=key, request=request, trace=traceparent()
        )
        options = Options(expect=0 if base is not None else None, create=False)
        now = self._clock.now()
        step = 1 + self._clock.bits(GRANT_STEP_BITS) if kind is Kind.tombstone else 0

        def finish(head: Head | None) -> Sequence[Record]:
            check_head(session, head, options, starting=base is not None)
            if seen is not None and head is not None and raised(head.epoch, 0) != raised(seen.epoch, 0):
                raise Conflict(f"{DIED}nothing was written to session {session.id!r}.", session=session.id)
            return (proposal.finish(head, now, status=status, base=base, step=step),)

        try:
            outcome = await self._writer.append(Append(session, finish, key, index, durability))
        except Error:
            raise
        except BaseException:
            self._reader.doubt(session)
            raise
        if isinstance(outcome, Known):
            change = Change(session=session, events=(event,), options=options, durability=durability)
            return await self._known(change, outcome, str(key), request)
        if not isinstance(outcome, Appended):
            raise Conflict(f"Session {session.id!r} moved on.", session=session.id)
        self._watchers.tell(session, outcome.head.version)
        known = self._cache.get(session)
        if known is not None and outcome.previous is not None and known.head.hash == outcome.previous.hash:
            state = {} if kind is Kind.tombstone else known.state
            tags: Mapping[str, str] = {} if kind is Kind.tombstone else configured((event,)).get("tags", known.tags)
            self._cache.put(session, Working(outcome.head, state, known.log_bytes + 256, known.snapshot_bytes, tags, known.created_at))
        return Receipt(outcome.head.version, outcome.id, outcome.head.hash, outcome.head.at, outcome.durability)

    async def _behind(self, session: SessionKey, head: Head | None) -> Head | None:
        """The true head, if what I remembered when I judged was older: what is refused must be refused by the newest state."""
        remembered = self._cache.get(session)
        true = (await self._backend.heads([session]))[0]
        if true is None or true == head or (remembered is not None and remembered.head == true):
            return None
        return true

    async def applied(self, change: Change) -> Receipt | None:
        """The receipt of the call that used the change's key first, if one did. Raises `KeyReused` if that asked for something else."""
        known = await self._applied(change)
        return None if known is None else await self._known(change, *known, request_digest(change.asked or change.events))

    async def _applied(self, change: Change) -> tuple[Known, str] | None:
        """Where this change's key was applied: a retry must find it, though its operations may not fit any more."""
        return None if change.options.key is None else await self.find_key(change.session, change.options.key)

    async def _find(self, change: Change, proposal: Proposal) -> Receipt | None:
        """After a lost answer: is the commit in the chain, at the level asked for? Only its id can tell."""
        with suppress(Error):
            async with aclosing(self._reader.commits(change.session, newest_first=True)) as commits:
                async for commit in commits:
                    if commit.id == proposal.id:
                        level = self._backend.capabilities.proven(change.durability)
                        return None if level < change.durability else Receipt(commit.version, commit.id, commit.hash, commit.at, level)
                    if change.base is not None and commit.version <= change.base.head.version:
                        break
        return None

    async def _known(self, change: Change, known: Known, key: str, request: bytes) -> Receipt:
        if change.check_request and known.request != request:
            await self.first_receipt(change.session, known, key, change.durability)
            raise KeyReused(
                f"The idempotency key {change.options.key!r} was used in session {change.session.id!r} for something else, "
                f"at version {known.version}.",
                session=change.session.id,
                version=known.version,
            )
        return await self.first_receipt(change.session, known, key, change.durability)

    async def _in_earlier_life(self, change: Change, known: Known) -> bool:
        """Whether the key was used before the last tombstone only, as it was looked up; the change then spells it for this life."""
        tombstone = await self._reader.life(change.session, known.head)
        if known.version > tombstone:
            return False
        change.life = (tombstone, raised(known.head.epoch, 0))
        return True

    async def find_key(self, session: SessionKey, key: str, *, include_deleted: bool = False) -> tuple[Known, str] | None:
        """Where this key was applied in the session's present life, if it was, and how it is stored; else, with `include_deleted`, in its
        first use ever."""
        await self._reader.settled(session)
        known = await self._backend.find_key(session, key)
        if known is None:
            return None
        tombstone = await self._reader.life(session, known.head)
        if known.version > tombstone:
            return known, key
        again = await self._backend.find_key(session, life_key(key, tombstone))
        if again is not None:
            return again, life_key(key, tombstone)
        return (known, key) if include_deleted else None

    async def first_receipt(self, session: SessionKey, known: Known, key: str, durability: Durability) -> Receipt:
        """The receipt of a commit that a key, as it is stored, was applied by. Raises `Corrupt` if the commit knows nothing of that."""
        record = await self._reader.record(session, known.version)
        durability = self._backend.capabilities.proven(durability)
        if record is None:  # It was truncated.
            return Receipt(known.version, b"", b"", 0, durability, duplicate=True)
        if (record.key, record.request) != (key, known.request):
            raise Corrupt(f"Version {known.version} of session {session.id!r} is not what its key was applied by.", session=session.id)
        return Receipt(known.version, record.id, record.head.hash, record.head.at, durability, duplicate=True)

    async def _conflict(self, change: Change, head: Head | None, paths: Sequence[str], why: str = "") -> Conflict:
        known = self._cache.get(change.session)
        if known is not None and head is not None and known.head.hash != head.hash:
            self._cache.drop(change.session)  # What I remember is behind: whoever tries again must not meet the same conflict.
        commits = []
        before = 0 if head is None else await self._reader.life(change.session, head) - 1  # The tombstone itself is news.
        async with aclosing(self._reader.commits(change.session, after=max(change.seen, before))) as since:
            async for commit in since:
                commits.append(commit)
                if len(commits) == CONFLICT_COMMITS_MAX:
                    break
        return _conflict(change, head, why, commits, paths)


def _conflict(change: Change, head: Head | None, why: str, commits: Sequence[Commit] = (), paths: Sequence[str] = ()) -> Conflict:
    actual = head.version if head else 0
    where = f" on {', '.join(path or 'the whole state' for path in paths)}" if paths else ""
    return Conflict(
        f"{why}Session {change.session.id!r} moved from version {change.seen} to {actual} and your change does not combine "
        f"with that{where}.",
        session=change.session.id,
        expected=change.seen,
        actual=actual,
        commits=tuple(commits),
        paths=tuple(paths),
    )


def _rewound(session: SessionKey, seen: Head) -> Rewound:
    return Rewound(
        f"Session {session.id!r} no longer has the commit that this change was made on: version {seen.version}, {seen.hash.hex()[:12]}."
    )
