"""A process that is killed, or whose work is cancelled, at one of its calls of the engine or of the archive."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import perdure
from perdure.clock import Clock
from perdure.places.place import Place
from tests.support.ops.backend_calls import CALLS, CountedCalls, Died, store_on
from tests.support.ops.simulated_clock import SimulatedClock

T = TypeVar("T")
WAYS = ("before", "after", "cancel")
"""It dies before a call or after it, or its work is cancelled in a call that goes on."""
PLACE_CALLS = ("put", "get", "get_many", "size", "list", "delete", "delete_many")


class Process:
    """One of several processes on the same data. `at`: the number of the call at which it ends, from 1; 0: never. `way`: see `WAYS`."""

    def __init__(self, backend: Any, place: Place, clock: Clock, at: int, way: str) -> None:
        self.at, self.way, self.count, self.ended = at, way, 0, False
        self._work: asyncio.Task[Any] | None = None
        self.store = store_on(_Backend(backend, self), clock, archive=_Place(place, self))  # type: ignore[arg-type]

    async def run(self, work: Callable[[perdure.Store], Awaitable[T]]) -> T:
        """Do some work. Raises `Died` where the process ended in it, however it did."""
        self._work = asyncio.ensure_future(work(self.store))
        try:
            return await self._work
        except asyncio.CancelledError:
            if self.ended:
                raise Died from None
            raise
        except Exception as error:
            if self.ended and self.way != "cancel":  # What a dead process would have raised, nobody hears.
                raise Died from error
            raise

    async def call(self, call: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> T:
        """A call of this process."""
        self.count += 1
        if self.at and self.count >= self.at and not (self.count == self.at and self.way == "after"):
            self.ended = True
            if self.way != "cancel":
                raise Died
            if self.count == self.at and self._work is not None:
                self._work.cancel()
        result = await call(*arguments, **options)
        if self.count >= self.at > 0 and self.way == "after":
            self.ended = True
            raise Died
        return result


class _Backend(CountedCalls):
    def __init__(self, backend: Any, process: Process) -> None:
        super().__init__(backend)
        self.process = process


class _Place:
    def __init__(self, place: Place, process: Process) -> None:
        self.place, self.process, self.shown, self.durability = place, process, place.shown, place.durability


def _of(target: str, name: str) -> Callable[..., Awaitable[Any]]:
    async def call(self: Any, *arguments: Any, **options: Any) -> Any:
        return await self.process.call(getattr(getattr(self, target), name), *arguments, **options)

    return call


for _name in CALLS:
    setattr(_Backend, _name, _of("backend", _name))
for _name in PLACE_CALLS:
    setattr(_Place, _name, _of("place", _name))


class Machine:
    """Runs work in processes that are killed by chance, each time in a new one, until it is done. A new one starts eleven minutes later: a
    sweeper goes on with what another one began after ten."""

    def __init__(self, store: perdure.Store, clock: SimulatedClock, chance: random.Random, killing: float) -> None:
        """`store` is on the data, and open; `killing`: how likely it is that a process is killed."""
        self._core, self._clock, self._chance, self._killing = store._core, clock, chance, killing
        self.kills = 0

    async def run(self, work: Callable[[perdure.Store], Awaitable[T]], calls: int) -> T:
        """Do some work. A process that is killed is so within its first `calls`, rather early than late."""
        while True:
            at = int(calls ** self._chance.random()) if self._chance.random() < self._killing else 0
            process = Process(self._core.backend, self._place, self._clock, at, self._chance.choice(WAYS))
            try:
                return await process.run(work)
            except Died:
                self.kills += 1
                self._clock.advance(minutes=11)
                await asyncio.sleep(0)

    @property
    def _place(self) -> Place:
        place = self._core.segments._place
        assert place is not None
        return place
