"""A session that a framework deletes and creates again under its old id: each incarnation has its own idempotency keys."""

from __future__ import annotations

from typing import Any

from perdure.engine.store import Store
from perdure.engine.views import Receipt
from perdure.errors import Deleted
from perdure.model import ops as op
from perdure.model.events import Event


async def start_incarnation(
    store: Store, session: str, type: str, data: Any, state: dict[str, Any], *, actor: str | None = None
) -> tuple[Receipt, dict[str, Any]]:
    """Start a session with this state; the state as it was stored. Raises `AlreadyExists`.

    The idempotency keys of a session outlive its deletion. So the state of every incarnation after the first has a member `life`, a list
    with one id. Keys are made with that id, so that a key of the first incarnation never answers for a later one.
    """
    try:
        return await store.append(session, Event(type, data, (op.set("", state),)), expect=0, actor=actor), state
    except Deleted:
        state = {**state, "life": [store.new_id()]}
        return await store.append(session, Event(type, data, (op.set("", state),)), expect=0, actor=actor, recreate=True), state
