"""The lease that an adapter's object takes by itself for a run: `lease=True`, or `lease=RunLease(...)`.

It is taken before the run's first call of a model, so a second worker waits, or is refused with `Held`, before it pays for one.
"""

from __future__ import annotations

import asyncio
import os
import platform
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from perdure.clock import SystemClock
from perdure.engine.leasing.lease import Lease, Leasing
from perdure.engine.store import Store
from perdure.engine.write.session_queue import SessionQueue
from perdure.errors import Invalid
from perdure.model.ids import SessionKey


class RunLease(msgspec.Struct, frozen=True, kw_only=True):
    """How a run holds its session: the options of `Store.lease`, in seconds, with their defaults.

    `owner`: what others see, by default the machine's name and the process's number. `wait`: how long a second worker waits, then it
    gets `Held`. `exclusive`: writes to the session without the lease are refused too, with `Fenced`. `max_hold`: after so long
    the lease is released, whatever the run does; `None`: never.
    """

    owner: str = ""
    ttl: float = 30
    wait: float = 60
    exclusive: bool = True
    max_hold: float | None = None


def run_lease(asked: object) -> RunLease | None:
    """What `lease=` says; `None`: no lease. Raises `Invalid` for what is neither a bool nor a `RunLease`."""
    if isinstance(asked, RunLease):
        return asked if asked.owner else msgspec.structs.replace(asked, owner=f"{platform.node() or 'process'}:{os.getpid()}")
    if type(asked) is not bool:
        raise Invalid(f"lease is True, False or a RunLease, not {asked!r:.80}.")
    return run_lease(RunLease()) if asked else None


class OwnLease:
    """The lease of one object on one session: from the first `take` to `release`.

    It ends by itself, soon after, with the asyncio task that took it, and with this object: so a run that was cancelled, and one
    whose framework says nothing at its end, does not hold the session for ever.
    """

    def __init__(self, store: Store, session: str, options: RunLease) -> None:
        """Raises `Invalid` for options that no lease can have, `Unsupported` where the store has no place for leases."""
        self._store, self._session, self._options = store, session, options
        self._leasing()
        self._queue = SessionQueue(SystemClock.monotonic)
        self._held: tuple[Leasing, Lease, Callable[[], None]] | None = None

    @property
    def lease(self) -> Lease | None:
        """The lease that was taken and not released. It may be lost: what is written under it is `Fenced` then."""
        return None if self._held is None else self._held[1]

    async def take(self) -> bool:
        """Take the lease unless it was taken: then nothing is asked. Whether it was taken now. Raises what `Store.lease` raises."""
        if self._held is not None:
            return False
        async with self._queue.slot(SessionKey(self._store.tenant, self._session)):
            if self.lease is not None:  # Another task has taken it meanwhile.
                return False
            leasing = self._leasing()
            lease = await leasing.__aenter__()
            self._held = leasing, lease, _ending(self, lease)
            return True

    async def release(self) -> None:
        """Release the lease, if it was taken. One that was lost raises nothing. Raises `Closed`."""
        held, self._held = self._held, None
        if held is not None:
            held[2]()
            await held[0].__aexit__(None, None, None)

    def let_go(self) -> None:
        """Release it soon, without waiting for that."""
        held, self._held = self._held, None
        if held is not None:
            held[2]()
            held[1]._give_up()

    def _leasing(self) -> Leasing:
        return self._store.lease(self._session, **msgspec.structs.asdict(self._options))


class RunLeases:
    """The leases that runs have taken by themselves, by an object that each run has of its own. With that object a lease ends too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[int, tuple[weakref.ref[Any], OwnLease]] = {}
        """By the identity of the run's object, which may be no key of a dict itself."""

    def lease_of(self, run: object) -> Lease | None:
        """The lease of a run, if it has taken one."""
        own = self._own(run)
        return None if own is None else own.lease

    async def take(self, run: object, session: str, options: RunLease) -> bool:
        """Take the lease of a session for a run, unless the run has it. Whether it was taken now."""
        if self._own(run) is not None:
            return False
        own = OwnLease(self._store, session, options)
        await own.take()
        self._held[id(run)] = weakref.ref(run, self._forgetting(id(run))), own
        return True

    async def release(self, run: object) -> None:
        """Release the lease of a run, if it has one."""
        own = self._own(run)
        if own is not None:
            self._held.pop(id(run), None)
            await own.release()

    def _own(self, run: object) -> OwnLease | None:
        known = self._held.get(id(run))
        return known[1] if known is not None and known[0]() is run else None

    def _forgetting(self, key: int) -> Callable[[weakref.ref[Any]], None]:
        held = self._held

        def forget(gone: weakref.ref[Any]) -> None:
            known = held.get(key)
            if known is not None and known[0] is gone:
                del held[key]

        return forget


def _ending(owner: OwnLease, lease: Lease) -> Callable[[], None]:
    """Let the lease go when the present task ends, or its owner is forgotten; what is to be called if it was released before."""
    task: asyncio.Task[Any] | None = None
    with suppress(RuntimeError):
        task = asyncio.current_task()
    forgotten = weakref.ref(owner)

    def task_is_done(_task: Any) -> None:
        found = forgotten()
        if found is not None and found.lease is lease:
            found.let_go()

    def gone() -> None:
        if task is not None:
            task.remove_done_callback(task_is_done)
        lease._give_up()

    finalizer = weakref.finalize(owner, gone)
    finalizer.atexit = False
    if task is not None:
        task.add_done_callback(task_is_done)

    def over() -> None:
        finalizer.detach()
        if task is not None:
            task.remove_done_callback(task_is_done)

    return over
