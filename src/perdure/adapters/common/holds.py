"""Holding a session around runs: `async with adapter.hold(...)`. What the block writes is written under its lease."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple

from perdure import sync
from perdure.adapters.common.sync_async import wait
from perdure.adapters.common.transactions import lost_race, transact
from perdure.clock import SystemClock
from perdure.engine.leasing.lease import Lease, Leasing
from perdure.engine.store import Store
from perdure.engine.unentered import Unentered
from perdure.errors import Deleted, Invalid, NotFound

_now = SystemClock.monotonic


class HoldOptions(NamedTuple):
    """As of `Store.lease`."""

    owner: str
    ttl: float
    wait: float
    exclusive: bool


class HeldSession:
    """What a context holds. Contexts that were copied from it share it."""

    def __init__(self, store: Store, session: str, lease: Lease) -> None:
        self.store, self.session, self.lease = store, session, lease
        self.is_over = False
        self.notes: set[int] = set()
        """What an adapter keeps by it: see there."""

    def is_of(self, store: Store, session: str) -> bool:
        """Whether this is what is held of this session, through this connection."""
        return self.session == session and self.store._core is store._core and self.store.tenant == store.tenant


_held: ContextVar[tuple[HeldSession, ...]] = ContextVar("perdure_held_sessions", default=())
"""What this context holds, and what it held when it was copied from another one."""


def held_session(store: Store, session: str) -> HeldSession | None:
    """What this context holds, or held, of a session."""
    return next((held for held in _held.get() if held.is_of(store, session)), None)


def lease_of(store: Store, session: str) -> Lease | None:
    """The lease that this context's writes to a session are made under. After the end of its block it refuses them."""
    held = held_session(store, session)
    return None if held is None else held.lease


class Hold(Unentered):
    """What an adapter's `hold` returns: for `async with` or `with`, once."""

    _right = "async with adapter.hold(...) as lease` or `with adapter.hold(...) as lease"

    def __init__(self, store: Store, session: str, options: HoldOptions, what: str) -> None:
        """`what` names the session to its user. Raises `Invalid` for options that no lease can have."""
        self._store, self._session, self._options, self._what = store, session, options, what
        store.lease(session, **options._asdict())
        self._leasing: Leasing | None = None
        self._held: HeldSession | None = None
        self._entered = False

    async def _prepare(self) -> None:
        """Called before the lease is taken, and again where the session was deleted in between."""

    async def _confirm(self, lease: Lease) -> None:
        """Called under the lease. What it raises releases it."""

    def _over(self, held: HeldSession) -> None:
        """Called at the end of the block."""

    async def __aenter__(self) -> Lease:
        self._check()
        return self._hold(await self._take())

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        if self._leasing is not None:
            await self._leasing.__aexit__(kind, error, trace)

    def __enter__(self) -> sync.Lease:
        self._check()
        return sync.Lease(self._hold(wait(self._take())))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        if self._leasing is not None:
            wait(self._leasing.__aexit__(kind, error, trace))

    def _check(self) -> None:
        if self._entered:
            raise Invalid("A hold is entered once: call hold again.")
        if any(held.is_of(self._store, self._session) and not held.is_over for held in _held.get()):
            raise Invalid(f"{self._what} is held here already, and would wait for itself: use the lease of the outer block.")
        self._entered = True

    def _hold(self, lease: Lease) -> Lease:
        self._held = HeldSession(self._store, self._session, lease)
        others = [held for held in _held.get() if not held.is_of(self._store, self._session)]
        _held.set((self._held, *others))
        return lease

    def _end(self) -> None:
        if self._held is not None:
            self._held.is_over = True
            self._over(self._held)
            # No token of the variable: a block may end in another context than it began in.
            _held.set(tuple(held for held in _held.get() if held is not self._held))

    async def _take(self) -> Lease:
        until = _now() + self._options.wait

        async def attempt(again: bool) -> Lease:
            left = max(until - _now(), 0.0) if again else self._options.wait
            await self._prepare()
            leasing = self._store.lease(self._session, **{**self._options._asdict(), "wait": left})
            with lost_race(Deleted, NotFound):
                lease = await leasing.__aenter__()
                try:
                    await self._confirm(lease)
                except BaseException as error:
                    await leasing.__aexit__(type(error), error, error.__traceback__)
                    raise
            self._leasing = leasing
            return lease

        return await transact(self._session, attempt)
