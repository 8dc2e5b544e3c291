"""A consumer's checkpoint: a session of the tenant's system tenant that says how far the consumer is, and what is parked.

The run at work holds its lease, where the store has leases, and writes under it. It writes on the condition that nobody else wrote since,
too: so without leases the second of two runs under one name sees the other and stops, with nothing lost. What `retry` and `drop` change
meanwhile is adopted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from perdure.backends.spi import served
from perdure.concurrency.replies import Reply
from perdure.engine.leasing.lease import Lease
from perdure.engine.live.consumers import Parked, Position, Progress, Registration, State, path_of_consumer, session_id, state_of
from perdure.engine.store import Store, system_store
from perdure.engine.views import Change, Receipt
from perdure.errors import AlreadyExists, Busy, Conflict, Deleted, Error, Fenced, Invalid, NotFound, Unavailable, Unknown
from perdure.model import ops as op
from perdure.model.anchor import anchor_of
from perdure.model.events import Event
from perdure.model.ids import SessionKey, system_tenant
from perdure.model.lifecycle import SYSTEM_COMMITS_KEPT
from perdure.ops.held import Holding

ACTOR = "perdure consume"
"""The actor of the commits by which a checkpoint is cut."""
CUT_EVERY = 100
"""So many commits above the newest `SYSTEM_COMMITS_KEPT` may be there before the older ones go."""
WRITE_AGAIN_AFTER = 0.5
"""Seconds until a checkpoint is written again where the engine could not be reached."""
WRITE_TRIES = 120
"""How often that is tried: about a minute."""

_log = logging.getLogger("perdure.ops")


class Checkpoint:
    """One run's view of its consumer's checkpoint. `parked` is what this run knows; `save` stores it."""

    def __init__(self, store: Store, name: str, version: int, state: State, lease: Holding | None) -> None:
        self._tenant_store, self._name, self._run = store, name, store.new_id()
        self._store, self._id = system_store(store), session_id(name)
        self._version, self._stored, self._lease = version, state, lease
        self._saves = 0
        self.cursor = state.cursor
        self.parked = _copied(state.parked)

    @classmethod
    async def register(cls, store: Store, name: str, registration: Registration, after: str | None) -> str:
        """See that there is a consumer of this name; a new one begins after the cursor `after`. Returns its mark, for `open`.

        Raises `Invalid` if a consumer of this name was registered with another registration.
        """
        id, system = session_id(name), system_store(store)
        if (nodes := served(store._core.backend)) is not None:
            asked = {**msgspec.to_builtins(registration), "after": after}
            said = await nodes.ask("POST", path_of_consumer(name), tenant=store.tenant, body=asked, repeatable=True)
            return str(said["registered"])
        new = State(name, registration, after, "", 0, 0, None, {}, store.new_id())
        while True:
            try:
                state = state_of((await system.read(id)).state)
            except (NotFound, Deleted) as error:
                made = Event("registered", None, (op.set("", msgspec.to_builtins(new)),))
                try:
                    await system.append(id, made, expect=0, recreate=isinstance(error, Deleted))
                except (AlreadyExists, Conflict):
                    continue
                return new.registered
            _check_registration(name, state.registration, registration)
            return state.registered

    @classmethod
    async def open(cls, store: Store, name: str, registration: Registration, mark: str, lease: Holding | None) -> Checkpoint:
        """That of a consumer which `register` has found. Raises `Fenced` if it was forgotten since, `Invalid` as `register`."""
        try:
            view = await system_store(store).read(session_id(name))
        except (NotFound, Deleted):
            raise forgotten(name) from None
        state = state_of(view.state)
        if state.registered != mark:
            raise forgotten(name)
        _check_registration(name, state.registration, registration)
        return cls(store, name, view.version, state, lease)

    async def save(self, cursor: str | None, newest: Change | None, handled: int) -> None:
        """So many changes were handled, up to the newest: store that, the place to go on from, and what is parked.

        Waits out an engine that is away, for about a minute. Raises `Fenced` if another run has taken the lease, or written the checkpoint.
        """
        self._saves += 1
        for attempt in range(WRITE_TRIES):
            try:
                version = await self._write(self._progress(cursor, newest, handled))
            except (Conflict, Deleted):
                if await self.adopt() == self._saves:  # It was stored, and the answer was lost.
                    self.cursor = cursor
                    return
            except (Unavailable, Unknown):
                if attempt + 1 == WRITE_TRIES:
                    raise
                await Reply[None]().within(WRITE_AGAIN_AFTER)
            else:
                self._version, self.cursor = version, cursor
                self._stored.run, self._stored.saves, self._stored.parked = self._run, self._saves, _copied(self.parked)
                return
        raise Busy("The consumer's checkpoint was changed by others again and again.")

    async def _write(self, progress: Progress) -> int:
        """Store it after the version that this run knows. Raises `Conflict`, `Fenced`, `Deleted`."""
        key, nodes = f"{self._run}/{self._saves}/{self._version}", served(self._store._core.backend)
        if nodes is None:
            return (await write(self._tenant_store, self._name, progress, self._version, key, _direct(self._lease))).version
        path, grant = f"{path_of_consumer(self._name)}/checkpoint", None if self._lease is None else self._lease.grant
        body = {**msgspec.to_builtins(progress), "expect": self._version}
        said = await nodes.ask("POST", path, tenant=self._tenant_store.tenant, body=body, key=key, lease=grant)
        return int(said["version"])

    def _progress(self, cursor: str | None, newest: Change | None, handled: int) -> Progress:
        before, now = self._stored.parked, self.parked
        changed: dict[str, Parked | None] = {session: None for session in before if session not in now}
        changed |= {session: parked for session, parked in now.items() if before.get(session) != parked}
        position = None if newest is None else Position.of(newest)
        return Progress(self._run, self._saves, cursor, handled if newest is not None else 0, position, changed)

    async def adopt(self) -> int:
        """Read what `retry` and `drop` have changed meanwhile; how often this run's checkpoint was stored. Raises `Fenced`, see `save`."""
        try:
            view = await self._store.read(self._id)
        except (NotFound, Deleted):
            raise forgotten(self._stored.name) from None
        state = state_of(view.state)
        if state.registered != self._stored.registered:
            raise forgotten(self._stored.name)
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

    async def cut(self) -> None:
        """Let the checkpoint's old commits go, if there are many. What stands in the way is logged, and the next call tries again. The
        nodes of a service do it when a checkpoint is written."""
        if served(self._store._core.backend) is None:
            await cut(self._tenant_store, self._name)

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


async def write(store: Store, name: str, progress: Progress, expect: int, key: str, lease: Lease | None) -> Receipt:
    """Store the progress of a consumer, if nobody has written its checkpoint since the version `expect`. Raises as `Store.append`."""
    event = Event("handled", None, tuple(progress.ops))
    return await system_store(store).append(session_id(name), event, expect=expect, on_conflict="raise", key=key, create=False, lease=lease)


async def cut(store: Store, name: str) -> None:
    """Let the old commits of a consumer's checkpoint go, if there are many. What stands in the way is logged."""
    core, session = store._core, SessionKey(system_tenant(store.tenant), session_id(name))
    try:
        current = await core.reader.read_head(session)
        anchor = None if current is None else anchor_of(current.control)
        gone = 0 if anchor is None else anchor.version
        if current is not None and current.head.version - gone >= SYSTEM_COMMITS_KEPT + CUT_EVERY:
            await core.retention.compact(session, SYSTEM_COMMITS_KEPT, ACTOR, drop=True)
    except Error as error:
        _log.warning("The checkpoint of consumer %r could not be cut: %s", name, error)


def _direct(holding: Holding | None) -> Lease | None:
    return holding if isinstance(holding, Lease) else None


def forgotten(name: str) -> Fenced:
    """The error for a run whose consumer was forgotten."""
    return Fenced(
        f"Consumer {name!r} was forgotten while it was at work.",
        session=session_id(name),
        token=None,
        advice="Start it again to begin from the start.",
    )


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
