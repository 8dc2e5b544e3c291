"""What consumers there are, how far they are, and what becomes of what they have parked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec

from perdure.backends.spi import served
from perdure.engine.calls.changes import make_follower
from perdure.engine.live.consumers import PREFIX, Parked, State, path_of_consumer, session_id, state_of
from perdure.engine.store import Store, system_store
from perdure.engine.views import View
from perdure.engine.write.drafts import Draft
from perdure.errors import Deleted, Error, NotFound
from perdure.model.timestamps import moment, to_datetime
from perdure.ops.either import Either

WAITING_MAX = 1_000
"""So many waiting changes are counted at most."""


class ParkedInfo(msgspec.Struct, frozen=True):
    """What is parked of a session: its commits from version `first` to `last`, as far as the consumer wants them."""

    session: str
    first: int
    last: int
    error: str
    """What the handler raised last, cut to 200 characters."""
    since: datetime
    retry: bool
    """Whether the consumer was asked to try again."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {**msgspec.structs.asdict(self), "since": moment(self.since)}


class ConsumerInfo(msgspec.Struct, frozen=True):
    """A consumer: how far it is, what waits, what is parked."""

    name: str
    code: str
    """The name of what it does."""
    handled: int
    """Changes that it has handled since it was registered."""
    session: str | None
    """With `version` and `at`, the newest commit that it has handled; `None` where it has handled none."""
    version: int | None
    at: datetime | None
    waiting: int | None
    """Its lag: changes that it has not handled and that are not parked, 1,000 at most; `None` where they cannot be read, see `problem`."""
    waiting_since: datetime | None
    """When the first of them was committed."""
    cursor: str | None
    """What `changes` takes as `after=` to go on where the consumer is; `None`: at the start."""
    parked: tuple[ParkedInfo, ...]
    updated_at: datetime
    """When its checkpoint was written last."""
    problem: str | None
    """Why what waits cannot be read."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can say it: times as RFC 3339."""
        times = {name: None if time is None else moment(time) for name, time in self._times().items()}
        return {**msgspec.structs.asdict(self), **times, "parked": [one.to_dict() for one in self.parked]}

    def _times(self) -> dict[str, datetime | None]:
        return {"at": self.at, "waiting_since": self.waiting_since, "updated_at": self.updated_at}


@Either
async def consumers(store: Store, name: str | None = None) -> list[ConsumerInfo]:
    """The tenant's consumers by name, or the one of this name. Reads what waits for each, up to 1,000 changes. Raises `NotFound`."""
    if name is not None:
        return [await _info(store, await _read(store, name))]
    system, found = system_store(store), []
    async with aclosing(system.list(prefix=PREFIX)) as infos:  # type: ignore[type-var]
        async for info in infos:
            try:
                view = await system.read(info.session)
            except (NotFound, Deleted):  # It was forgotten just now.
                continue
            found.append(await _info(store, view))
    return found


@Either
async def retry(store: Store, name: str, session: str | None = None) -> int:
    """Ask the consumer to try again what it has parked, of one session or of all; of how many sessions that is.

    It does so within about 5 s, if it is at work, or when it starts. Raises `NotFound`.
    """

    def ask(draft: Draft, chosen: str) -> None:
        draft.state["parked"][chosen]["retry"] = True

    return await _change(store, name, session, "retry", ask)


@Either
async def drop(store: Store, name: str, session: str | None = None) -> int:
    """Give up what the consumer has parked, of one session or of all; of how many sessions that is. Later commits are handled again.

    What is dropped is never handed to the handler. Raises `NotFound`.
    """

    def give_up(draft: Draft, chosen: str) -> None:
        del draft.state["parked"][chosen]

    return await _change(store, name, session, "drop", give_up)


@Either
async def forget(store: Store, name: str) -> None:
    """Remove a consumer and its checkpoint. One that is at work stops; a new one of this name begins at the start. Raises `NotFound`."""
    await _read(store, name)
    if (nodes := served(store._core.backend)) is not None:
        await nodes.ask("DELETE", path_of_consumer(name), tenant=store.tenant)
        return
    system, id = system_store(store), session_id(name)
    await system.delete(id)
    await system.purge(id)


async def _change(store: Store, name: str, session: str | None, what: str, change: Callable[[Draft, str], None]) -> int:
    await _read(store, name)
    if (nodes := served(store._core.backend)) is not None:
        path = f"{path_of_consumer(name)}/{what}"
        return int((await nodes.ask("POST", path, tenant=store.tenant, body={"session": session}))["sessions"])

    def all_of_them(draft: Draft) -> int:
        parked = list(draft.state["parked"]) if session is None else [session]
        for chosen in parked:
            if chosen not in draft.state["parked"]:
                raise NotFound(f"Consumer {name!r} has nothing parked of session {chosen!r}.")
            change(draft, chosen)
        return len(parked)

    _, count = await system_store(store).update(session_id(name), all_of_them, create=False)
    return int(count)


async def _read(store: Store, name: str) -> View:
    try:
        return await system_store(store).read(session_id(name))
    except (NotFound, Deleted):
        raise NotFound(f"There is no consumer {name!r} in tenant {store.tenant!r}.") from None


async def _info(store: Store, view: View) -> ConsumerInfo:
    state = state_of(view.state)
    position, parked = state.position, [_parked(session, one) for session, one in sorted(state.parked.items())]
    waiting: int | None = None
    since, problem = None, None
    try:
        waiting, since = await _waiting(store, state)
    except Error as error:
        problem = str(error)
    return ConsumerInfo(
        name=state.name,
        code=state.registration.code,
        handled=state.handled,
        session=None if position is None else position.session,
        version=None if position is None else position.version,
        at=None if position is None else to_datetime(position.at),
        waiting=waiting,
        waiting_since=since,
        cursor=state.cursor,
        parked=tuple(parked),
        updated_at=view.updated_at,
        problem=problem,
    )


async def _waiting(store: Store, state: State) -> tuple[int, datetime | None]:
    """How many changes wait, and since when the first does."""
    count, since = 0, None
    follower = make_follower(store._context, state.cursor, state.registration.selection())
    async with aclosing(follower.pages(follow=False)) as pages:
        async for page in pages:
            for change in page:
                if change.session not in state.parked:
                    since, count = since or change.commit.time, count + 1
            if count >= WAITING_MAX:
                return WAITING_MAX, since
    return count, since


def _parked(session: str, parked: Parked) -> ParkedInfo:
    return ParkedInfo(session, parked.first, parked.last, parked.error, to_datetime(parked.since), parked.retry)
