"""A world of workers that want one session: a play of steps on the real code, with a simulated clock for each worker.

Workers share an engine in memory. Calls of one round run at once, and the engine lets others go first now and then. It loses answers,
before or after the write, and its newest commits in a failover; time passes only where a step says so; the workers' wall clocks are hours
apart. A sweeper wants the session to expire, and asks who holds it. After each round the chain is judged against what the steps have seen.
A play that breaks a rule raises `BrokenRule`, which tells the whole story; `shortest` finds the steps that are needed for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from perdure import Event
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Durability, Head, Outcome
from perdure.clock import SeededClock
from perdure.codec.codec import Codec
from perdure.config import Settings
from perdure.engine.core import Core
from perdure.engine.leasing.keeper import Keeper
from perdure.engine.leasing.lease import Lease
from perdure.engine.leasing.rules import Claim
from perdure.engine.store import Store
from perdure.errors import Busy, Conflict, Deleted, Error, Fenced, NotFound, Rewound, Unavailable, Unknown
from perdure.model.commit import Commit
from perdure.model.epoch import is_challenged, is_held
from perdure.model.ids import SessionKey
from perdure.ops import Action, sweep
from tests.support.engine.lease_judge import FREE_FORK, GETS_THROUGH, SILENT_LOOK, SWEEPER, Judge, Worker
from tests.support.engine.lease_story import BrokenRule, Story

SESSION = SessionKey("default", "trip-42")
NAMES = ("ann", "bob", "cid")
TTLS = (3.0, 10.0, 30.0)
ACTIONS = (
    "wait", "wait", "wait", "look", "look", "try", "try", "try", "peek", "append", "append", "append", "other", "release", "drop",
    "break", "delete", "fork", "confirm", "release old", "append old", "failover",
)  # fmt: skip
SWEPT_ACTIONS = (*ACTIONS, "configure", "sweep", "sweep", "sweep", "sweep", "wait", "wait", "wait")
"""With a sweeper among them, which finds the session idle if the workers let it."""
CHANGES = ("try", "peek", "release", "drop")
"""Actions that a worker takes one at a time: they change which lease it has."""
Step = tuple[str, int, int]
"""An action, the worker that acts, and a number that says how."""


class WorldClock:
    """A worker's clock: the world's time from an origin of its own, and a wall clock that is hours off."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self._number = world, number
        self.bits = random.Random(number).getrandbits

    def now(self) -> int:
        return int((self._world.now + self._number * 3_600 - 7_200) * 1e9) + 1_700_000_000_000_000_000

    def monotonic(self) -> float:
        return self._world.now + 1_000.0 * self._number


class Engine(MemoryBackend):
    """Memory that lets others go first, and loses answers."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(SeededClock(1))
        self.chance = chance
        self.losing = False

    async def _others(self) -> None:
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)

    async def append(self, appends: Sequence[Append]) -> Sequence[Outcome | BaseException]:
        await self._others()
        lost = self.chance.random() if self.losing else 1.0
        if lost < 0.15:
            raise Unknown("The request was lost.")
        outcomes = await super().append(appends)
        await self._others()
        if lost < 0.3:
            raise Unknown("The answer was lost.")
        return outcomes

    async def heads(self, sessions: Sequence[SessionKey]) -> Sequence[Head | None]:
        await self._others()
        if self.losing and self.chance.random() < 0.1:
            raise Unavailable("The request was lost.")
        found = await super().heads(sessions)
        await self._others()
        return found


class StillKeeper(Keeper):
    """A keeper without a thread: it looks when the world says so."""

    def add(self, lease: Lease) -> None:
        self._held[id(lease)] = lease

    async def close(self) -> None:
        """There is no thread."""


class World:
    """The workers, the time, the story."""

    def __init__(self, seed: int, workers: int = 3) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.engine = Engine(self.chance)
        self.workers = [self._worker(number, NAMES[number]) for number in range(workers)]
        self.owners: dict[str, Worker] = {}
        """Which worker made which claim."""
        self.story = Story(SESSION.id)
        self.sweeper = self._worker(workers, SWEEPER)
        self.judge = Judge(self.story, self.owners, self.sweeper)
        self.forks = 0

    def _worker(self, number: int, name: str) -> Worker:
        core = Core(self.engine, "memory:", WorldClock(self, number), Settings(), Durability.memory, Codec())
        core.leases.keeper = StillKeeper(core.leases.look, core.clock.monotonic)
        core.closed = True  # It is one engine for all: none of them closes it.
        core.check_open = lambda: None  # type: ignore[method-assign]
        return Worker(Store(core, "default"), number, name)

    async def play(self, steps: Sequence[Step]) -> None:
        """Act, three steps at once, and judge after each round. Raises `BrokenRule`."""
        for start in range(0, len(steps), 3):
            part = steps[start : start + 3]
            await asyncio.gather(*(self._act(*step) for step in part if step[0] != "wait"))
            await self._judge()
            for _, _, how in (step for step in part if step[0] == "wait"):
                self.now += (0.5, 1.0, 3.0, 10.0, 31.0)[how % 5]
        await self._must_get_through()

    async def _act(self, action: str, number: int, how: int) -> None:
        worker = self.workers[number % len(self.workers)]
        self.engine.losing = how % 4 == 0
        call = getattr(self, "_" + action.replace(" ", "_"))
        try:
            if action in CHANGES:
                async with worker.lock:
                    said = await call(worker, how)
            else:
                said = await call(worker, how)
        except (Fenced, Deleted, NotFound, Unknown, Unavailable, Busy, Conflict, Rewound) as error:
            said = f"{worker.name} gets {type(error).__name__}: {action}"
        self.engine.losing = False
        self.story.say(said)

    async def _try(self, worker: Worker, how: int, *, ask: bool = True) -> str | None:
        """Want the lease: one look, as `store.lease` does it."""
        if worker.lease is not None and not worker.lease._over:
            return None
        if worker.claim is None:
            worker.claim = Claim(f"{worker.number}.{len(self.owners)}", worker.name, TTLS[how % 3], how % 5 == 0)
            self.owners[worker.claim.id] = worker
            self.story.names[worker.claim.id] = worker.name
        leases = worker.store._core.leases
        attempt = await leases.attempt(SESSION, worker.claim, ask=ask)
        if attempt.fence is None:
            return f"{worker.name} waits: {attempt.holder.owner} holds {SESSION.id}"
        if worker.lease is not None:
            worker.old.append(worker.lease)
        worker.lease, worker.claim, worker.proofs = leases.hold(attempt.fence, worker.claim, None), None, []
        return None

    async def _peek(self, worker: Worker, how: int) -> str | None:
        before = await self._count()
        said = await self._try(worker, how, ask=False)
        later = [commit async for commit in worker.store._core.reader.commits(SESSION, after=before)]
        if any(commit.actor == worker.name and commit.events[0].type == "challenged" for commit in later):
            raise await self._broken(SILENT_LOOK, f"{worker.name} only looked, and challenged the holder.")
        return said

    async def _count(self) -> int:
        (head,) = await MemoryBackend.heads(self.engine, [SESSION])
        return 0 if head is None else head.version

    async def _look(self, worker: Worker, how: int) -> str | None:
        lease = worker.lease
        if lease is None or lease._over:
            return None
        self.engine.losing, began = False, self.now  # A look that does not reach the engine shows nothing.
        await worker.store._core.leases.look([lease])
        if not lease._over:
            worker.proofs.append(began)
        found = "lost" if lease._over else "held"
        return f"{worker.name} looks at {self.story.token(lease.token)}: it is {found}"

    async def _confirm(self, worker: Worker, how: int) -> str | None:
        lease, began = worker.lease, self.now
        if lease is None:
            return None
        await lease.confirm()
        worker.proofs.append(began)
        return f"{worker.name} confirms {self.story.token(lease.token)}"

    async def _append(self, worker: Worker, how: int) -> None:
        if worker.lease is not None:
            await self._append_under(worker, worker.lease)

    async def _append_old(self, worker: Worker, how: int) -> None:
        if worker.old:
            await self._append_under(worker, worker.old[how % len(worker.old)])

    async def _append_under(self, worker: Worker, lease: Lease) -> None:
        began = self.now
        recreate = self.chance.random() < 0.3
        receipt = await worker.store.append(SESSION.id, Event("work"), lease=lease, actor=lease._claim.id, recreate=recreate)
        commit = await worker.store._core.reader.commit(SESSION, receipt.version)
        if lease is worker.lease and commit is not None and not is_challenged(commit.epoch):
            worker.proofs.append(began)

    async def _other(self, worker: Worker, how: int) -> None:
        await worker.store.append(SESSION.id, Event("chat"), recreate=True, actor=worker.name)

    async def _release(self, worker: Worker, how: int) -> None:
        if worker.lease is not None:
            worker.old.append(worker.lease)
            lease, worker.lease = worker.lease, None
            await lease.release()

    async def _release_old(self, worker: Worker, how: int) -> None:
        if worker.old:
            await worker.old[how % len(worker.old)].release()

    async def _drop(self, worker: Worker, how: int) -> str:
        """The worker dies: what it holds is answered no more."""
        if worker.lease is not None:
            worker.old.append(worker.lease)
        worker.lease = worker.claim = None
        return f"{worker.name} dies and starts again; what it held is answered no more"

    async def _break(self, worker: Worker, how: int) -> None:
        if how % 4 == 1:
            await worker.store.break_lease(SESSION.id, actor="an operator")

    async def _delete(self, worker: Worker, how: int) -> None:
        if how % 3 == 1:
            await worker.store.delete(SESSION.id, actor=worker.name)

    async def _configure(self, worker: Worker, how: int) -> None:
        await worker.store.configure(SESSION.id, expire_after=20, actor=worker.name)

    async def _sweep(self, worker: Worker, how: int) -> str | None:
        actions: list[Action] = []
        try:
            await sweep(self.sweeper.store, once=True, notify=actions.append)
        finally:
            self.engine.losing = False
        return "; ".join(f"{SWEEPER} looks at {each.session}: {each.action}, {each.detail}" for each in actions)

    async def _failover(self, worker: Worker, how: int) -> str | None:
        """The engine's newest commits are gone: with them what they proved. The index row's cell stays as it is, and is wrong."""
        chain = self.engine._chains.get(SESSION)
        count = 1 + how % 3
        if how % 12 != 2 or chain is None or len(chain.records) <= count:
            return None
        del chain.records[-count:]
        self.judge.rewound = True
        for version in [version for version in self.judge.times if version > chain.head.version]:
            del self.judge.times[version]
        self.story.rewind([commit async for commit in self.workers[0].store._core.reader.commits(SESSION)])
        for each in self.workers:
            each.proofs.clear()
            if each.lease is not None and each.lease._over:
                each.old.append(each.lease)
                each.lease = None
        return f"the engine fails over, and has lost {count} commits: back to version {chain.head.version}"

    async def _fork(self, worker: Worker, how: int) -> str:
        self.forks += 1
        child = await worker.store.fork(SESSION.id, id=f"fork-{self.forks}")
        (head,) = await MemoryBackend.heads(self.engine, [SessionKey("default", child)])
        if head is None or is_held(head.epoch):
            raise await self._broken(FREE_FORK, f"{worker.name} made {child}, and it is held.")
        return f"{worker.name} forks {SESSION.id}: {child}"

    async def _tell(self) -> list[Commit]:
        """Tell what has happened; the chain."""
        chain = [commit async for commit in self.workers[0].store._core.reader.commits(SESSION)]
        for commit in chain:
            self.judge.times.setdefault(commit.version, self.now)
        self.judge.now = self.now
        self.story.round(self.now, chain)
        return chain

    async def _broken(self, rule: str, what: str) -> BrokenRule:
        await self._tell()
        return self.judge.broken(rule, what)

    async def _judge(self) -> None:
        """Compare the chain with the rules, and what workers believe with the chain."""
        chain = await self._tell()
        self.judge.chain(chain)
        for worker in self.workers:
            self.judge.belief(worker, chain)

    async def _must_get_through(self) -> None:
        """Everybody but one falls silent: that one holds the session in the end, and may write."""
        self.engine.losing = False
        worker = self.workers[0]
        if not await self._held():
            await self._other(worker, 0)
        until = self.now + 2 * max(TTLS) + 5
        while self.now < until:
            try:
                said = await self._try(worker, 2)
                if said is None:
                    await self._append(worker, 1)
                    await self._judge()
                    return
            except Deleted:
                return
            except Fenced:
                worker.lease = None
            except Error as error:
                said = f"{worker.name} gets {type(error).__name__}"
            self.story.say(said)
            await self._judge()
            self.now += 1
        raise self.judge.broken(GETS_THROUGH, f"{worker.name} waited for {2 * max(TTLS) + 5:g} s, while nobody answered.")

    async def _held(self) -> bool:
        (head,) = await MemoryBackend.heads(self.engine, [SESSION])
        return head is not None and is_held(head.epoch)


def random_steps(seed: int, count: int, actions: Sequence[str] = ACTIONS) -> list[Step]:
    """Steps as Hypothesis makes them, from a seed."""
    chance = random.Random(seed)
    return [(chance.choice(actions), chance.randrange(3), chance.randrange(60)) for _ in range(count)]


def play(seed: int, steps: Sequence[Step]) -> list[str]:
    """One play in a loop of its own; its story. Raises `BrokenRule`."""
    world = World(seed)
    asyncio.run(world.play(steps))
    return world.story.lines


def shortest(seed: int, steps: Sequence[Step], broken: BrokenRule) -> BrokenRule:
    """The story of fewer steps that break the same rule: parts are left out, first large ones, as long as it is still broken."""
    kept, size = list(steps), len(steps) // 2
    while size:
        start = 0
        while start < len(kept):
            part = [*kept[:start], *kept[start + size :]]
            try:
                play(seed, part)
            except BrokenRule as error:
                if error.rule == broken.rule:
                    kept, broken = part, error
                    continue
            start += size
        size //= 2
    return broken


def play_well(seed: int, steps: Sequence[Step]) -> list[str]:
    """A play that has to keep the rules; its story. Raises the shortest `BrokenRule`."""
    try:
        return play(seed, steps)
    except BrokenRule as broken:
        raise shortest(seed, steps, broken) from None
