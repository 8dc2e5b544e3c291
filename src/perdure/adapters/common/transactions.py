"""Reading what may not be there, and changes that are decided on what a session holds.

`transact` is the one loop that decides again when other writers came first. An attempt reads the session, decides, and appends on the very
version that it read, inside `lost_race(…)`:

    async def attempt(again: bool) -> Receipt:
        view = await read_or_none(store, session, strong=again)
        ...
        with lost_race(AlreadyExists, Conflict):
            return await store.append(session, event, expect=view.version, on_conflict="raise")

    receipt = await transact(session, attempt)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from perdure.adapters.common.kept import kept
from perdure.clock import SystemClock
from perdure.concurrency.replies import Reply
from perdure.engine.store import Store
from perdure.engine.views import View
from perdure.errors import Busy, Deleted, Error, Invalid, NotFound
from perdure.model.commit import Commit

T = TypeVar("T")

ATTEMPTS = 64
"""How often a change is decided while other writers come first, until it is `Busy`."""
PAUSE_MIN, PAUSE_MAX = 0.001, 0.064
"""Seconds between two attempts: at most the first number after the first one, then twice as long each time, up to the second number."""
_CLOCK = SystemClock()


async def read_or_none(store: Store, session: str, *, strong: bool = True) -> View | None:
    """The session as it is now, or else as this process remembers it; `None` if there is none, or it was deleted."""
    try:
        return await store.read(session, consistency="strong" if strong else "eventual")
    except (NotFound, Deleted):
        return None


async def delete_if_there(store: Store, session: str, *, actor: str | None = None) -> bool:
    """Close the session with a tombstone; whether there was one."""
    try:
        await store.delete(session, actor=actor)
    except (NotFound, Deleted):
        return False
    return True


async def read_own(store: Store, session: str, what: str, is_own: Callable[[Any], bool], *, strong: bool = True) -> View | None:
    """As `read_or_none`. Raises `Invalid` if `is_own` says of the state that something else than this adapter made the session."""
    view = await read_or_none(store, session, strong=strong)
    if view is not None and not is_own(view.frozen_state):
        raise Invalid(f"Session {session!r} {what}: something else made it.", session=session)
    return view


async def commit_at(store: Store, session: str, version: int) -> Commit | None:
    """The commit at a version, if there is one in the session's present life, and it was not dropped. Raises `NotFound`, `Deleted`."""
    async for commit in kept(store, session, after=version - 1, before=version + 1):
        return commit
    return None


class Overtaken(Exception):
    """Another writer came first: `transact` makes another attempt."""


@contextmanager
def lost_race(*errors: type[Error]) -> Generator[None]:
    """Inside this context these errors mean that another writer came first, and become `Overtaken`."""
    try:
        yield
    except errors as error:
        raise Overtaken from error


async def transact(session: str, attempt: Callable[[bool], Awaitable[T]]) -> T:
    """What `attempt` returns. It is called again after each `Overtaken`, with true: what this process remembers of the session is old.

    After each attempt it waits for a time by chance, longer each time, so that others get through. Raises `Busy` after `ATTEMPTS`.
    """
    since = _CLOCK.monotonic()
    for number in range(ATTEMPTS):
        try:
            return await attempt(number > 0)
        except Overtaken:
            await Reply[None]().within(_pause(number))
    seconds = _CLOCK.monotonic() - since
    message = f"{ATTEMPTS} tries in {seconds:.1f} s to write to session {session!r} were overtaken by other writers."
    raise Busy(message, session=session, tries=ATTEMPTS, seconds=seconds)


def _pause(number: int) -> float:
    return min(PAUSE_MAX, PAUSE_MIN * 2.0**number) * _CLOCK.bits(16) / (1 << 16)
