"""A change that is decided on what a session holds, and lands on that very state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.engine.store import Store
from perdure.engine.write.session_queue import SessionQueue
from perdure.errors import AlreadyExists, Conflict, Deleted, Invalid, NotFound, Unavailable
from perdure.model.events import Event
from perdure.model.ids import SessionKey

ATTEMPTS = 64
"""How often a change is decided anew while other processes change the same session."""


class SessionTransactions:
    """Changes to one kind of session, whose state is an object with a certain member."""

    def __init__(self, store: Store, what: str, member: str) -> None:
        """`what` names the kind in messages; `member` is in the state of every session of this kind."""
        self._store, self._what, self._member = store, what, member
        self._turns = SessionQueue()

    async def state(self, session: str, *, strong: bool = True) -> Any:
        """The state to be read, not changed; `None` if there is none. Raises `Invalid` for a session that something else made."""
        return (await self._now(session, strong=strong))[1]

    async def commit(
        self, session: str, decide: Callable[[Any], Event | None], *, key: str | None = None, actor: str | None = None
    ) -> None:
        """Append what `decide` makes of the state (`None`: there is no session), or nothing if it makes `None`.

        It runs again on the newest state while others win. A session that was deleted goes on with a new state. Raises
        `Unavailable` after `ATTEMPTS` lost races, and as `Store.append`; nothing was written then.
        """
        async with self._turns.slot(SessionKey(self._store.tenant, session)):
            for attempt in range(ATTEMPTS):
                # What this process remembers will mostly do: the append finds out if it is old.
                version, state = await self._now(session, strong=attempt > 0)
                event = decide(state)
                if event is None:
                    if attempt:
                        return
                    continue
                try:
                    await self._store.append(
                        session, event, expect=version, key=key, actor=actor, on_conflict="raise", recreate=state is None
                    )
                except (AlreadyExists, Conflict, NotFound, Deleted):
                    continue
                return
        raise Unavailable(f"{self._what} {session!r} was changed by others {ATTEMPTS} times in a row.", session=session)

    async def _now(self, session: str, *, strong: bool) -> tuple[int, Any]:
        try:
            view = await self._store.read(session, consistency="strong" if strong else "eventual")
        except (NotFound, Deleted):
            return 0, None
        if not isinstance(view.frozen_state, dict) or self._member not in view.frozen_state:
            raise Invalid(f"Session {session!r} holds no {self._what}: something else made it.", session=session)
        return view.version, view.frozen_state
