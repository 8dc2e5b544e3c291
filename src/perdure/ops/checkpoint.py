"""A consumer's checkpoint: a session of the tenant's system tenant that says how far the consumer is, and what is parked.

It is written on the condition that nobody else wrote it since: so of two runs under one name the second one to write sees the other and
stops, with nothing lost. What `retry` and `drop` change in it meanwhile is adopted.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perdure.concurrency.replies import Reply
from perdure.engine.live.changes import Selection
from perdure.engine.store import Store, system_store
from perdure.engine.views import Change, View
from perdure.errors import AlreadyExists, Busy, Conflict, Deleted, Fenced, Invalid, NotFound, Unavailable, Unknown
from perdure.model import ops as op
from perdure.model.events import Event
from perdure.model.ids import check_name
from perdure.model.pointer import join

PREFIX = "consumer/"
"""What the ids of the sessions begin with."""
NAME_BYTES_MAX = 200
"""Longest name of a consumer, in bytes of UTF-8."""
WRITE_AGAIN_AFTER = 0.5
"""Seconds until a checkpoint is written again where the engine could not be reached."""
WRITE_TRIES = 120
"""How often that is tried: about a minute."""


class Registration(msgspec.Struct, frozen=True):
    """What a consumer of a name is: the name of its code, and which changes it takes."""

    code: str
    types: list[str] | None
    prefix: str
    tags: Mapping[str, str]
    control: bool

    @classmethod
    def of(cls, code: str, selection: Selection) -> Registration:
        types = None if selection.types is None else sorted(selection.types)
        return cls(code, types, selection.prefix, selection.tags, selection.control)

    def selection(self) -> Selection:
        """Which changes it takes."""
        types = None if self.types is None else frozenset(self.types)
        return Selection(types=types, prefix=self.prefix, tags=self.tags, control=self.control)


class Position(msgspec.Struct, frozen=True):
    """The newest commit that was handled; `at` in nanoseconds since 1970."""

    session: str
    version: int
    at: int

    @classmethod
    def of(cls, change: Change) -> Position:
        return cls(change.session, change.commit.version, change.commit.at)


class Parked(msgspec.Struct):
    """What waits of a session whose commit could not be handled: the commits from `first` to `last`."""

    first: int
    last: int
    error: str
    """What the handler raised last."""
    since: int
    """When it was parked, in nanoseconds since 1970."""
    retry: bool = False
    """Whether the consumer is asked to try again."""


class State(msgspec.Struct):
    """The state of the session."""

    name: str
    registration: Registration
    cursor: str | None
    run: str
    """The run that wrote it last, and `saves` how often it had written."""
    saves: int
    handled: int
    position: Position | None
    parked: dict[str, Parked]


def session_id(name: object) -> str:
    """The session of a consumer. Raises `Invalid` for what cannot be a name."""
    checked = check_name("A consumer's name", name)
    if len(checked.encode()) > NAME_BYTES_MAX:
        raise Invalid(f"A consumer's name may have at most {NAME_BYTES_MAX} bytes; this one has {len(checked.encode())}.")
    return PREFIX + checked


def state_of(view: View) -> State:
    """The state, typed."""
    return msgspec.convert(view.state, State)


def path_of(session: str) -> str:
    """Where the state has what is parked of a session."""
    return join(("parked", session))


class Checkpoint:
    """One run's view of its consumer's checkpoint. `parked` is what this run knows; `save` stores it."""

    def __init__(self, store: Store, id: str, run: str, version: int, state: State) -> None:
        self._store, self._id, self._run, self._version, self._stored = store, id, run, version, state
        self._saves = 0
        self.cursor = state.cursor
        self.parked = _copied(state.parked)

    @classmethod
    async def load(cls, store: Store, name: str, registration: Registration, after: str | None) -> Checkpoint:
        """That of a consumer, which is registered if it is new: then it begins after the cursor `after`.

        Raises `Invalid` if a consumer of this name was registered with another registration.
        """
        id, system, run = session_id(name), system_store(store), store.new_id()
        new = State(name, registration, after, "", 0, 0, None, {})
        while True:
            try:
                view = await system.read(id)
            except (NotFound, Deleted) as error:
                made = Event("registered", None, (op.set("", msgspec.to_builtins(new)),))
                try:
                    await system.append(id, made, expect=0, recreate=isinstance(error, Deleted))
                except (AlreadyExists, Conflict):
                    continue
                continue
            state = state_of(view)
            _check_registration(name, state.registration, registration)
            return cls(system, id, run, view.version, state)

    async def save(self, cursor: str | None, newest: Change | None, handled: int) -> None:
        """So many changes were handled, up to the newest: store that, the place to go on from, and what is parked.

        Waits out an engine that is away, for about a minute. Raises `Fenced` if another run has written the checkpoint.
        """
        self._saves += 1
        for attempt in range(WRITE_TRIES):
            try:
                receipt = await self._store.append(
                    self._id,
                    Event("handled", None, tuple(self._changes(cursor, newest, handled))),
                    expect=self._version,
                    on_conflict="raise",
                    key=f"{self._run}/{self._saves}/{self._version}",
                )
            except (Conflict, Deleted):
                if await self.adopt() == self._saves:  # It was stored, and the answer was lost.
                    self.cursor = cursor
                    return
            except (Unavailable, Unknown):
                if attempt + 1 == WRITE_TRIES:
                    raise
                await Reply[None]().within(WRITE_AGAIN_AFTER)
            else:
                self._version, self.cursor = receipt.version, cursor
                self._stored.run, self._stored.saves, self._stored.parked = self._run, self._saves, _copied(self.parked)
                return
        raise Busy("The consumer's checkpoint was changed by others again and again.")

    def _changes(self, cursor: str | None, newest: Change | None, handled: int) -> list[op.Op]:
        before, now = self._stored.parked, self.parked
        ops = [op.set("/cursor", cursor), op.set("/run", self._run), op.set("/saves", self._saves)]
        if newest is not None:
            ops += [op.add("/handled", handled), op.set("/position", msgspec.to_builtins(Position.of(newest)))]
        ops += [op.remove(path_of(session)) for session in before if session not in now]
        ops += [op.set(path_of(session), msgspec.to_builtins(parked)) for session, parked in now.items() if before.get(session) != parked]
        return ops

    async def adopt(self) -> int:
        """Read what `retry` and `drop` have changed meanwhile; how often this run's checkpoint was stored. Raises `Fenced`, see `save`."""
        try:
            view = await self._store.read(self._id)
        except (NotFound, Deleted):
            raise Fenced(
                "This consumer was forgotten while it was at work.",
                session=self._id,
                token=None,
                advice="Start it again to begin from the start.",
            ) from None
        state = state_of(view)
        mine = state.run == self._run
        if not mine and (state.run, state.saves) != (self._stored.run, self._stored.saves):
            raise Fenced(
                f"Consumer {state.name!r} is at work elsewhere too, and has handled what was handled here. Nothing is lost.",
                session=self._id,
                token=None,
                advice="Let one of them work at a time, or give this one another name.",
            )
        for session, stored in self._stored.parked.items():
            self._adopt_one(session, stored.last, state.parked.get(session))
        self._version, self._stored = view.version, state
        return state.saves if mine else 0

    def _adopt_one(self, session: str, last: int, now: Parked | None) -> None:
        parked = self.parked.get(session)
        if parked is None:
            return
        if now is not None:
            parked.retry = parked.retry or now.retry
        elif parked.last > last:  # What was parked since is not what was dropped.
            self.parked[session] = Parked(last + 1, parked.last, parked.error, parked.since, retry=True)
        else:
            del self.parked[session]


def _check_registration(name: str, registered: Registration, asked: Registration) -> None:
    for field in Registration.__struct_fields__:
        before, now = getattr(registered, field), getattr(asked, field)
        if before != now:
            raise Invalid(
                f"Consumer {name!r} was registered with {field}={before!r}, not {now!r}. "
                f"Pass {field}={before!r}, choose another name, or `perdure consumers --forget {name}` first, to begin from the start."
            )


def _copied(parked: Mapping[str, Parked]) -> dict[str, Parked]:
    return {session: msgspec.structs.replace(one) for session, one in parked.items()}
