"""A world of workers that want one session: a play of steps on the real code, with a simulated clock for each worker.

Workers share an engine in memory. Calls of one round run at once, and the engine lets others go first now and then. It loses answers,
before or after the write, and its newest commits in a failover; time passes only where a step says so; the workers' wall clocks are hours
apart. After each round the chain is judged against what the steps have seen. A play that breaks a rule raises `BrokenRule`, which tells the
whole story.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure import Event
from perdure.backends.memory import MemoryBackend
from perdure.backends.spi import Append, Durability, Head, Outcome
from perdure.clock import SeededClock
from perdure.codec.codec import Codec
from perdure.config import Settings
from perdure.engine.core import Core
from perdure.engine.live.keeper import Keeper
from perdure.engine.live.lease import Lease
from perdure.engine.live.lease_rules import Claim
from perdure.engine.store import Store
from perdure.errors import Busy, Conflict, Deleted, Error, Fenced, NotFound, Rewound, Unavailable, Unknown
from perdure.model.commit import Commit, Kind
from perdure.model.epoch import grant_of, is_challenged, is_exclusive, is_held
from perdure.model.ids import SessionKey

SESSION = SessionKey("default", "s")
TTLS = (3.0, 10.0, 30.0)
ACTIONS = (
    "wait", "wait", "wait", "look", "look", "try", "try", "try", "peek", "append", "append", "append", "other", "release", "drop",
    "break", "delete", "fork", "confirm", "release old", "append old", "failover",
)  # fmt: skip
CHANGES = ("try", "peek", "release", "drop")
"""Actions that a worker takes one at a time: they change which lease it has."""
Step = tuple[str, int, int]
"""An action, the worker that acts, and a number that says how."""


class BrokenRule(AssertionError):
    """A rule does not hold; the message is the story."""


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


@dataclass
class Worker:
    """One worker, with a store object of its own."""

    store: Store
    number: int
    claim: Claim | None = None
    lease: Lease | None = None
    old: list[Lease] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    proofs: list[float] = field(default_factory=list)
    """When this worker has shown that it is alive: the starts of looks and writes that succeeded."""


class World:
    """The workers, the time, the story."""

    def __init__(self, seed: int, workers: int = 3) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.engine = Engine(self.chance)
        self.workers = [self._worker(number) for number in range(workers)]
        self.story: list[str] = []
        self.times: dict[int, float] = {}
        """When each version came."""
        self.owners: dict[str, Worker] = {}
        """Which worker made which claim."""
        self.forks = 0
        self.rewound = False
        """Whether answers and challenges may have been lost: who is deposed, and when, is then not judged. Who may write is."""

    def _worker(self, number: int) -> Worker:
        core = Core(self.engine, "memory:", WorldClock(self, number), Settings(), Durability.memory, Codec())
        core.leases.keeper = StillKeeper(core.leases.look, core.clock.monotonic)
        core.closed = True  # It is one engine for all: none of them closes it.
        core.check_open = lambda: None  # type: ignore[method-assign]
        return Worker(Store(core, "default"), number)

    async def play(self, steps: Sequence[Step]) -> None:
        """Act, three steps at once, and judge after each round. Raises `BrokenRule`."""
        for start in range(0, len(steps), 3):
            part = steps[start : start + 3]
            await asyncio.gather(*(self._act(*step) for step in part if step[0] != "wait"))
            await self._judge()
            for _, _, how in (step for step in part if step[0] == "wait"):
                self.now += (0.5, 1.0, 3.0, 10.0, 31.0)[how % 5]
                self.story.append(f"{self.now:7.1f}  time passes")
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
            said = type(error).__name__
        self.engine.losing = False
        self.story.append(f"{self.now:7.1f}  worker {worker.number}: {action}: {said}")

    async def _try(self, worker: Worker, how: int, *, ask: bool = True) -> str:
        """Want the lease: one look, as `store.lease` does it."""
        if worker.lease is not None and not worker.lease._over:
            return "has it already"
        if worker.claim is None:
            worker.claim = Claim(f"{worker.number}.{len(self.owners)}", f"worker {worker.number}", TTLS[how % 3], how % 5 == 0)
            self.owners[worker.claim.id] = worker
        leases = worker.store._core.leases
        attempt = await leases.attempt(SESSION, worker.claim, ask=ask)
        if attempt.fence is None:
            return f"held by {attempt.holder.owner}, again in {attempt.again_in:.1f}"
        if worker.lease is not None:
            worker.old.append(worker.lease)
        worker.lease, worker.claim, worker.proofs = leases.hold(attempt.fence, worker.claim, None), None, []
        return f"took {worker.lease.token}"

    async def _peek(self, worker: Worker, how: int) -> str:
        before = await self._count()
        said = await self._try(worker, how, ask=False)
        later = [commit async for commit in worker.store._core.reader.commits(SESSION, after=before)]
        if any(commit.actor == f"worker {worker.number}" and commit.events[0].type == "challenged" for commit in later):
            raise self.broken("a look that does not ask has written")
        return said

    async def _count(self) -> int:
        (head,) = await MemoryBackend.heads(self.engine, [SESSION])
        return 0 if head is None else head.version

    async def _look(self, worker: Worker, how: int) -> str:
        lease = worker.lease
        if lease is None or lease._over:
            return "holds nothing"
        self.engine.losing, began = False, self.now  # A look that does not reach the engine shows nothing.
        await worker.store._core.leases.look([lease])
        if not lease._over:
            worker.proofs.append(began)
        return f"{lease!r}"

    async def _confirm(self, worker: Worker, how: int) -> str:
        if worker.lease is None:
            return "holds nothing"
        began = self.now
        await worker.lease.confirm()
        worker.proofs.append(began)
        return "confirmed"

    async def _append(self, worker: Worker, how: int) -> str:
        if worker.lease is None:
            return "holds nothing"
        return await self._append_under(worker, worker.lease)

    async def _append_old(self, worker: Worker, how: int) -> str:
        return await self._append_under(worker, worker.old[how % len(worker.old)]) if worker.old else "has no old lease"

    async def _append_under(self, worker: Worker, lease: Lease) -> str:
        began = self.now
        recreate = self.chance.random() < 0.3
        receipt = await worker.store.append("s", Event("work"), lease=lease, actor=lease._claim.id, recreate=recreate)
        commit = await worker.store._core.reader.commit(SESSION, receipt.version)
        if lease is worker.lease and commit is not None and not is_challenged(commit.epoch):
            worker.proofs.append(began)
        return f"version {receipt.version} under {lease.token}"

    async def _other(self, worker: Worker, how: int) -> str:
        receipt = await worker.store.append("s", Event("chat"), recreate=True)
        return f"version {receipt.version} under no lease"

    async def _release(self, worker: Worker, how: int) -> str:
        if worker.lease is None:
            return "holds nothing"
        worker.old.append(worker.lease)
        lease, worker.lease = worker.lease, None
        await lease.release()
        return f"released {lease.token}"

    async def _release_old(self, worker: Worker, how: int) -> str:
        if not worker.old:
            return "has no old lease"
        await worker.old[how % len(worker.old)].release()
        return "released an old one"

    async def _drop(self, worker: Worker, how: int) -> str:
        """The worker dies: what it holds is answered no more."""
        if worker.lease is not None:
            worker.old.append(worker.lease)
        worker.lease = worker.claim = None
        return "died, and starts again"

    async def _break(self, worker: Worker, how: int) -> str:
        return str(await worker.store.break_lease("s", actor="operator")) if how % 4 == 1 else "thinks of breaking it"

    async def _delete(self, worker: Worker, how: int) -> str:
        return str(await worker.store.delete("s")) if how % 3 == 1 else "thinks of deleting it"

    async def _failover(self, worker: Worker, how: int) -> str:
        """The engine's newest commits are gone: with them what they proved. The index row's cell stays as it is, and is wrong."""
        chain = self.engine._chains.get(SESSION)
        count = 1 + how % 3
        if how % 12 != 2 or chain is None or len(chain.records) <= count:
            return "is prepared for"
        del chain.records[-count:]
        self.rewound = True
        for version in [version for version in self.times if version > chain.head.version]:
            del self.times[version]
        for each in self.workers:
            each.proofs.clear()
            if each.lease is not None and each.lease._over:
                each.old.append(each.lease)
                each.lease = None
        return f"drops {count} commits, back to version {chain.head.version}"

    async def _fork(self, worker: Worker, how: int) -> str:
        self.forks += 1
        child = await worker.store.fork("s", id=f"fork-{self.forks}")
        (head,) = await MemoryBackend.heads(self.engine, [SessionKey("default", child)])
        if head is None or is_held(head.epoch):
            raise self.broken(f"the fork {child} begins held")
        return child

    async def _judge(self) -> None:
        """Compare the chain with the rules, and what workers believe with the chain."""
        chain = [commit async for commit in self.workers[0].store._core.reader.commits(SESSION)]
        for commit in chain:
            self.times.setdefault(commit.version, self.now)
        self._judge_chain(chain)
        head = chain[-1] if chain else None
        for worker in self.workers:
            lease = worker.lease
            if lease is None or head is None:
                continue
            mine = is_held(head.epoch) and _holder(chain) == lease._claim.id
            if lease._over and mine:
                raise self.broken(f"worker {worker.number} was told that it lost what it holds")

    def _judge_chain(self, chain: Sequence[Commit]) -> None:
        owner: str | None = None
        challenged_at = grant = 0
        before: Commit | None = None
        for commit in chain:
            type = commit.events[0].type if commit.events else ""
            if before is not None and grant_of(commit.epoch) < grant_of(before.epoch):
                raise self.broken(f"version {commit.version} has a lower grant than the one before")
            rises = before is None or grant_of(commit.epoch) > grant_of(before.epoch)
            if type == "leased":
                id = commit.events[0].data["control"]["lease"]["id"]
                if not rises:
                    raise self.broken(f"version {commit.version} takes without raising the grant")
                if owner not in (None, id) and before is not None:
                    self._judge_take_over(owner, challenged_at, commit, before)
                owner, grant, challenged_at = id, grant_of(commit.epoch), 0
            elif type == "challenged":
                if before is not None and is_challenged(before.epoch):
                    raise self.broken(f"version {commit.version} challenges what is challenged already")
                challenged_at = commit.version
            elif type in ("released", "broken") or commit.kind is Kind.tombstone:
                if type == "released" and owner is not None and self.owners[owner].store._core is not None:
                    name = f"worker {self.owners[owner].number}"
                    if commit.actor != name:
                        raise self.broken(f"version {commit.version}: {commit.actor} released the lease of {name}")
                if is_held(commit.epoch) or not rises:
                    raise self.broken(f"version {commit.version} ends a lease, and it does not end")
                owner, challenged_at = None, 0
            elif type == "work":
                if commit.actor != owner or grant_of(commit.epoch) != grant:
                    raise self.broken(f"version {commit.version} was written under {commit.actor}, while {owner} held the session")
                if is_challenged(commit.epoch) and challenged_at and (commit.epoch >> 2 & 0xFFF) < self.sequence_end:
                    raise self.broken(f"version {commit.version} was written under the lease, and answers no challenge")
            elif type == "chat" and before is not None and is_exclusive(before.epoch):
                raise self.broken(f"version {commit.version} was written beside an exclusive lease")
            before = commit

    sequence_end = 4095

    def _judge_take_over(self, owner: str, challenged_at: int, take: Commit, before: Commit) -> None:
        victim = self.owners[owner]
        if not challenged_at or not is_challenged(before.epoch):
            raise self.broken(f"version {take.version} takes what nobody has challenged")
        if self.rewound:
            return
        ttl = next((each.ttl for each in [*victim.old, victim.lease] if each is not None and each._claim.id == owner), 0.0)
        began, ended = self.times[challenged_at], self.times[take.version]
        if ended - began < ttl:
            raise self.broken(f"version {take.version} takes {ended - began} s after the challenge, before the ttl of {ttl} s is over")
        if victim.lease is not None and victim.lease._claim.id == owner and any(began < proof < ended for proof in victim.proofs):
            raise self.broken(f"version {take.version} takes from a holder that has answered")

    async def _must_get_through(self) -> None:
        """Everybody but one falls silent: that one holds the session in the end, and may write."""
        self.engine.losing = False
        worker = self.workers[0]
        await worker.store.append("s", Event("chat"), recreate=True) if not await self._held() else None
        until = self.now + 2 * max(TTLS) + 5
        while self.now < until:
            try:
                said = await self._try(worker, 2)
                if "took" in said or "already" in said:
                    await self._append(worker, 1)
                    await self._judge()
                    return
            except Deleted:
                return
            except Fenced:
                worker.lease = None
            except Error as error:
                said = type(error).__name__
            self.story.append(f"{self.now:7.1f}  worker 0 alone: {said}")
            self.times.setdefault(await self._count(), self.now)
            self.now += 1
        raise self.broken("nobody answers, and one who waits does not get the lease")

    async def _held(self) -> bool:
        (head,) = await MemoryBackend.heads(self.engine, [SESSION])
        return head is not None and is_held(head.epoch)

    def broken(self, what: str) -> BrokenRule:
        """The error, with the story so far."""
        return BrokenRule("\n".join([*self.story, f"{self.now:7.1f}  BROKEN: {what}"]))


def _holder(chain: Sequence[Commit]) -> str | None:
    """The claim that holds the session at the end of this chain."""
    owner: str | None = None
    for commit in chain:
        data: Any = commit.events[0].data if commit.events else None
        if commit.kind is Kind.tombstone:
            owner = None
        elif commit.kind is Kind.lease and isinstance(data, dict) and "control" in data:
            lease = data["control"]["lease"]
            owner = None if lease is None else lease["id"]
    return owner


def random_steps(seed: int, count: int) -> list[Step]:
    """Steps as Hypothesis makes them, from a seed."""
    chance = random.Random(seed)
    return [(chance.choice(ACTIONS), chance.randrange(3), chance.randrange(60)) for _ in range(count)]


def play(seed: int, steps: Sequence[Step]) -> None:
    """One play in a loop of its own. Raises `BrokenRule`."""
    asyncio.run(World(seed).play(steps))
