"""`consume`: every change of a tenant is handed to a function, at least once and in the order of its session, across restarts.

A consumer has a name. Its checkpoint is written after changes were handled, and never for changes that were only passed over. One run of a
name works at a time: `Checkpoint.save` is the condition, so the run whose checkpoint was overtaken stops with `Fenced`.

What a handler fails on is tried again, after pauses that grow. What fails `attempts` times is parked, and with it every later commit of its
session, so that the order holds; other sessions go on. `retry` hands over what is parked, `drop` gives it up.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress

import msgspec

from perdure.clock import Clock
from perdure.concurrency.replies import Reply, is_blocking
from perdure.engine.calls.changes import make_follower, make_selection
from perdure.engine.live.changes import Follower, Selection
from perdure.engine.store import Store
from perdure.engine.views import Change
from perdure.errors import Closed, Error, Invalid, NotFound, TooLarge, Truncated, Unavailable
from perdure.model.ids import check_name
from perdure.ops.checkpoint import Checkpoint, Parked, Registration
from perdure.ops.either import Either

Handler = Callable[[list[Change]], Awaitable[None] | None]
"""What a consumer calls with changes, oldest first: a coroutine function or a plain one. It has handled all of them when it returns."""

BATCH, BATCH_MAX = 100, 1_000
"""Changes in one call of a handler: at most by default, and at most at all."""
ATTEMPTS = 8
"""How often a commit is tried before it is parked: with the pauses below for about a minute."""
BACKOFF, BACKOFF_MAX = 0.5, 60.0
"""Seconds before a handler is called again after it failed, at first; each failure doubles them, up to the second. Of each pause a random
half is left out."""
PARKED_MAX = 256
"""Sessions of which something may be parked. A consumer that would park more stops: then its handler fails on everything."""
ERROR_CHARACTERS_MAX = 200
"""So much of a handler's error is kept with what is parked."""
LOOK_EVERY = 5.0
"""Seconds between two looks for what `retry` and `drop` have asked for, while something is parked."""

log = logging.getLogger("perdure.ops")


class Consumed(msgspec.Struct, frozen=True):
    """What a run of a consumer did."""

    handled: int
    """Changes that the handler has handled in this run."""
    parked: int
    """Sessions of which something is parked now."""


@Either
async def consume(
    store: Store,
    name: str,
    handler: Handler,
    *,
    batch: int = BATCH,
    types: Collection[str] | None = None,
    prefix: str = "",
    tags: Mapping[str, str] | None = None,
    control: bool = False,
    after: str | None = None,
    code: str | None = None,
    attempts: int = ATTEMPTS,
    follow: bool = True,
) -> Consumed:
    """Hand every change of this tenant to the handler, for as long as it runs; with `follow=False` until there are no more.

    It goes on where the consumer of this name was, or begins at the start, or after the cursor `after`, if the name is new. `batch`: most
    changes in one call. `types`, `prefix`, `tags`, `control` as in `Store.changes`; they belong to the name. So does `code`, a name for
    what the handler does; without it, the name of the function.

    At least once: after a crash the handler gets changes again that it had handled since the last checkpoint. Write with
    `key=change.key(name)` to have the effect once. The commits of one session come in the order of their versions.

    A handler that raises is called again, with the same changes one by one. After `attempts` the commit is parked, and all later ones
    of its session after it: see `consumers`, `retry` and `drop`. An error of Perdure that is `retryable` parks nothing: the call is
    repeated until it succeeds. A handler that writes to the same tenant gets these commits too: choose by `prefix` or `types`.

    Raises `Fenced` when another run of this name has written the checkpoint or it was forgotten, `Invalid` for a name that was registered
    for something else, `TooLarge` when more than 256 sessions would be parked, and what `Store.changes` raises.
    """
    _check(batch, attempts, handler)
    selection = make_selection(types=types, prefix=prefix, tags=tags, control=control)
    if after is not None:
        make_follower(store._context, after, selection)
    registration = Registration.of(_name_of(handler) if code is None else check_name("code", code), selection)
    checkpoint = await Checkpoint.load(store, name, registration, after)
    follower = make_follower(store._context, checkpoint.cursor, selection, batch)
    return await _Run(store, name, handler, checkpoint, selection, batch, attempts).work(follower, follow=follow)


class _Run:
    """A consumer at work."""

    def __init__(
        self, store: Store, name: str, handler: Handler, checkpoint: Checkpoint, selection: Selection, batch: int, attempts: int
    ) -> None:
        self._store, self._name, self._handler, self._checkpoint, self._selection = store, name, handler, checkpoint, selection
        self._batch, self._attempts = batch, attempts
        self._clock: Clock = store._core.clock
        self._looked = self._clock.monotonic()
        self._handled = 0

    async def work(self, follower: Follower, *, follow: bool) -> Consumed:
        """Handle what the follower gives."""
        async with aclosing(follower.pages(follow=follow)) as pages:
            async for page in pages:
                self._store._core.check_process()
                await self._attend_to_parked()
                for start in range(0, len(page), self._batch):
                    await self._handle(page[start : start + self._batch])
                if not page:
                    self._measure(0, 0.0)
        return Consumed(self._handled, len(self._checkpoint.parked))

    async def _handle(self, changes: Sequence[Change]) -> None:
        """Hand over a batch, and write the checkpoint unless all of it was parked with what came before."""
        before = len(self._checkpoint.parked)
        handled = await self._deliver([change for change in changes if not self._is_parked(change)])
        if handled or len(self._checkpoint.parked) > before:
            await self._save(changes[-1].cursor, handled[-1] if handled else None, len(handled))

    async def _save(self, cursor: str | None, newest: Change | None, handled: int) -> None:
        await self._checkpoint.save(cursor, newest, handled)
        if newest is not None:
            self._handled += handled
            self._measure(handled, max(0.0, (self._clock.now() - newest.commit.at) / 1e9))

    def _measure(self, handled: int, lag: float) -> None:
        self._store._core.telemetry.consumed(self._store.tenant, self._name, handled, lag, len(self._checkpoint.parked))

    async def _deliver(self, changes: list[Change]) -> list[Change]:
        """Have the handler handle these, together or one by one; those that it has handled. The others are parked."""
        if not changes:
            return changes
        if len(changes) > 1:
            if await self._call(changes) is None:
                return changes
            await self._pause(0)
        return [change for change in changes if not self._is_parked(change) and await self._try(change)]

    async def _try(self, change: Change) -> bool:
        """Whether the handler has handled it, alone, after so many attempts at most; else it is parked."""
        for attempt in range(self._attempts):
            error = await self._call([change])
            if error is None:
                return True
            if attempt + 1 < self._attempts:
                await self._pause(attempt)
            else:
                self._park(change, error)
        return False

    async def _call(self, changes: list[Change]) -> Exception | None:
        """Call the handler, again and again where it may succeed by itself; what it has raised otherwise."""
        failures = 0
        while True:
            try:
                answer = self._handler(list(changes))
                if answer is not None:
                    await answer
            except Closed:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is its failure, and shown with what is parked
                if not isinstance(error, Error) or not error.retryable:
                    return error
            else:
                return None
            await self._pause(failures)
            failures += 1

    async def _pause(self, failures: int) -> None:
        """Wait after a failure that so many came before."""
        seconds = min(BACKOFF * 2 ** min(failures, 16), BACKOFF_MAX)
        await Reply[None]().within(seconds * (0.5 + self._clock.bits(16) / (1 << 17)))
        self._store._core.check_open()

    def _is_parked(self, change: Change) -> bool:
        """Whether something of its session is parked: then it is parked after that."""
        parked = self._checkpoint.parked.get(change.session)
        if parked is not None:
            parked.last = max(parked.last, change.commit.version)
        return parked is not None

    def _park(self, change: Change, error: Exception) -> None:
        parked, version = self._checkpoint.parked, change.commit.version
        known = parked.get(change.session)
        if known is None and len(parked) >= PARKED_MAX:
            raise TooLarge(
                f"Consumer {self._name!r} has something parked of {PARKED_MAX} sessions, and fails on session {change.session!r} too.",
                advice=f"Correct the handler, start it again, then run `perdure consumers --retry {self._name}`.",
            ) from error
        text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX].encode(errors="replace").decode()
        last = version if known is None else max(known.last, version)
        parked[change.session] = Parked(version, last, text, self._clock.now())
        kind = type(error).__name__
        log.warning(
            "Consumer %r has parked session %r from version %d on: its handler raised %s.", self._name, change.session, version, kind
        )

    async def _attend_to_parked(self) -> None:
        """Do what `retry` and `drop` have asked for."""
        parked = self._checkpoint.parked
        if parked and self._clock.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = self._clock.monotonic()
            with suppress(Unavailable):
                await self._checkpoint.adopt()
        for session in [session for session, one in parked.items() if one.retry]:
            await self._retry(session)

    async def _retry(self, session: str) -> None:
        """Hand over what is parked of a session; what fails again stays parked, and what was purged meanwhile is gone."""
        parked = self._checkpoint.parked[session]
        first, last = parked.first, parked.last
        handled, newest = 0, None
        while first <= last:
            commits = self._store.history(session, after=first - 1, before=last + 1, include_deleted=True, control=True)
            try:
                async with aclosing(commits):  # type: ignore[type-var]
                    async for commit in commits:
                        first = commit.version + 1
                        chosen = self._selection.of(commit)
                        if chosen is None:
                            continue
                        change = Change(session, chosen, self._checkpoint.cursor or "")
                        if not await self._try(change):
                            return await self._save(self._checkpoint.cursor, newest, handled)
                        handled, newest = handled + 1, change
                break
            except Truncated as error:
                first = error.first
            except NotFound:
                break
        del self._checkpoint.parked[session]
        return await self._save(self._checkpoint.cursor, newest, handled)


def _name_of(handler: Handler) -> str:
    """What a function is called, wherever it was defined."""
    name = getattr(handler, "__qualname__", type(handler).__qualname__)
    return str(name).rpartition("<locals>.")[2]


def _check(batch: object, attempts: object, handler: object) -> None:
    """Raise `Invalid` for what cannot be."""
    if type(batch) is not int or not 1 <= batch <= BATCH_MAX:
        raise Invalid(f"batch must be a whole number from 1 to {BATCH_MAX:,}, not {batch!r}.")
    if type(attempts) is not int or attempts < 1:
        raise Invalid(f"attempts must be a whole number from 1, not {attempts!r}.")
    if not callable(handler):
        raise Invalid(f"A handler is a function that takes a list of changes, not {type(handler).__name__}.")
    if is_blocking() and inspect.iscoroutinefunction(handler):
        raise Invalid("With perdure.sync.Store the handler is a plain function; with perdure.Store it may be a coroutine function.")
