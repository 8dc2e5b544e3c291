"""Appends over a network, one body for all engines behind a driver.

group commit   one attempt a session at a time; which of them go in one write is `group_commit`'s to say
known heads    records are finished on the head last seen; a race that is lost brings the true head and costs one hash
proof          a head that decides was compared with its newest record, see `proof`
verdicts       what `finish` refuses on a head that was only remembered is judged again on the true one, see `verification`; its key is
               looked for up to that head before the verdict is given
lost answers   see `lost_answers`
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from perdure.backends.common.checks import check_records
from perdure.backends.common.pacing import Pacing
from perdure.backends.common.schema import check_index
from perdure.backends.remote.driver import Answer, Attempt, Driver, FinalAnswer, HeadMismatch, RetryLater, SchemaDriver, Stored
from perdure.backends.remote.group_commit import GroupCommit, GroupCommits
from perdure.backends.remote.lost_answers import settle
from perdure.backends.remote.pending import Pending
from perdure.backends.remote.proof import HeadProof
from perdure.backends.remote.verification import prove_heads, verify_heads
from perdure.backends.spi import Append, Appended, Head, Known, Outcome, Refused, Spread
from perdure.clock import SystemClock
from perdure.errors import Corrupt, Error, Invalid, TooLarge, Unavailable, Unknown
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

_CLOCK = SystemClock()
HEADS_MAX = 65_536
"""Most heads remembered; about 300 bytes each."""
RACES_MAX = 64
"""Lost races in a row before the engine is asked to look again (it may have to rebase)."""
RETRY_AFTER = 0.05
"""Seconds until an attempt is tried again whose session was moving."""
DRAIN_LOOKS = 0.01
"""Seconds between two looks, while closing, at appends that pause."""
SWEEP = 0.125
"""How often overdue appends are looked for, as a share of the time-out."""
_OF_A_VALUE = (Corrupt, Invalid, TooLarge)
MOVING = 1.0
"""Seconds for which sessions count as moving after one was met that is."""


class Appender:
    """The writing half of a remote engine. Lives on the driver's loop. `timeout`: seconds an append may wait before it is first sent,
    and as long again until it is answered, whatever the driver does. `tick` is a monotonic clock in seconds.

    An `Unknown` with the fact `settled` was looked for in vain: there is no use in looking again at once."""

    def __init__(
        self,
        driver: Driver,
        *,
        timeout: float,
        tick: Callable[[], float],
        bits: Callable[[int], int] = _CLOCK.bits,
        heads_max: int = HEADS_MAX,
    ) -> None:
        self._driver, self._timeout, self._tick = driver, timeout, tick
        self.proof = HeadProof(driver)
        self._schema = driver.schema if isinstance(driver, SchemaDriver) else 0
        self._heads = LruMap[SessionKey, Head](heads_max)
        self._busy: dict[SessionKey, deque[Pending | asyncio.Future[None]]] = {}
        server_of = driver.server_of if isinstance(driver, Spread) else lambda _: None
        self._groups = GroupCommits(self._write, server_of, lanes=driver.lanes, batch_max=driver.batch_max)
        self._settling: set[asyncio.Task[None]] = set()
        self._pacing = Pacing(tick, bits)
        self._progress: dict[SessionKey, float] = {}
        """When the engine last answered an append that others of its session wait for."""
        self._under_way: dict[Pending, None] = {}
        self._sweeping = False
        self._moving_until = 0.0

    @property
    def moving(self) -> bool:
        """Whether sessions are moving, so that some appends have to wait while others need not."""
        return self._moving_until > 0 and self._tick() < self._moving_until

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        """See `spi.Backend.append`."""
        loop = asyncio.get_running_loop()
        now = self._tick()
        futures = []
        for append in appends:
            pending = Pending(append, loop.create_future(), now, alone=len(appends) == 1)
            futures.append(pending.future)
            self._under_way[pending] = None
            queue = self._busy.get(append.session)
            if queue is None:
                self._busy[append.session] = deque()
                self._make_ready(pending)
            else:
                pending.queued = True
                queue.append(pending)
        self._groups.pump()
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._timeout * SWEEP, self._sweep)
        return [await future for future in futures]

    def _sweep(self) -> None:
        """Answer what is overdue, all of it at once: what waited for a write that hangs does not begin to wait for its own after it."""
        now = self._tick()
        for pending in list(self._under_way):
            waited = now - (max(pending.since, self._progress.get(pending.append.session, 0.0)) if pending.queued else pending.since)
            if waited > self._timeout and not pending.sent:
                self._answer(pending, pending.reason or self._late())
            elif waited > 2 * self._timeout:
                self._answer(pending, Unknown(f"The engine did not answer for {waited:.1f} s.", settled=True))
        self._sweeping = bool(self._under_way)
        if self._sweeping:
            asyncio.get_running_loop().call_later(self._timeout * SWEEP, self._sweep)

    def _late(self) -> Unavailable:
        return Unavailable(f"The engine was not free for {self._timeout:g} s; this append was not sent.")

    def learn(self, session: SessionKey, head: Head | None, *, proven: bool) -> None:
        """Remember a head that a read has shown, unless a newer one is known. The first one of a session has to be `proven`."""
        known = self._heads.get(session)
        if head is not None and (proven if known is None else known.version < head.version):
            self._heads.put(session, head)

    def knows(self, session: SessionKey, head: Head) -> bool:
        """Whether this is the head that is remembered."""
        return self._heads.get(session) == head

    def forget(self, session: SessionKey) -> None:
        """Drop what is remembered of a session, for one whose chain was cut by other means than an append."""
        self._heads.pop(session)

    async def settled(self, session: SessionKey) -> None:
        """Wait for the appends of a session that came before. Raises `Unknown` after the time-out."""
        queue = self._busy.get(session)
        if queue is None:
            return
        passed = asyncio.get_running_loop().create_future()
        queue.append(passed)
        if not (await asyncio.wait([passed], timeout=self._timeout))[0]:
            raise Unknown(f"A cancelled append to session {session.id!r} has not ended within {self._timeout:g} s.")

    async def drain(self) -> None:
        """Wait until nothing is on its way."""
        self._groups.flush()
        while self._under_way:
            tasks = self._groups.tasks | self._settling
            await (asyncio.wait(tasks) if tasks else asyncio.sleep(DRAIN_LOOKS))
            self._groups.flush()
        if tasks := self._groups.tasks | self._settling:
            await asyncio.wait(tasks)

    def _make_ready(self, pending: Pending) -> None:
        """Have it sent next, or after a pause where other processes race for its session."""
        seconds = self._pacing.pause(pending.append.session)
        if seconds:
            asyncio.get_running_loop().call_later(seconds, self._send_again, pending)
        else:
            self._groups.add(pending)

    def _send_again(self, pending: Pending) -> None:
        self._groups.add(pending)
        self._groups.pump()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what does not hold up a lane."""
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._started_ended)

    def _started_ended(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        self._groups.pump()

    async def _write(self, group: GroupCommit, batch: Sequence[Pending]) -> None:
        try:
            strange: list[Pending] = []
            refused: list[Pending] = []
            attempts = [made for pending in batch if (made := self._prepare(pending, strange, refused)) is not None]
            if strange:
                await prove_heads(self.proof, strange, self._answer)
                attempts += [made for pending in strange if (made := self._prepare(pending, strange, refused)) is not None]
            if refused:
                await verify_heads(self._driver, self.proof, refused, self._answer)
                attempts += [made for pending in refused if (made := self._prepare(pending, strange, refused)) is not None]
            if attempts:
                await self._send(group, attempts)
        except BaseException as error:  # noqa: BLE001 - the callers get it: none of them may wait for ever
            for pending in batch:
                self._answer(pending, error)

    def _prepare(self, pending: Pending, strange: list[Pending], refused: list[Pending]) -> tuple[Pending, Attempt] | None:
        """The attempt on the head last seen. `None`: the append was answered, or it is now one of those whose head has to be proven, or of
        those that were refused on a head that is not certain."""
        append = pending.append
        if pending.answered:
            return None
        if self._tick() - pending.since > self._timeout:
            self._answer(pending, pending.reason or self._late())
            return None
        if not pending.verified:
            pending.head = self._heads.get(append.session)
        elif not pending.trusted:
            strange.append(pending)
            return None
        try:
            records = append.finish(pending.head)
            if records is not None:
                check_records(append.session, pending.head, records, self._driver.capabilities.record_bytes_max)
                check_index(append.session, append.index, schema=self._schema)
                return pending, Attempt(append.session, pending.head, tuple(records), append.key, append.index, append.durability)
            verdict: Outcome | BaseException = Refused(pending.head)
        except Exception as error:  # noqa: BLE001 - the outcome of this append alone
            verdict = error
        if pending.proven and pending.new:
            self._answer(pending, verdict)
        else:
            refused.append(pending)
        return None

    async def _send(self, group: GroupCommit, attempts: Sequence[tuple[Pending, Attempt]]) -> None:
        """Send what was not answered while it waited for the others of its batch: its caller has heard that it was not sent."""
        attempts = [(pending, attempt) for pending, attempt in attempts if not pending.answered]
        if not attempts:
            return
        answers: Sequence[Answer]
        start = self._tick()
        for pending, _ in attempts:
            pending.sent = True
        try:
            answers = await self._driver.write([attempt for _, attempt in attempts])
        except Error as error:
            answers = [error] * len(attempts)
        took = self._tick() - start
        group.sent(len(attempts), took)
        for pending, _ in attempts:
            pending.took = took
        spoiled = _sharing_an_error(answers)
        for number, ((pending, attempt), answer) in enumerate(zip(attempts, answers, strict=True)):
            if number in spoiled:
                continue
            if isinstance(answer, Unknown):
                self._start(self._settle(pending, attempt, answer))
            elif isinstance(answer, RetryLater):
                self._start(self._try_later(pending, answer.error))
            else:
                self._take(pending, attempt, answer)
        half = (len(spoiled) + 1) // 2
        for part in (spoiled[:half], spoiled[half:]):
            if part:
                await self._send(group, [attempts[number] for number in part])

    async def _try_later(self, pending: Pending, error: Error) -> None:
        """Nothing was done: wait outside the lanes, and try again while there is time. One of several appends of a call does not wait: it
        would hold up the answers to the others."""
        self._moving_until = self._tick() + MOVING
        if not pending.alone:
            self._answer(pending, error)
            return
        pending.reason, pending.sent = error, False
        await asyncio.sleep(RETRY_AFTER)
        self._groups.add(pending)

    async def _settle(self, pending: Pending, attempt: Attempt, lost: Unknown) -> None:
        """Find out what became of an attempt whose answer was lost."""
        try:
            answer = await settle(self._driver, attempt, lost, timeout=self._timeout, tick=self._tick, answered=lambda: pending.answered)
        except BaseException as error:
            self._answer(pending, error)
            raise
        if answer is not None:
            self._take(pending, attempt, answer)

    def _take(self, pending: Pending, attempt: Attempt, answer: FinalAnswer) -> None:
        """Turn an answer into an outcome, or into the next try on the head that won."""
        if self._busy.get(attempt.session) and not isinstance(answer, Error):
            self._progress[attempt.session] = self._tick()
        match answer:
            case Stored():
                head = attempt.records[-1].head
                self._heads.put(attempt.session, head)
                self._pacing.won(attempt.session)
                self._answer(pending, Appended(head, attempt.expected, attempt.records[-1].id, answer.durability))
            case HeadMismatch():
                pending.races += 1
                known = self._heads.get(attempt.session)
                pending.head, pending.verified = answer.head, True
                pending.proven = answer.proven or answer.head is None
                pending.trusted = pending.proven or (known is not None and answer.head is not None and known.version < answer.head.version)
                pending.new = pending.append.key is None
                if answer.head is None or not pending.trusted:
                    self.forget(attempt.session)
                else:
                    self._heads.put(attempt.session, answer.head)
                if pending.races > 1:  # The first one may be refused by its own `finish`, and is paced by those who made it.
                    self._pacing.lost(attempt.session, pending.took)
                if pending.races < RACES_MAX:
                    pending.since, pending.sent = self._tick(), False
                    self._make_ready(pending)
                else:
                    self._answer(pending, Refused(answer.head))
            case Known():
                self.learn(attempt.session, answer.head, proven=False)
                self._answer(pending, answer)
            case _:
                self.forget(attempt.session)
                self._answer(pending, answer)

    def _answer(self, pending: Pending, outcome: Outcome | BaseException) -> None:
        """Give the outcome, once, and let the session's next append go."""
        if pending.answered:
            return
        pending.future.set_result(outcome)
        self._under_way.pop(pending, None)
        session = pending.append.session
        queue = self._busy[session]
        if pending.queued:
            queue.remove(pending)
            return
        while queue:
            following = queue.popleft()
            if isinstance(following, Pending):
                following.queued, following.since = False, self._tick()
                self._make_ready(following)
                return
            following.set_result(None)
        del self._busy[session]
        self._progress.pop(session, None)


def _sharing_an_error(answers: Sequence[Answer]) -> list[int]:
    """Which attempts share one error of a value: one of them spoiled the write, and none was stored. They are sent again in halves."""
    sharing: dict[int, list[int]] = {}
    for number, answer in enumerate(answers):
        if isinstance(answer, _OF_A_VALUE):
            sharing.setdefault(id(answer), []).append(number)
    return [number for numbers in sharing.values() if len(numbers) > 1 for number in numbers]
