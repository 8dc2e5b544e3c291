"""Appends over a network: group commit, known heads, lost races, lost answers. One body for all engines behind a driver.

group commit   while all lanes are busy others wait and go together in the next write; one attempt a session at a time. After a write
               of many the next one waits a moment until nearly as many have come: those who were answered are about to append again
known heads    records are finished on the head last seen; a race that is lost brings the true head and costs one hash
verdicts       what `finish` refuses on a head that was only remembered is judged again on the true one; before it is told, its key is
               looked for up to that head
lost answers   the position is read back: mine, another's, or still free; then the *identical* attempt is sent again, for a write
               whose time ran out may land later. It fails for good once the head has moved, so no second life is possible
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain, repeat
from typing import Any

from perdure.backends.common.checks import check_records
from perdure.backends.common.pacing import Pacing
from perdure.backends.common.schema import check_index
from perdure.backends.remote.driver import Answer, Attempt, Driver, FinalAnswer, HeadMismatch, RetryLater, SchemaDriver, Stored
from perdure.backends.remote.loop import gather_all
from perdure.backends.spi import Append, Appended, Head, Known, Outcome, Refused
from perdure.clock import SystemClock
from perdure.errors import Corrupt, Error, Invalid, TooLarge, Unavailable, Unknown
from perdure.lru import LruMap
from perdure.model.ids import SessionKey

_CLOCK = SystemClock()
HEADS_MAX = 65_536
"""Most heads remembered; about 300 bytes each."""
CROWD, PATIENCE = 0.8, 0.5
"""A write waits for company until so many have come, as a share of those in the last one; or for so long, as a share of its time."""
RACES_MAX = 64
"""Lost races in a row before the engine is asked to look again (it may have to rebase)."""
RESEND_AFTER = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between tries to settle a lost answer; the last one repeats."""
LATER = 0.05
"""Seconds until an attempt is tried again whose session was moving."""
PAUSING = 0.01
"""Seconds between two looks at what pauses, before the end."""
SWEEP = 0.125
"""How often it is looked for appends that are overdue, as a share of the time-out."""
_OF_A_VALUE = (Corrupt, Invalid, TooLarge)
MOVING = 1.0
"""Seconds for which sessions count as moving after one was met that is."""


class _Pending:
    """One append on its way: `sure` when `head` was read or refused a write, rather than remembered or guessed; `new` when its key is
    known to be in none of the records up to that head."""

    __slots__ = ("alone", "append", "future", "head", "new", "queued", "races", "sent", "since", "sure", "waits_for")

    def __init__(self, append: Append, future: asyncio.Future[Outcome | BaseException], since: float, *, alone: bool) -> None:
        self.append, self.future, self.since, self.alone = append, future, since, alone
        self.head: Head | None = None
        self.sure = False
        self.new = append.key is None
        self.races = 0
        self.queued = self.sent = False
        """Whether it waits for another append of its session, and whether its record may be stored: it was sent and not answered."""
        self.waits_for: Error | None = None
        """Why it was not done when it was last sent."""


class Appender:
    """The writing half of a remote engine. Lives on the driver's loop. `timeout`: seconds an append may wait before it is first sent,
    and as long again until it is answered, whatever the driver does. `tick` is a monotonic clock in seconds.

    An `Unknown` with the fact `settled` was looked for in vain: it is of no use to look again at once."""

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
        self._schema = driver.schema if isinstance(driver, SchemaDriver) else 1
        self._heads = LruMap[SessionKey, Head](heads_max)
        self._ready: deque[_Pending] = deque()
        self._busy: dict[SessionKey, deque[_Pending | asyncio.Future[None]]] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._crowd, self._took = 0, 0.0
        """How many went in the last write, and its seconds."""
        self._timer: asyncio.TimerHandle | None = None
        self._pacing = Pacing(tick, bits)
        self._progress: dict[SessionKey, float] = {}
        """When the engine last answered an append that others of its session wait for."""
        self._under_way: dict[_Pending, None] = {}
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
            pending = _Pending(append, loop.create_future(), now, alone=len(appends) == 1)
            futures.append(pending.future)
            self._under_way[pending] = None
            queue = self._busy.get(append.session)
            if queue is None:
                self._busy[append.session] = deque()
                self._make_ready(pending)
            else:
                pending.queued = True
                queue.append(pending)
        self._pump()
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
                self._answer(pending, pending.waits_for or self._late())
            elif waited > 2 * self._timeout:
                self._answer(pending, Unknown(f"The engine did not answer for {waited:.1f} s.", settled=True))
        self._sweeping = bool(self._under_way)
        if self._sweeping:
            asyncio.get_running_loop().call_later(self._timeout * SWEEP, self._sweep)

    def _late(self) -> Unavailable:
        return Unavailable(f"The engine was not free for {self._timeout:g} s; this append was not sent.")

    def learn(self, session: SessionKey, head: Head | None) -> None:
        """Remember a head that a read has shown, unless a newer one is known."""
        known = self._heads.get(session)
        if head is not None and (known is None or known.version < head.version):
            self._heads.put(session, head)

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
        self._enough()
        while self._under_way:
            tasks = {*self._writes, *self._settling}
            await (asyncio.wait(tasks) if tasks else asyncio.sleep(PAUSING))
            self._enough()
        if tasks := {*self._writes, *self._settling}:
            await asyncio.wait(tasks)

    def _make_ready(self, pending: _Pending) -> None:
        """Have it sent next, or after a pause where other processes race for its session."""

        def put() -> None:
            self._ready.append(pending)
            self._pump()

        seconds = self._pacing.pause(pending.append.session)
        if seconds:
            asyncio.get_running_loop().call_later(seconds, put)
        else:
            self._ready.append(pending)

    def _pump(self) -> None:
        """Start writes while there is a lane and something to send."""
        while self._ready and len(self._writes) < self._driver.lanes:
            if len(self._ready) < CROWD * self._crowd:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(PATIENCE * self._took, self._enough)
                return
            self._stop_waiting()
            batch = [self._ready.popleft() for _ in range(min(len(self._ready), self._driver.batch_max))]
            self._start(self._writes, self._write(batch))

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _enough(self) -> None:
        """Wait for nobody else."""
        self._stop_waiting()
        self._crowd = 0
        self._pump()

    def _start(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            self._pump()

        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(ended)

    async def _write(self, batch: Sequence[_Pending]) -> None:
        try:
            doubtful: list[_Pending] = []
            attempts = [made for pending in batch if (made := self._prepare(pending, doubtful)) is not None]
            if doubtful:
                await self._ascertain(doubtful)
                attempts += [made for pending in doubtful if (made := self._prepare(pending, doubtful)) is not None]
            if attempts:
                await self._send(attempts)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it: nobody may wait for ever
            for pending in batch:
                self._answer(pending, error)

    def _prepare(self, pending: _Pending, doubtful: list[_Pending]) -> tuple[_Pending, Attempt] | None:
        """The attempt on the head last seen. Without one the append was answered, or is doubtful: its head was not sure."""
        append = pending.append
        if pending.future.done():
            return None
        if self._tick() - pending.since > self._timeout:
            self._answer(pending, pending.waits_for or self._late())
            return None
        if not pending.sure:
            pending.head = self._heads.get(append.session)
        try:
            records = append.finish(pending.head)
            if records is not None:
                check_records(append.session, pending.head, records, self._driver.capabilities.record_bytes_max)
                check_index(append.session, append.index, schema=self._schema)
                return pending, Attempt(append.session, pending.head, tuple(records), append.key, append.index, append.durability)
            verdict: Outcome | BaseException = Refused(pending.head)
        except Exception as error:  # noqa: BLE001 - the outcome of this append alone
            verdict = error
        if pending.sure and pending.new:
            self._answer(pending, verdict)
        else:
            doubtful.append(pending)
        return None

    async def _ascertain(self, doubtful: Sequence[_Pending]) -> None:
        """Read the true heads of appends that were refused on a head that was only remembered, and answer those whose key is known.

        A head that refused a write is true, but need not be what the write's look for the key saw: it may have waited for that head.
        """

        async def look_up(pending: _Pending, key: str) -> None:
            try:
                known = await self._driver.find_key(pending.append.session, key)
            except Error as error:
                self._answer(pending, error)
                return
            if known is not None:
                self._answer(pending, known)

        guessed = [pending for pending in doubtful if not pending.sure]
        if guessed:
            await self._look_up_heads(guessed)
        # The heads come first: what is refused on one must not have had its key applied up to it.
        await gather_all(
            *[look_up(pending, pending.append.key) for pending in doubtful if pending.append.key and not pending.future.done()]
        )
        for pending in doubtful:
            pending.new = True

    async def _look_up_heads(self, guessed: Sequence[_Pending]) -> None:
        """Of heads that are damaged each is an error of its own append alone."""
        try:
            heads = await self._driver.heads([pending.append.session for pending in guessed])
        except Corrupt as error:
            if len(guessed) == 1:
                self._answer(guessed[0], error)
                return
            half = len(guessed) // 2
            await self._look_up_heads(guessed[:half])
            await self._look_up_heads(guessed[half:])
            return
        for pending, head in zip(guessed, heads, strict=True):
            pending.head, pending.sure = head, True

    async def _send(self, attempts: Sequence[tuple[_Pending, Attempt]]) -> None:
        """Send what was not answered while it waited for the others of its batch: that was told as not sent."""
        attempts = [(pending, attempt) for pending, attempt in attempts if not pending.future.done()]
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
        self._crowd, self._took = len(attempts), self._tick() - start
        spoiled = _told_together(answers)
        for number, ((pending, attempt), answer) in enumerate(zip(attempts, answers, strict=True)):
            if number in spoiled:
                continue
            if isinstance(answer, Unknown):
                self._start(self._settling, self._settle(pending, attempt, answer))
            elif isinstance(answer, RetryLater):
                self._start(self._settling, self._try_later(pending, answer.error))
            else:
                self._take(pending, attempt, answer)
        half = (len(spoiled) + 1) // 2
        for part in (spoiled[:half], spoiled[half:]):
            if part:
                await self._send([attempts[number] for number in part])

    async def _try_later(self, pending: _Pending, error: Error) -> None:
        """Nothing of it was done: wait outside the lanes, and judge it anew while there is time. One that came together with others does
        not wait: it would hold up their answers."""
        self._moving_until = self._tick() + MOVING
        if not pending.alone:
            self._answer(pending, error)
            return
        pending.waits_for, pending.sent = error, False
        await asyncio.sleep(LATER)
        self._ready.append(pending)

    async def _settle(self, pending: _Pending, attempt: Attempt, lost: Unknown) -> None:
        """Find out what became of an attempt whose answer was lost; send it again, unchanged, while its place is free."""
        answer: FinalAnswer = lost
        until = self._tick() + self._timeout
        for wait in chain(RESEND_AFTER, repeat(RESEND_AFTER[-1])):
            try:
                answer = await self._settled(attempt)
            except Error as error:
                answer = error
            except BaseException as error:
                self._answer(pending, error)
                raise
            if pending.future.done():
                return
            if not isinstance(answer, Error):
                break
            # Whatever the engine says of itself now (away, no rights any more), what became of the first write is as unknown as before.
            final, answer = not isinstance(answer, Unknown | Unavailable), lost
            if final or self._tick() + wait > until:
                break
            await asyncio.sleep(wait)
        if isinstance(answer, Stored) and answer.durability < attempt.durability:
            answer = lost
        lost.facts["settled"] = True
        self._take(pending, attempt, answer)

    async def _settled(self, attempt: Attempt) -> FinalAnswer:
        found = await self._look(attempt)
        if found is not None:
            return found
        (answer,) = await self._driver.write([attempt])
        if isinstance(answer, RetryLater):
            return answer.error
        if isinstance(answer, HeadMismatch | Known):
            return await self._look(attempt) or answer  # It may be my own, landed late, that is in the way.
        return answer

    async def _look(self, attempt: Attempt) -> FinalAnswer | None:
        """Whose record is behind the expected head: mine, another's (with the head of now), or nobody's yet (`None`)."""
        (head,) = await self._driver.heads([attempt.session])
        if head == attempt.expected:
            return None
        # The head comes first: once it has moved, what stands at the position stands for ever.
        first = attempt.records[0]
        version = first.head.version
        found = await self._driver.read(attempt.session, version - 1, version + 1, 1, reverse=False)
        if found and found[0].id == first.id:
            return Stored(self._driver.durability_read)
        if attempt.key is not None and (known := await self._driver.find_key(attempt.session, attempt.key)) is not None:
            return known
        return HeadMismatch(head)

    def _take(self, pending: _Pending, attempt: Attempt, answer: FinalAnswer) -> None:
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
                pending.head, pending.sure = answer.head, True
                pending.new = pending.append.key is None
                if answer.head is None:
                    self.forget(attempt.session)
                else:
                    self._heads.put(attempt.session, answer.head)
                if pending.races > 1:  # The first one may be refused by its own `finish`, and is paced by those who made it.
                    self._pacing.lost(attempt.session, self._took)
                if pending.races < RACES_MAX:
                    pending.since, pending.sent = self._tick(), False
                    self._make_ready(pending)
                else:
                    self._answer(pending, Refused(answer.head))
            case Known():
                self._heads.put(attempt.session, answer.head)
                self._answer(pending, answer)
            case _:
                self.forget(attempt.session)
                self._answer(pending, answer)

    def _answer(self, pending: _Pending, outcome: Outcome | BaseException) -> None:
        """Give the outcome, once, and let the session's next append go."""
        if pending.future.done():
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
            if isinstance(following, _Pending):
                following.queued, following.since = False, self._tick()
                self._make_ready(following)
                return
            following.set_result(None)
        del self._busy[session]
        self._progress.pop(session, None)


def _told_together(answers: Sequence[Answer]) -> list[int]:
    """Which attempts share one error of a value: one of them spoiled it for all, and none was stored. Sent in halves, it is found."""
    told: dict[int, list[int]] = {}
    for number, answer in enumerate(answers):
        if isinstance(answer, _OF_A_VALUE):
            told.setdefault(id(answer), []).append(number)
    return [number for numbers in told.values() if len(numbers) > 1 for number in numbers]
