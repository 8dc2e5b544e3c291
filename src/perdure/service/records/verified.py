"""Appends of clients that nobody trusts: the node's face.

`verify` says what can be known of the records alone, `scopes` who may write them, `plans` what they make of the session. The state is that
of the node's ordinary cache. The engine's own condition decides: the node's `finish` accepts the expected head and nothing else, and makes
on it what no hash covers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from perdure.backends import spi
from perdure.backends.spi import Hear
from perdure.codec import out_of_line
from perdure.codec.records import Proposal
from perdure.engine.core import Core
from perdure.engine.read.bodies import Need, everything
from perdure.engine.read.cache import CachedState
from perdure.engine.write.request import NOTHING
from perdure.errors import Error, Invalid, TooLarge, Unauthorized
from perdure.model.commit import Kind, Status
from perdure.model.epoch import raised
from perdure.model.ids import SessionKey, is_system, system_tenant
from perdure.model.record import Head, Record
from perdure.service.hooks import Credential
from perdure.service.records import forks
from perdure.service.records.face import Face, check_batch, entry_of
from perdure.service.records.plans import Plan, after, append_of, index_of
from perdure.service.records.rules import sections_of
from perdure.service.records.scopes import check_commit, check_scopes
from perdure.service.records.verify import UNPACKED_MAX, Checked, check_attempt, unpacked_bytes
from perdure.service.refusals import Forbidden
from perdure.wire import BODY_BYTES_MAX
from perdure.wire import records as wire

APART_BYTES = 256 << 10
"""Requests with more bytes of bodies are checked in a thread, so that others are served meanwhile."""


class VerifiedFace(Face):
    """The record face of a node."""

    def __init__(self, core: Core, body_max: int = BODY_BYTES_MAX) -> None:
        """`body_max`: the largest request, in bytes."""
        super().__init__(core.backend, body_max)
        self._core, self._tapped = core, False
        self._tasks: set[asyncio.Task[None]] = set()

    async def _listen(self, hear: Hear) -> None:
        if not self._tapped:
            self._tapped = True
            self._core.watchers.tap(hear)
        await self._core.watchers.listen()

    def about(self, caller: Credential | None) -> wire.About:
        """See `Face.about`."""
        return msgspec.structs.replace(super().about(caller), archive=self._core.segments.has_place)

    def check_tenant(self, caller: Credential | None, tenant: str | None) -> None:
        """See `Face.check_tenant`: the caller's own sessions, and what Perdure keeps beside them."""
        own = _credential(caller).tenant
        if tenant not in (own, system_tenant(own)):
            raise Forbidden("These credentials are for the sessions of another tenant: open the store with that one.", advice="")

    def sees(self, caller: Credential | None, session: SessionKey) -> bool:
        """See `Face.sees`."""
        own = _credential(caller).tenant
        return session.tenant in (own, system_tenant(own))

    async def _load(self, session: SessionKey, at: int | None) -> spi.Loaded | None:
        return await self._core.chains.load(session, at)

    async def _read(self, session: SessionKey, after: int, before: int | None, limit: int, *, reverse: bool) -> Sequence[Record]:
        return await self._core.chains.read(session, after=after, before=before, limit=limit, reverse=reverse)

    async def _whole(self, session: SessionKey, records: Sequence[Record], need: Need = everything) -> Sequence[Record]:
        if not any(out_of_line.is_reference(record.body) for record in records):
            return records
        bodies = await self._core.bodies.fetch(session, records, need)
        return [msgspec.structs.replace(each, body=bodies.get(each.head.version, each.body)) for each in records]

    async def append(self, caller: Credential | None, asked: wire.Append) -> wire.Appended:
        """See `Face.append`."""
        check_batch(asked)
        if unpacked_bytes(asked.attempts) > UNPACKED_MAX:
            raise TooLarge(f"The bodies of one request may have {UNPACKED_MAX:,} bytes, uncompressed: send fewer at once.")
        answers: list[wire.Answer | None] = [None] * len(asked.attempts)
        plans: list[tuple[int, Plan]] = []
        slow: list[tuple[int, Checked]] = []
        for number, checked in enumerate(await self._checked(caller, asked)):
            if isinstance(checked, Error):
                answers[number] = wire.refusal(checked)
            elif (plan := self._at_once(checked)) is not None:
                plans.append((number, plan))
            else:
                slow.append((number, checked))
        if slow:
            made = await asyncio.gather(*[self._planned(_credential(caller), checked) for _, checked in slow])
            for (number, _), plan_or_answer in zip(slow, made, strict=True):
                if isinstance(plan_or_answer, Plan):
                    plans.append((number, plan_or_answer))
                else:
                    answers[number] = plan_or_answer
        if plans:
            sent = self._core.cache.now()
            outcomes = await self._store([plan for _, plan in plans])
            for (number, plan), outcome in zip(plans, outcomes, strict=True):
                answers[number] = self._answer(plan, outcome, sent)
                if plan.checked.origin is not None and isinstance(outcome, spi.Appended):
                    await forks.keep_snapshot(self._core, plan.checked.session, plan.checked.origin)
        self._count(asked, answers)
        return wire.Appended(tuple([answer for answer in answers if answer is not None]))

    def _count(self, asked: wire.Append, answers: Sequence[wire.Answer | None]) -> None:
        pairs = zip(asked.attempts, answers, strict=True)
        stored = sum(len(attempt.records) for attempt, answer in pairs if isinstance(answer, wire.Stored))
        lost = sum(isinstance(answer, wire.Mismatch) for answer in answers)
        self._core.telemetry.committed("records", lost, commits=stored)

    async def _checked(self, caller: Credential | None, asked: wire.Append) -> list[Checked | Error]:
        def check() -> list[Checked | Error]:
            return [self._check(caller, attempt) for attempt in asked.attempts]

        apart = sum(len(record.body) for attempt in asked.attempts for record in attempt.records) > APART_BYTES
        return await asyncio.to_thread(check) if apart else check()

    def _check(self, caller: Credential | None, attempt: wire.Attempt) -> Checked | Error:
        credential = _credential(caller)
        try:
            if is_system(attempt.session.tenant):
                raise Forbidden("Perdure's own sessions are written by nodes only.")
            self.check_tenant(caller, attempt.session.tenant)
            checked = check_attempt(self._core.codec, attempt, self._core.clock.now(), self.record_bytes_max)
            for commit in checked.commits:
                check_commit(credential, commit)
        except Error as error:
            return error
        return checked

    def _at_once(self, checked: Checked) -> Plan | None:
        """The plan of a data commit whose state is in memory, or that needs none; `None` for all others."""
        commit, attempt = checked.commits[0], checked.attempt
        if len(checked.commits) > 1 or commit.kind is not Kind.data or self._core.bodies.is_large(attempt.records[0].body):
            return None
        known = self._core.cache.base(checked.session)
        if attempt.expected is None:
            known = NOTHING
        elif known is None or known.head.hash != attempt.expected[1]:
            return None if checked.has_ops else Plan(checked, attempt.records)
        with suppress(Error):  # It is judged on the newest state before it is refused.
            return Plan(checked, attempt.records, after(checked, known))
        return None

    async def _planned(self, credential: Credential, checked: Checked) -> Plan | wire.Answer:
        """The plan of any other attempt, on the newest state; or the answer to one that has none."""
        try:
            return await self._plan(credential, checked)
        except Error as error:
            return wire.refusal(error)

    async def _plan(self, credential: Credential, checked: Checked) -> Plan | wire.Answer:
        core, session, expected = self._core, checked.session, checked.attempt.expected
        current = await core.reader.read_head(session)
        head = None if current is None else current.head
        if expected != (None if head is None else (head.version, head.hash)):
            return wire.Mismatch(head)
        known = current or NOTHING
        base = None
        if checked.origin is not None:
            base = await forks.base(core, session, checked.origin, checked.commits[0])
        made = after(checked, known)
        await self._check_life(session, known, checked)
        await check_scopes(credential, checked, known.control, made.control, core.prefixes.begins)
        if checked.commits[0].kind is Kind.anchor:
            await self._keep_restored(session, known)
        records = await self._out_of_line(session, head, checked)
        return Plan(checked, records, None if base is not None else made, index_of(known, made, checked, core.clock.now()), base)

    async def _check_life(self, session: SessionKey, known: CachedState, checked: Checked) -> None:
        """Raise `Invalid` for a lease commit that names another life of the session than its own."""
        for commit in checked.commits:
            event = commit.events[0]
            if commit.kind is not Kind.lease or not isinstance(event.data, dict) or "life" not in event.data:
                continue
            began = await self._core.reader.incarnation_start(session, known.head) if known.head.version else 0
            if event.data["life"] != began or sections_of(event)["life"]["began"] != began:
                raise Invalid(f"The life of session {session.id!r} began after version {began}.")

    async def _keep_restored(self, session: SessionKey, known: CachedState) -> None:
        """An archived session becomes live again: the engine gets a snapshot, so that its reads need the archive no more."""
        with suppress(TooLarge):
            snapshot = self._core.codec.encode_snapshot(session, known.head.version, known.head.hash, known.state)
            await self._core.backend.put_snapshot(session, snapshot)

    async def _out_of_line(self, session: SessionKey, head: Head | None, checked: Checked) -> Sequence[Record]:
        """The records as they are stored. A body that was stored elsewhere stays there when its record is refused: the same record may have
        come by another node."""
        bodies, life = self._core.bodies, 0 if head is None else raised(head.epoch, 0)
        made = []
        for record, commit in zip(checked.attempt.records, checked.commits, strict=True):
            stored = record
            if bodies.is_large(record.body):
                proposal = Proposal(record.id, commit.kind, record.key, record.request, record.body, b"", b"", b"")
                found = await bodies.store(session, proposal, commit.events, life)
                stored = msgspec.structs.replace(record, body=found.proposal.body)
            made.append(stored)
        return made

    async def _store(self, plans: Sequence[Plan]) -> Sequence[spi.Outcome | BaseException]:
        submit = self._core.writer.submit
        if len(plans) == 1:
            return [await submit(append_of, plans[0])]
        if self.backend.capabilities.batched:
            return await self._core.writer.append_many([append_of(plan) for plan in plans])
        return await asyncio.gather(*[submit(append_of, plan) for plan in plans])

    def _answer(self, plan: Plan, outcome: spi.Outcome | BaseException, sent: float) -> wire.Answer:
        if isinstance(outcome, spi.Appended):
            self._remember(plan, outcome, sent)
            if any(out_of_line.is_reference(record.body) for record in plan.records):
                return wire.Stored(int(min(outcome.durability, self._core.bodies.durability)))
        return entry_of(outcome)

    def _remember(self, plan: Plan, stored: spi.Appended, sent: float) -> None:
        """Bring the cached state onto the new head; have a snapshot stored where one is due. `sent`: before that, by the cache's clock."""
        core, session, head = self._core, plan.checked.session, stored.head
        core.watchers.notify(session, head.version)
        core.cache.saw(session, head.version)
        if plan.after is None:
            return
        if plan.checked.needs_state or session in core.cache:
            made = msgspec.structs.replace(plan.after, head=head)
            if stored.previous is None:
                made = msgspec.structs.replace(made, created_at=plan.checked.commits[0].at)
            core.cache.put(session, made, sent)
            tombstone = head.version if head.status == Status.deleted else None
            core.reader.note_start(session, head, made.control, tombstone)
            if core.snapshots.is_due(made):
                self._start(core.snapshots.store(session, made))

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait for what is still to be done of appends that were answered."""
        while self._tasks:
            await asyncio.gather(*self._tasks)


async def _quietly(work: Any) -> None:
    with suppress(Error):
        await work


def _credential(caller: Credential | None) -> Credential:
    if caller is None:
        raise Unauthorized("A node asks who writes and reads.")
    return caller
