"""Holding a thread: the lease of its session around runs, and which lease the writes of a context are made under."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, NamedTuple

from perdure import sync
from perdure.adapters.common.sync_async import wait
from perdure.adapters.common.transactions import lost_race, transact
from perdure.adapters.langgraph.layout import begun_event, check_layout
from perdure.adapters.langgraph.threads import session_of
from perdure.clock import SystemClock
from perdure.engine.leasing.lease import Lease, Leasing
from perdure.engine.store import Store
from perdure.engine.unentered import Unentered
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, NotFound
from perdure.lru import LruMap

RUNS_MAX = 4_096
"""Runs in blocks that are known by their config, subgraphs included. What older ones write without a context is not under the lease."""
RUNTIME = "__pregel_runtime"
"""What the framework's configs call an object that each run has of its own."""
_now = SystemClock.monotonic


class HoldOptions(NamedTuple):
    """As of `Store.lease`."""

    owner: str
    ttl: float
    wait: float
    exclusive: bool


class _HeldThread:
    """What a context holds. Contexts that were copied from it share it."""

    def __init__(self, store: Store, session: str, lease: Lease) -> None:
        self.store, self.session, self.lease = store, session, lease
        self.is_over = False
        self.runs: set[int] = set()
        """Keys of `_runs`."""

    def is_of(self, store: Store, session: str) -> bool:
        return self.store is store and self.session == session


_held: ContextVar[tuple[_HeldThread, ...]] = ContextVar("perdure_langgraph_held", default=())
"""What this context holds, and what it held when it was copied from another one."""


_runs = LruMap[int, tuple[object, _HeldThread]](RUNS_MAX)
"""By the identity of their runtime, which is kept with it, the runs that began in a block. Where nodes run at once in threads, the
framework stores what they wrote from a callback that has no context."""


def _held_thread(store: Store, session: str) -> _HeldThread | None:
    return next((held for held in _held.get() if held.is_of(store, session)), None)


def note_run(store: Store, session: str, config: Mapping[str, Any]) -> None:
    """A run with this config loads the thread: if it is in a block, so is what is written with the config."""
    held, runtime = _held_thread(store, session), config["configurable"].get(RUNTIME)
    if held is not None and runtime is not None and not held.is_over:
        held.runs.add(id(runtime))
        _runs.put(id(runtime), (runtime, held))


def lease_of(store: Store, session: str, config: Mapping[str, Any] | None = None) -> Lease | None:
    """The lease that writes to a thread's session are made under, by the context or else by the run's config. After the end of its block it
    refuses them."""
    held = _held_thread(store, session)
    if held is None and config is not None:
        runtime = config["configurable"].get(RUNTIME)
        known = _runs.get(id(runtime))
        if known is not None and known[0] is runtime and known[1].is_of(store, session):
            held = known[1]
    return None if held is None else held.lease


class Hold(Unentered):
    """What `PerdureSaver.hold` returns: for `async with` or `with`, once."""

    _right = "async with saver.hold(...) as lease` or `with saver.hold(...) as lease"

    def __init__(self, store: Store, thread: str, options: HoldOptions) -> None:
        """Raises `Invalid` for options that no lease can have."""
        self._store, self._thread, self._session, self._options = store, thread, session_of(thread), options
        store.lease(self._session, **options._asdict())
        self._leasing: Leasing | None = None
        self._held: _HeldThread | None = None
        self._entered = False

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
            raise Invalid("A hold is entered once: call saver.hold again.")
        if any(held.is_of(self._store, self._session) and not held.is_over for held in _held.get()):
            raise Invalid(f"Thread {self._thread!r} is held here already, and would wait for itself: use the lease of the outer block.")
        self._entered = True

    def _hold(self, lease: Lease) -> Lease:
        self._held = _HeldThread(self._store, self._session, lease)
        others = [held for held in _held.get() if not held.is_of(self._store, self._session)]
        _held.set((self._held, *others))
        return lease

    def _end(self) -> None:
        if self._held is not None:
            self._held.is_over = True
            for run in self._held.runs.copy():
                known = _runs.get(run)
                if known is not None and known[1] is self._held:
                    _runs.pop(run)
            # No token of the variable: a block may end in another context than it began in.
            _held.set(tuple(held for held in _held.get() if held is not self._held))

    async def _take(self) -> Lease:
        until = _now() + self._options.wait

        async def attempt(again: bool) -> Lease:
            left = max(until - _now(), 0.0) if again else self._options.wait
            await _begin(self._store, self._session)
            leasing = self._store.lease(self._session, **{**self._options._asdict(), "wait": left})
            with lost_race(Deleted, NotFound):
                lease = await leasing.__aenter__()
                try:
                    await _check_begun(self._store, self._session, lease)
                except BaseException as error:
                    await leasing.__aexit__(type(error), error, error.__traceback__)
                    raise
            self._leasing = leasing
            return lease

        return await transact(self._session, attempt)


async def _begin(store: Store, session: str) -> None:
    """Start the session of a thread that is not there, or was deleted: one that only a lease has started is no thread to its readers."""
    life: str | None = None
    try:
        view = await store.read(session)
    except NotFound:
        pass
    except Deleted:
        life = store.new_id()[-12:]
    else:
        if view.frozen_state:
            check_layout(view.frozen_state, session)
        return
    with lost_race(Conflict, AlreadyExists, Deleted, NotFound):
        await store.append(session, begun_event(life), expect=0, recreate=life is not None)


async def _check_begun(store: Store, session: str, lease: Lease) -> None:
    """Raise `Invalid` if something else made the session. What leases alone have made becomes a thread."""
    view = await store.read(session)
    state: Any = view.frozen_state
    if not state and not [commit async for commit in store.history(session, limit=1)]:
        await store.append(session, begun_event(None), lease=lease)
    else:
        check_layout(state, session)
