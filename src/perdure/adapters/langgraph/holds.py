"""Holding a thread: the lease of its session around runs, and which lease the writes of a context are made under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.adapters.common.holds import HeldSession, Hold, HoldOptions, held_session
from perdure.adapters.common.transactions import lost_race
from perdure.adapters.langgraph.layout import begun_event, check_layout
from perdure.adapters.langgraph.threads import session_of
from perdure.engine.leasing.lease import Lease
from perdure.engine.store import Store
from perdure.errors import AlreadyExists, Conflict, Deleted, NotFound
from perdure.lru import LruMap

RUNS_MAX = 4_096
"""Runs in blocks that are known by their config, subgraphs included. What older ones write without a context is not under the lease."""
RUNTIME = "__pregel_runtime"
"""What the framework's configs call an object that each run has of its own."""

_runs = LruMap[int, tuple[object, HeldSession]](RUNS_MAX)
"""By the identity of their runtime, which is kept with it, the runs that began in a block. Where nodes run at once in threads, the
framework stores what they wrote from a callback that has no context."""


def note_run(store: Store, session: str, config: Mapping[str, Any]) -> None:
    """A run with this config loads the thread: if it is in a block, so is what is written with the config."""
    held, runtime = held_session(store, session), config["configurable"].get(RUNTIME)
    if held is not None and runtime is not None and not held.is_over:
        held.notes.add(id(runtime))
        _runs.put(id(runtime), (runtime, held))


def lease_of(store: Store, session: str, config: Mapping[str, Any] | None = None) -> Lease | None:
    """The lease that writes to a thread's session are made under, by the context or else by the run's config. After the end of its block it
    refuses them."""
    held = held_session(store, session)
    if held is None and config is not None:
        runtime = config["configurable"].get(RUNTIME)
        known = _runs.get(id(runtime))
        if known is not None and known[0] is runtime and known[1].is_of(store, session):
            held = known[1]
    return None if held is None else held.lease


class ThreadHold(Hold):
    """What `PerdureSaver.hold` returns: for `async with` or `with`, once."""

    _right = "async with saver.hold(...) as lease` or `with saver.hold(...) as lease"

    def __init__(self, store: Store, thread: str, options: HoldOptions) -> None:
        """Raises `Invalid` for options that no lease can have."""
        super().__init__(store, session_of(thread), options, f"Thread {thread!r}")

    async def _prepare(self) -> None:
        await _begin(self._store, self._session)

    async def _confirm(self, lease: Lease) -> None:
        await _check_begun(self._store, self._session, lease)

    def _over(self, held: HeldSession) -> None:
        for run in held.notes.copy():
            known = _runs.get(run)
            if known is not None and known[1] is held:
                _runs.pop(run)


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
