"""Control commits: they change no state, but what is said of a session: its tags, its policy, its lease, its place in a tree of forks.

write    a commit that fits any live head
change   a commit that was decided on what control commits say now: it is decided again for each head that is tried
attempt  one try of such a commit
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from perdure.backends.spi import Append, Appended, Backend, Durability, Head, Index, Known, Query, Record, Refused
from perdure.clock import Clock
from perdure.codec.codec import Codec
from perdure.codec.records import Base, Proposal
from perdure.concurrency.replies import Reply
from perdure.config import Settings
from perdure.engine.live.watch import Watchers
from perdure.engine.options import Options
from perdure.engine.read.cache import Cache
from perdure.engine.read.folding import configured
from perdure.engine.read.reader import Reader
from perdure.engine.views import Receipt
from perdure.engine.write.committer import UNDECIDED_PAUSE, Committer
from perdure.engine.write.once import KeyAppliedError, Keyed
from perdure.engine.write.request import NOTHING, check_head
from perdure.engine.write.resolve import RECREATED
from perdure.engine.write.writer import Writer
from perdure.errors import Conflict, Error
from perdure.model.commit import Kind, Status
from perdure.model.control import CONTROL, NOTHING_SET, Control, decode_control
from perdure.model.epoch import GRANT_STEP_BITS, raised
from perdure.model.events import Event
from perdure.model.fence import Fence, epoch_after, is_undecided
from perdure.model.ids import SessionKey
from perdure.model.lease import LeaseSection
from perdure.model.lifecycle import policy_of, with_look_of
from perdure.telemetry import traceparent


class Basis(NamedTuple):
    """What a control commit is decided on."""

    head: Head
    control: Control
    life: int
    """The version of the tombstone that the session's life began after; 0 in a first life."""
    holder: LeaseSection | None
    """Who holds the session's lease; `None`: nobody."""


_NO_SESSION = Basis(NOTHING.head, NOTHING_SET, 0, None)


class ControlCommit(msgspec.Struct, frozen=True, kw_only=True):
    """One commit of a change. What its event says under `control` becomes the index row's cell."""

    kind: Kind
    event: Event
    status: Status | None = None
    epoch: Callable[[int], int] | None = None
    """The epoch after the commit, from the one before; `None`: it stays. It may be asked again, and must give the same answer."""


class ControlChange(msgspec.Struct, frozen=True):
    """The commits of one append, and what they do to the index row. It follows the very head it was decided on; where it changes no cell of
    the row, and does not ask for it, any head with the same epoch and status."""

    commits: tuple[ControlCommit, ...]
    due_at: int | None = None
    """See `spi.Index.due_at`."""
    tags: Mapping[str, str] | None = None
    """All tags of the index row; `None` leaves them. The event of a commit says the same."""
    exact: bool = False
    """Whether it follows the very head it was decided on in any case."""


def _sets_control(plan: ControlChange) -> bool:
    """Whether it sets the index row's cell."""
    return any(isinstance(commit.event.data, Mapping) and CONTROL in commit.event.data for commit in plan.commits)


class ControlCommits:
    """Writes control commits for one store, of any tenant."""

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        writer: Writer,
        reader: Reader,
        cache: Cache,
        committer: Committer,
        watchers: Watchers,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._backend, self._codec, self._writer, self._reader, self._cache = backend, codec, writer, reader, cache
        self._committer, self._watchers, self._clock, self._settings = committer, watchers, clock, settings

    def grant_step(self) -> int:
        """By how much a grant rises."""
        return 1 + self._clock.bits(GRANT_STEP_BITS)

    async def write(
        self,
        session: SessionKey,
        kind: Kind,
        event: Event,
        *,
        status: Status | None = None,
        index: Index | None = None,
        actor: str | None = None,
        durability: Durability,
        base: Base | None = None,
        seen: Head | None = None,
        fence: Fence | None = None,
        keyed: Keyed | None = None,
    ) -> Receipt:
        """Write a control commit after any live head, of the same life as `seen`; with `base`, as the first commit of a fork.

        Raises `Fenced` for a configure commit in a session that somebody holds for himself, unless it is made under the lease of `fence`,
        and `KeyAppliedError` where there is a commit with the key of `keyed`.
        """
        proposal = self._propose(session, kind, event, actor, keyed)
        key = None if keyed is None else keyed.key
        options = Options(expect=0 if base is not None else None, create=False)
        now, since = self._clock.now(), self._committer.now()
        step = self.grant_step() if kind is Kind.tombstone else 0

        def finish(head: Head | None) -> Sequence[Record] | None:
            check_head(session, head, options, starting=base is not None)
            if seen is not None and head is not None and raised(head.epoch, 0) != raised(seen.epoch, 0):
                return None
            epoch = raised(head.epoch, step) if step and head is not None else None
            if kind is Kind.configure and base is None:
                if is_undecided(head, fence):
                    return None
                epoch = epoch_after(session, head, fence)
            return (proposal.finish(head, now, status=status, base=base, epoch=epoch),)

        outcome = await self._append(Append(session, finish, key, index, durability))
        tries = 1
        while not isinstance(outcome, Appended):
            if tries >= self._settings.attempts:
                raise self._committer.busy(session, tries, since)
            if is_undecided(outcome.head, fence):
                await Reply[None]().within(UNDECIDED_PAUSE)
            else:
                seen = await self._require_same_life(session, seen, outcome.head)
            outcome = await self._append(Append(session, finish, key, index, durability))
            tries += 1
        self._remember(session, outcome, ((kind, event),), since)
        return Receipt(outcome.head.version, outcome.id, outcome.head.hash, outcome.head.at, outcome.durability)

    async def _require_same_life(self, session: SessionKey, seen: Head | None, head: Head | None) -> Head | None:
        """The newer head, in place of the one that was seen: its grant is another. Raises `Conflict` if a tombstone lies between."""
        if seen is None or head is None:
            return head
        if await self._reader.incarnation_start(session, seen) != await self._reader.incarnation_start(session, head):
            raise Conflict(f"{RECREATED}nothing was written to session {session.id!r}.", session=session.id)
        return head

    async def change(
        self,
        session: SessionKey,
        decide: Callable[[Basis], ControlChange | None],
        *,
        actor: str | None = None,
        durability: Durability,
        create: bool = False,
        basis: Basis | None = None,
        fence: Fence | None = None,
        keyed: Keyed | None = None,
    ) -> Appended | None:
        """Write what `decide` makes of how the session stands; `None` if it decides that nothing is to be written.

        `decide` is pure. It is called on the newest head, and again for each head that won a race. `basis` is what the caller read
        just now: the first try goes by it, and a refusal of the head is decided again. With `create` a session that does not exist stands
        at version 0. A plan that begins with a configure commit is `Fenced` as in `write`; its first commit has the key. Raises `NotFound`,
        `Deleted`, `Moved`, `Busy` after `attempts` lost races, and what `decide` raises.
        """
        tries, since = 0, self._committer.now()
        async with self._committer.slot(session):
            while True:
                fresh = basis is None
                if basis is None:
                    basis = await self._read_basis(session, create=create)
                plan = decide(basis)
                if plan is not None and fresh and _sets_control(plan):
                    basis = await self.with_look(session, basis)
                    plan = decide(basis)
                if plan is None:
                    return None
                outcome = await self.attempt(
                    session, basis, plan, actor=actor, durability=durability, create=create, fence=fence, keyed=keyed
                )
                if outcome is not None:
                    return outcome
                tries, basis = tries + 1, None
                if tries >= self._settings.attempts:
                    raise self._committer.busy(session, tries, since)
                await self._committer.pause(session)

    async def attempt(
        self,
        session: SessionKey,
        basis: Basis,
        plan: ControlChange,
        *,
        actor: str | None = None,
        durability: Durability,
        create: bool = False,
        fence: Fence | None = None,
        keyed: Keyed | None = None,
    ) -> Appended | None:
        """Write a change that was decided on this basis, once; `None` where the head has moved on. For callers that decide again, and for
        those who have the session's slot. Raises as `change`."""
        since = self._committer.now()
        outcome = await self._append(self._append_of(session, basis, plan, actor, durability, fence, keyed, create=create))
        if not isinstance(outcome, Appended):
            return None
        self._remember(session, outcome, [(commit.kind, commit.event) for commit in plan.commits], since)
        return outcome

    async def with_look(self, session: SessionKey, basis: Basis) -> Basis:
        """The basis with what a sweeper has seen: that stands in the index row alone, so what is in memory may be older. A commit that sets
        the row's cell without it would have the sweeper begin again."""
        policy = policy_of(basis.control)
        if policy is None or not policy.needs_looks:
            return basis
        page = await self._backend.scan(Query(session.tenant, prefix=session.id), limit=1)
        row = next((row for row in page.items if row.session == session), None)
        return basis if row is None else basis._replace(control=with_look_of(decode_control(row.control), basis.control))

    async def _read_basis(self, session: SessionKey, *, create: bool) -> Basis:
        current = await self._reader.read_head(session)
        if current is None and create:
            return _NO_SESSION
        check_head(session, None if current is None else current.head, Options(create=False))
        if current is None:
            return _NO_SESSION
        life = await self._reader.incarnation_start(session, current.head)
        return Basis(current.head, current.control, life, await self._reader.holder(session, current))

    def _append_of(
        self,
        session: SessionKey,
        basis: Basis,
        plan: ControlChange,
        actor: str | None,
        durability: Durability,
        fence: Fence | None,
        keyed: Keyed | None,
        *,
        create: bool,
    ) -> Append:
        """The next try. Each commit of the plan follows the one before it."""
        seen, now, options = basis.head, self._clock.now(), Options(create=create)
        control = basis.control
        proposals: list[tuple[ControlCommit, Proposal]] = []
        for commit in plan.commits:
            control = control.after(commit.kind, (commit.event,))
            proposals.append((commit, self._propose(session, commit.kind, commit.event, actor, None if proposals else keyed)))
        cell = None if control == basis.control else control.encode()
        changes = cell is not None or plan.due_at is not None or plan.tags is not None
        index = Index(plan.tags, plan.due_at, cell) if changes else None
        exact = changes or plan.exact

        def finish(head: Head | None) -> Sequence[Record] | None:
            check_head(session, head, options)
            found = head or NOTHING.head
            answer = None
            if plan.commits[0].kind is Kind.configure:
                if is_undecided(head, fence):
                    return None
                answer = epoch_after(session, head, fence)
            if exact and (found.version, found.hash) != (seen.version, seen.hash):
                return None
            if (found.epoch, found.status) != (seen.epoch, seen.status):
                return None
            records: list[Record] = []
            for commit, proposal in proposals:
                epoch = answer if commit.epoch is None else commit.epoch(found.epoch)
                records.append(proposal.finish(head, now, status=commit.status, epoch=epoch))
                head = found = records[-1].head
            return records

        return Append(session, finish, None if keyed is None else keyed.key, index, durability)

    def _propose(self, session: SessionKey, kind: Kind, event: Event, actor: str | None, keyed: Keyed | None) -> Proposal:
        key, request = (None, b"") if keyed is None else (keyed.key, keyed.request)
        id = self._committer.new_id()
        return self._codec.propose(session, (event,), id=id, kind=kind, actor=actor, key=key, request=request, trace=traceparent())

    async def _append(self, append: Append) -> Appended | Refused:
        """What was stored, or the head that was refused."""
        try:
            outcome = await self._writer.append(append)
        except Error:
            raise
        except BaseException:
            self._reader.doubt(append.session)
            raise
        if isinstance(outcome, Known):
            raise KeyAppliedError
        if not isinstance(outcome, Appended):
            return Refused(outcome.head)
        self._watchers.notify(append.session, outcome.head.version)
        return outcome

    def _remember(self, session: SessionKey, outcome: Appended, commits: Sequence[tuple[Kind, Event]], since: float) -> None:
        """Bring the cached state onto the new head: a control commit leaves the state as it is, a tombstone empties it. `since` is a
        moment of the cache's clock before it was written."""
        known = self._cache.base(session)
        if known is None or outcome.previous is None or known.head.hash != outcome.previous.hash:
            return
        state, tags, control = known.state, known.tags, known.control
        for kind, event in commits:
            control = control.after(kind, (event,))
            if kind is Kind.tombstone:
                state, tags = {}, {}
            elif kind is Kind.configure:
                said: Mapping[str, Any] = configured((event,))
                tags = said.get("tags", tags)
        log_bytes = known.log_bytes + 256 * len(commits)
        made = msgspec.structs.replace(known, head=outcome.head, state=state, log_bytes=log_bytes, tags=tags, control=control)
        self._cache.put(session, made, since)
        tombstone = outcome.head.version if outcome.head.status == Status.deleted else None
        self._reader.note_start(session, outcome.head, control, tombstone)
