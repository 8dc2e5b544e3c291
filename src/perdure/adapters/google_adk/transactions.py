"""Changes to ADK's artifacts and memories: each is decided on what a session holds, and committed to that very state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.adapters.common.transactions import lost_race, read_own, transact
from perdure.engine.store import Store
from perdure.engine.write.session_queue import SessionQueue
from perdure.errors import AlreadyExists, Conflict, Deleted, NotFound
from perdure.model.events import Event
from perdure.model.ids import SessionKey


class SessionTransactions:
    """Changes to one kind of session, whose state is an object with a certain member."""

    def __init__(self, store: Store, what: str, member: str) -> None:
        """`what` names the kind in messages; `member` is in the state of every session of this kind."""
        self._store, self._what, self._member = store, what, member
        self._queue = SessionQueue()

    async def state(self, session: str, *, strong: bool = True) -> Any:
        """The state to be read, not changed; `None` if there is none. Raises `Invalid` for a session that something else made."""
        return (await self._now(session, strong=strong))[1]

    async def commit(
        self, session: str, decide: Callable[[Any], Event | None], *, key: str | None = None, actor: str | None = None
    ) -> None:
        """Append what `decide` makes of the state (`None`: there is no session), or nothing if it makes `None`.

        It runs again on the newest state while others win. A session that was deleted goes on with a new state. Raises `Busy` when
        others won too often, and as `Store.append`; nothing was written then.
        """

        async def attempt(again: bool) -> None:
            # What this process remembers is mostly current: the append finds out. What appends nothing asks the store.
            version, state = await self._now(session, strong=again)
            event = decide(state)
            if event is None:
                if not again:
                    await attempt(again=True)
                return
            with lost_race(AlreadyExists, Conflict, NotFound, Deleted):
                await self._store.append(session, event, expect=version, key=key, actor=actor, on_conflict="raise", recreate=state is None)

        async with self._queue.slot(SessionKey(self._store.tenant, session)):
            await transact(session, attempt)

    async def _now(self, session: str, *, strong: bool) -> tuple[int, Any]:
        view = await read_own(self._store, session, f"holds no {self._what}", self._is_own, strong=strong)
        return (0, None) if view is None else (view.version, view.frozen_state)

    def _is_own(self, state: Any) -> bool:
        return isinstance(state, dict) and self._member in state
